"""CAT-ASR and CAT-TTS, tiny and untrained, as what an evaluation runs."""

import numpy as np
import pytest

from moss_audio_tokenizer.errors import ModelMismatchError
from moss_audio_tokenizer.evaluation.scoring_models import load_transcriber
from moss_audio_tokenizer.onnx.tokenizer import OnnxCodec
from moss_audio_tokenizer.speech.synthesizer import SpeechRequest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

LETTERS = "abc "


@pytest.fixture(scope="module")
def codec():
    return OnnxCodec.from_pretrained("bundled")


@pytest.fixture(scope="module")
def asr_folder(codec, tmp_path_factory):
    from moss_audio_tokenizer.asr import CatAsr, CatAsrConfig
    from moss_audio_tokenizer.llm import CharacterText, language_model_config

    text = CharacterText(LETTERS)
    config = CatAsrConfig(
        text_config=language_model_config(16, 2, 2, text.num_tokens),
        num_quantizers=2,
        codebook_size=codec.info.codebook_size,
        codec=codec.info.identity,
    )
    folder = tmp_path_factory.mktemp("asr") / "final"
    CatAsr(config, text, seed=3).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def tts_folder(codec, tmp_path_factory):
    from moss_audio_tokenizer.llm import CharacterText, language_model_config
    from moss_audio_tokenizer.tts import CatTts, CatTtsConfig

    text = CharacterText(LETTERS)
    config = CatTtsConfig(
        text_config=language_model_config(16, 2, 2, text.num_tokens),
        num_quantizers=2,
        codebook_size=codec.info.codebook_size,
        code_rank=2,
        depth_width=12,
        depth_layers=1,
        depth_heads=2,
        depth_key_value_heads=1,
        depth_head_dim=6,
        depth_feedforward=16,
        adapter_width=0,
        codec=codec.info.identity,
    )
    folder = tmp_path_factory.mktemp("tts") / "final"
    CatTts(config, text, seed=3).save_pretrained(folder)
    return folder


def test_a_reader_reads_codes_at_any_of_its_depths(asr_folder, codec):
    from moss_audio_tokenizer.evaluation.speech.asr_eval import CatAsrSystem

    reader = CatAsrSystem(str(asr_folder), codec)
    assert reader.num_quantizers == 2
    assert reader.identity == CatAsrSystem(str(asr_folder), codec).identity
    clips = [np.random.default_rng(seed).integers(0, 9, (2, 5 + seed)) for seed in range(2)]
    for depth in (1, 2):
        texts = reader.transcribe_codes([clip[:depth] for clip in clips], depth, 2)
        assert len(texts) == 2
        assert set("".join(texts)) <= set(LETTERS)


def test_a_reader_of_other_codes_is_refused(asr_folder, codec):
    from moss_audio_tokenizer.evaluation.speech.asr_eval import CatAsrSystem

    class Other:
        info = type(codec.info)("f" * 16, 24_000, 1, 1920, 32, codec.info.codebook_size)

    with pytest.raises(ModelMismatchError, match="codec"):
        CatAsrSystem(str(asr_folder), Other())


def test_a_recogniser_puts_the_codec_before_it(asr_folder):
    recognise = load_transcriber(f"cat:{asr_folder}")
    sound = 0.1 * np.sin(np.arange(8_000) / 9)
    transcript = recognise(sound, 16_000)
    assert set(transcript) <= set(LETTERS)
    assert transcript == recognise(sound, 16_000)


def test_a_talker_speaks_with_a_seed_for_every_row(tts_folder):
    from moss_audio_tokenizer.evaluation.speech.tts_eval import CatTtsSystem

    system = CatTtsSystem(str(tts_folder), "bundled", "cpu", max_frames=3, top_k=5)
    assert (system.num_quantizers, system.kbps_per_quantizer) == (2, 0.125)
    same, other = (
        CatTtsSystem(str(tts_folder), "bundled", "cpu", max_frames=3, top_k=top_k)
        for top_k in (5, 6)
    )
    assert same.identity == system.identity != other.identity
    prompt = (0.1 * np.sin(np.arange(9_600) / 9)).astype(np.float32), 48_000
    wanted = [SpeechRequest("ab"), SpeechRequest("ba", prompt, "c")]
    both = system.synthesize(wanted, 2, 7)
    (second,) = system.synthesize(wanted[1:], 2, 8)
    assert all(one.sampling_rate == 24_000 and one.samples.ndim == 1 for one in both)
    # Of equal codes; batches of other sizes round otherwise.
    assert len(second.samples) == len(both[1].samples)
    np.testing.assert_allclose(second.samples, both[1].samples, atol=1e-4)
