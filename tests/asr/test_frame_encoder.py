"""A CAT-ASR with a bidirectional encoder: its losses, scores, transcripts and folders."""

import numpy as np
import pytest
import torch

from moss_audio_tokenizer.asr import CatAsr, CatAsrConfig, Transcriber
from moss_audio_tokenizer.asr.frame_encoder import ctc_loss
from moss_audio_tokenizer.codes import CodecInfo
from moss_audio_tokenizer.errors import CheckpointError, ConfigError, InputError
from moss_audio_tokenizer.llm import CharacterText, language_model_config
from moss_audio_tokenizer.speech.model_facts import describe_speech_model
from moss_audio_tokenizer.speech.phonemes import LEXICON_NAME, PHONEMES, STRESS, TICKS, Lexicon
from moss_audio_tokenizer.speech.tokens import LETTERS

TEXT = CharacterText(LETTERS)
LEXICON = Lexicon({"ab": f"{STRESS}æb", "ba": "ba", "cab": f"k{STRESS}æb"})


def fresh(**changes) -> CatAsr:
    torch.set_num_threads(1)
    values = {"encoder_layers": 3, "encoder_width": 64, "code_rank": 2} | changes
    model = CatAsr(CatAsrConfig(num_quantizers=4, codebook_size=8, **values), TEXT, seed=3)
    model.lexicon = LEXICON
    return model.eval()


@pytest.fixture(scope="module")
def model() -> CatAsr:
    return fresh()


def batch(*frames: int) -> torch.Tensor:
    random = np.random.default_rng(0)
    clips = [random.integers(0, 8, (4, count)) for count in frames]
    rows = [np.pad(clip, ((0, 0), (0, max(frames) - clip.shape[1]))) for clip in clips]
    return torch.from_numpy(np.stack(rows, 1))


def test_scores_of_a_row_are_those_of_the_row_by_itself(model):
    codes = batch(3, 7)
    for scores, classes in (
        (model.frame_scores, TEXT.num_tokens + 1),
        (model.phoneme_scores, len(PHONEMES) + 1),
    ):
        found = scores(codes, [3, 7])
        assert found.shape == (2, TICKS * 7, classes)
        torch.testing.assert_close(found[0, : TICKS * 3], scores(codes[:, :1, :3], [3])[0])
        torch.testing.assert_close(found.exp().sum(-1), torch.ones(2, TICKS * 7))


def test_codebooks_that_are_not_kept_are_not_seen(model):
    codes = batch(5)
    kept = model.phoneme_scores(codes, [5], torch.tensor([2]))
    torch.testing.assert_close(kept, model.phoneme_scores(codes[:2], [5]))
    assert not torch.allclose(kept, model.phoneme_scores(codes, [5]))


def test_losses_are_those_of_letters_and_of_phonemes(model):
    codes, texts = batch(4, 6), ["ab ba", "cab"]
    output = model(codes, [4, 6], texts)
    letters, phonemes = model.frame_scores(codes, [4, 6]), model.phoneme_scores(codes, [4, 6])
    steps = [4 * TICKS, 6 * TICKS]
    expected = ctc_loss(letters, steps, [TEXT.encode(text) for text in texts])
    torch.testing.assert_close(output.loss_sum, expected)
    said = [[PHONEMES.index(phoneme) for phoneme in row] for row in ("æbba", "kæb")]
    torch.testing.assert_close(output.phoneme_loss, ctc_loss(phonemes, steps, said))
    assert output.num_tokens == 5 + 3
    assert output.num_correct is output.frame_loss is None


def test_rows_with_an_unknown_word_have_no_phonemes(model):
    codes = batch(4, 6)
    both = model(codes, [4, 6], ["ab dab", "cab"])
    alone = model(codes[:, 1:], [6], ["cab"])
    torch.testing.assert_close(both.phoneme_loss, alone.phoneme_loss)
    assert model(codes, [4, 6], ["dab", "dab ab"]).phoneme_loss is None
    bare = fresh()
    bare.lexicon = None
    assert bare(codes, [4, 6], ["ab", "ab"]).phoneme_loss is None


