"""A word language model in the folder of a CAT-ASR is used where nothing else is asked for."""

import numpy as np
import pytest

from moss_audio_tokenizer.export.speech_export import export_speech
from moss_audio_tokenizer.speech.asr_decoding import transcribe_codes
from moss_audio_tokenizer.speech.ctc_beam_search import WORD_BEAMS, beam_search
from moss_audio_tokenizer.speech.model_facts import ModelFacts
from moss_audio_tokenizer.speech.onnx_speech import OnnxAsr
from moss_audio_tokenizer.speech.tokens import LETTERS, CharacterText
from moss_audio_tokenizer.speech.word_language_model import WORD_LM_NAME, WordLanguageModel
from moss_audio_tokenizer.speech.word_ngrams import build_word_language_model

TEXT = CharacterText(LETTERS)
SENTENCES = ["the cat sat", "the cat ran", "a cat sat down"] * 4


@pytest.fixture(scope="module")
def words() -> WordLanguageModel:
    return build_word_language_model(SENTENCES)


class Misspelling:
    """Hears "the kat sat", a c being nearly as likely as the k."""

    facts = ModelFacts(
        num_quantizers=1, codebook_size=4, has_language_model=False, has_frame_scores=True
    )
    text = TEXT
    word_language_model: WordLanguageModel | None = None

    def ctc_scores(self, codes: np.ndarray) -> np.ndarray:
        """A blank behind every letter."""
        shares = np.full((22, TEXT.num_tokens + 1), 1e-6)
        for step, token in enumerate(TEXT.encode("the kat sat")):
            shares[2 * step, token] = 0.6
            shares[2 * step + 1, -1] = 1.0
        shares[8, TEXT.encode("c")[0]] = 0.4
        return np.log(shares / shares.sum(-1, keepdims=True))


def test_beams_find_known_words(words) -> None:
    model, codes = Misspelling(), [np.zeros((1, 8), int)]
    assert transcribe_codes(model, codes) == ["the kat sat"]
    model.word_language_model = words
    assert transcribe_codes(model, codes) == ["the cat sat"]
    assert transcribe_codes(model, codes, num_beams=1) == ["the kat sat"]
    assert transcribe_codes(model, codes, num_beams=0) == ["the kat sat"]


def test_folders_bring_it_along(words, tmp_path) -> None:
    from moss_audio_tokenizer.asr import CatAsr, CatAsrConfig

    sizes = {"num_quantizers": 2, "codebook_size": 8, "encoder_layers": 3, "encoder_width": 64}
    CatAsr(CatAsrConfig(**sizes), TEXT).save_pretrained(tmp_path / "asr")
    words.save(tmp_path / "asr" / WORD_LM_NAME)
    export_speech(tmp_path / "asr", tmp_path / "onnx")
    loaded, exported = CatAsr.from_pretrained(tmp_path / "asr"), OnnxAsr(tmp_path / "onnx")
    codes = np.random.default_rng(0).integers(0, 8, (2, 9))
    expected = beam_search(exported.ctc_scores(codes), TEXT, words, WORD_BEAMS)
    assert transcribe_codes(loaded, [codes]) == transcribe_codes(exported, [codes]) == [expected]
