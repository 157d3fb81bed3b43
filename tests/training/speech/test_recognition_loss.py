"""The loss by what a CAT-ASR recognizes in codes that CAT-TTS predicts."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.numpy import load_file
from toy_run import run_until
from toy_speech import BOOK, aligned_config, language_config, say, write_aligner, write_codes

from moss_audio_tokenizer.asr import CatAsr
from moss_audio_tokenizer.errors import ConfigError
from moss_audio_tokenizer.training.recipes import trainer_for


@pytest.fixture(scope="module")
def codes(tmp_path_factory) -> str:
    return write_codes(tmp_path_factory.mktemp("codes"))


@pytest.fixture(scope="module")
def asr_folder(tmp_path_factory) -> Path:
    return write_aligner(tmp_path_factory.mktemp("asr"))


def test_of_recorded_codes_it_is_the_loss_of_the_asr_model(asr_folder):
    model, texts = CatAsr.from_pretrained(asr_folder), ["ab", "cabb"]
    clips = [torch.from_numpy(say(text)).long() for text in texts]
    longest = max(clip.shape[1] for clip in clips)
    codes = torch.stack([F.pad(clip, (0, longest - clip.shape[1])) for clip in clips], 1)
    counts = [clip.shape[1] for clip in clips]
    expected = model(codes, counts, texts)
    found = model.recognition_loss(F.one_hot(codes, BOOK).float(), counts, texts)
    torch.testing.assert_close(found, expected.loss_sum + expected.phoneme_loss)


def test_it_teaches_the_whole_model_and_not_the_recognizer(asr_folder, codes, tmp_path):
    config = aligned_config(tmp_path / "run", codes, asr_folder, recognition_weight=2.0)
    trainer = trainer_for(config, report=lambda _: None)
    (rows,) = trainer.passes(next(trainer.batches(0)))
    losses = trainer.task(rows, 7.0)
    parts = losses["codes"] + losses["end"] + 0.3 * losses["durations"]
    torch.testing.assert_close(losses["total"], parts + 2 * losses["recognition"])
    losses["recognition"].backward()
    model = trainer.task.model
    for part in (model.depth.exits[1], model.depth.blocks, model.temporal.layers):
        assert all(float(weight.grad.abs().max()) > 0 for weight in part.parameters())
    assert float(model.text_encoder.tokens.weight.grad.abs().max()) > 0
    assert all(weight.grad is None for weight in trainer.aligner.model.parameters())
    trainer.close()


def test_a_batch_without_conditioned_rows_has_none(asr_folder, codes, tmp_path):
    changes = {"recognition_weight": 1.0, "place_dropout": 0.999}
    config = aligned_config(tmp_path / "run", codes, asr_folder, **changes)
    trainer = trainer_for(config, report=lambda _: None)
    assert trainer.train_step(next(trainer.batches(0)))["recognition"] == 0
    trainer.close()


def test_a_resumed_run_continues_bit_for_bit(asr_folder, codes, tmp_path):
    changes = {"recognition_weight": 1.0, "place_dropout": 0.3, "accumulate": 2, "max_steps": 6}
    config = aligned_config(tmp_path / "run", codes, asr_folder, **changes)
    expected = load_file(trainer_for(config, report=lambda _: None).run() / "model.safetensors")
    cut = replace(config, output=str(tmp_path / "cut"))
    run_until(trainer_for(cut, report=lambda _: None), 5)
    torch.rand(100)  # Whatever else draws in between
    final = trainer_for(cut, resume=True, report=lambda _: None).run()
    found = load_file(final / "model.safetensors")
    assert all(np.array_equal(expected[name], found[name]) for name in expected)


def test_held_out_clips_are_not_drawn(asr_folder, codes, tmp_path):
    config = aligned_config(tmp_path / "run", codes, asr_folder, recognition_weight=1.0)
    trainer = trainer_for(config, report=lambda _: None)
    assert "recognition" not in trainer.validate().scalars
    trainer.close()


def test_without_an_aligner_there_is_none(codes, tmp_path):
    config = language_config("tts", tmp_path / "run", codes, recognition_weight=1.0)
    trainer = trainer_for(config, report=lambda _: None)
    assert "recognition" not in trainer.train_step(next(trainer.batches(0)))
    trainer.close()
    with pytest.raises(ConfigError, match=r"recognition_weight is -1\.0; expected 0 or more$"):
        language_config("tts", tmp_path, codes, recognition_weight=-1.0)