def test_hidden_frames_are_no_input(model):
    codes, visible = batch(6), torch.ones(1, 6, dtype=torch.bool)
    visible[0, 2] = False
    other = codes.clone()
    other[:, 0, 2] = (other[:, 0, 2] + 1) % 8
    first, second = (model(c, [6], ["ab"], None, visible).loss_sum for c in (codes, other))
    assert torch.equal(first, second)
    assert not torch.equal(first, model(codes, [6], ["ab"]).loss_sum)


def test_a_clip_is_learned_and_its_words_have_times():
    model, codes, text = fresh(encoder_dropout=0.0).train(), batch(9), "cab ba"
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    for _ in range(60):
        optimizer.zero_grad()
        output = model(codes, [9], [text])
        (output.loss_sum + output.phoneme_loss).backward()
        optimizer.step()
    model.eval()
    clip = codes[:, 0].numpy()
    for beams in (0, 1, 4):
        assert model.transcribe_codes([clip, clip], num_beams=beams) == [text, text]

    class Codec:
        info = CodecInfo("", 24_000, 1, 1920, 4, 8)

    (found,) = Transcriber(model, Codec()).transcripts([clip])
    assert [word.text for word in found.words] == ["cab", "ba"]
    edges = [edge for word in found.words for edge in (word.start_seconds, word.end_seconds)]
    assert edges == sorted(edges)
    steps = np.array(edges) * 12.5 * TICKS
    np.testing.assert_allclose(steps, steps.round(), atol=1e-6)
    assert 0 <= steps[0] < steps[-1] <= 9 * TICKS


def test_folders_keep_everything(model, tmp_path):
    model.save_pretrained(tmp_path / "with")
    loaded = CatAsr.from_pretrained(tmp_path / "with")
    codes = batch(5)
    torch.testing.assert_close(loaded.frame_scores(codes), model.frame_scores(codes))
    assert loaded.lexicon.pronounce("cab") == LEXICON.pronounce("cab")
    assert loaded.facts.steps_per_frame == TICKS
    assert loaded.facts.has_frame_scores
    assert not loaded.facts.has_language_model
    facts = describe_speech_model(tmp_path / "with")
    assert facts["language_model"] is None
    assert set(facts["parameters"]) == {"total", "code_embedding", "frame_encoder"}
    loaded.lexicon = None
    loaded.save_pretrained(tmp_path / "without")
    assert not (tmp_path / "without" / LEXICON_NAME).exists()
    assert CatAsr.from_pretrained(tmp_path / "without").lexicon is None


def test_damaged_lexicons_are_refused(model, tmp_path):
    model.save_pretrained(tmp_path)
    (tmp_path / LEXICON_NAME).write_text("no tab\n")
    with pytest.raises(CheckpointError, match="line 1 is not a word, a tab"):
        CatAsr.from_pretrained(tmp_path)


def test_what_only_other_models_have_is_refused(model):
    with pytest.raises(InputError, match="no language model to decode by"):
        model.decoder([np.zeros((4, 3), np.int64)])
    language = language_model_config(16, 1, 2, TEXT.num_tokens)
    other = CatAsr(CatAsrConfig(text_config=language, num_quantizers=4, codebook_size=8), TEXT)
    with pytest.raises(InputError, match="no phoneme scores"):
        other.phoneme_scores(batch(3), [3])


@pytest.mark.parametrize(
    "values",
    [
        {"encoder_layers": 2},
        {"encoder_layers": 129},
        {"encoder_width": 65},
        {"encoder_dropout": 1.0},
        {"encoder_dropout": "0"},
        {"frame_scores": True},
        {"text_config": {"model_type": "qwen2"}},
    ],
)
def test_encoders_that_cannot_be(values):
    with pytest.raises(ConfigError, match="encoder_"):
        CatAsrConfig(**({"encoder_layers": 3} | values))
