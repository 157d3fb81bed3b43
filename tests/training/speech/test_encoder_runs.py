"""Runs of a CAT-ASR with a bidirectional encoder: what they learn, keep, resume and refuse."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from toy_run import read_log, run_until
from toy_speech import PRONOUNCED, encoder_config, say, write_codes

from moss_audio_tokenizer.asr import CatAsr
from moss_audio_tokenizer.errors import CheckpointError, ConfigError
from moss_audio_tokenizer.speech.phonemes import Lexicon
from moss_audio_tokenizer.training.recipes import trainer_for
from moss_audio_tokenizer.training.run_config import override
from moss_audio_tokenizer.training.speech.asr_task import hide_spans
from moss_audio_tokenizer.training.speech.speech_config import AsrTrainingConfig


@pytest.fixture
def config(tmp_path):
    """Eight steps; the lexicon lacks the word "b"."""
    lexicon = tmp_path / "words.txt"
    Lexicon({w: said for w, said in PRONOUNCED.items() if w != "b"}).save(lexicon)
    return encoder_config(tmp_path / "run", write_codes(tmp_path), lexicon)


def train(config, resume: bool = False) -> Path:
    return trainer_for(config, resume, lambda _: None).run()


def test_a_run_leaves_logs_and_a_model_with_its_lexicon(config):
    final = train(config)
    steps = read_log(final.parent)
    assert steps[0].keys() == {
        *("step", "total", "text", "phonemes", "gradient_norm", "learning_rate")
    }
    for line in steps:
        assert line["total"] == pytest.approx(line["text"] + 0.5 * line["phonemes"], rel=1e-4)
    assert {"wer/1", "cer/3"} < read_log(final.parent, "validation.jsonl")[0].keys()
    model = CatAsr.from_pretrained(final)
    assert "cab" in model.lexicon
    assert model.facts.codec == "0123456789abcdef"


def test_both_losses_fall_and_texts_are_read(config):
    # Neighbors with the same letter are one sound of six frames: not in these texts.
    keys = ("max_steps=120", "checkpoint_every=120", "validation.every=120", "prefix_share=0.0")
    final = train(override(config, [*keys, "frame_mask=0.0", "encoder_dropout=0.0"]))
    steps = read_log(final.parent)
    for name in ("text", "phonemes"):
        assert steps[-1][name] < 0.2 * steps[0][name]
    model = CatAsr.from_pretrained(final)
    assert model.transcribe_codes([say("cab"), say("abc")]) == ["cab", "abc"]


def test_a_resumed_run_continues_bit_for_bit(config, tmp_path):
    final = train(config)
    parted = replace(config, output=str(tmp_path / "parted"))
    run_until(trainer_for(parted, report=lambda _: None), 6)
    resumed = train(parted, resume=True)
    assert read_log(tmp_path / "parted") == read_log(tmp_path / "run")
    first, second = (CatAsr.from_pretrained(path).state_dict() for path in (final, resumed))
    assert all(torch.equal(value, second[name]) for name, value in first.items())


def test_a_run_in_16_bits_without_a_lexicon(config):
    final = train(replace(config, precision="bf16", lexicon="", max_steps=2))
    losses = [line["total"] for line in read_log(final.parent)]
    assert np.isfinite(losses).all()
    assert "phonemes" not in read_log(final.parent)[0]
    assert CatAsr.from_pretrained(final).lexicon is None


def test_frames_are_hidden_by_the_seed_of_their_row_in_training_alone(config):
    trainer = trainer_for(config, report=lambda _: None)
    batch = next(trainer.batches(0))
    longest = max(row.num_frames for row in batch.batch.rows)
    first, again = (trainer.task._visible(batch, longest) for _ in range(2))
    assert torch.equal(first, again)
    assert not first.all()
    trainer.task.eval()
    assert trainer.task._visible(batch, longest) is None
    trainer.close()


def test_about_the_share_of_the_frames_is_hidden_in_short_spans():
    shares = []
    for seed in range(400):
        visible = np.ones(100, bool)
        hide_spans(visible, 0.1, np.random.default_rng(seed))
        shares.append(1 - visible.mean())
    assert 0.08 < np.mean(shares) < 0.12
    assert min(shares) < 0.03
    assert max(shares) < 0.26
    short = np.ones(2, bool)
    hide_spans(short, 0.5, np.random.default_rng(0))
    assert len(short) == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("encoder_layers=2", "encoder_layers is 2; expected 3 to 128, or 0"),
        ("model.width=32", "width is 32; expected a multiple of 64"),
        ("model.llm=gpt2", "llm is 'gpt2'; expected 'random'"),
        ("frame_weight=1.0", "frame_weight is 1.0; expected 0 with encoder_layers"),
        ("encoder_layers=0", "lexicon is .*; expected '' without encoder_layers"),
        ("frame_mask=0.6", "frame_mask is 0.6; expected 0 to 0.5"),
        ("encoder_dropout=1.0", "encoder_dropout is 1.0; expected 0 up to 1"),
        ("phoneme_weight=-1.0", "phoneme_weight is -1.0; expected 0 or more"),
    ],
)
def test_settings_that_cannot_be(config, change, message):
    with pytest.raises(ConfigError, match=message):
        override(config, [change])


def test_without_an_encoder_no_frame_is_hidden():
    with pytest.raises(ConfigError, match=r"frame_mask is 0\.1; expected 0 without"):
        AsrTrainingConfig(frame_mask=0.1)


def test_lexicons_there_must_be(config):
    with pytest.raises(CheckpointError, match="cannot be read"):
        trainer_for(replace(config, lexicon="nothing.txt"), report=lambda _: None)
