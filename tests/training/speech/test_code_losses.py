"""Runs of CAT-TTS with soft targets, weights of codebooks and dropout of hidden states."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from toy_run import run_until
from toy_speech import BOOK, LAYERS, language_config, write_codes

from moss_audio_tokenizer.errors import ConfigError
from moss_audio_tokenizer.training.recipes import recipe, trainer_for
from moss_audio_tokenizer.training.run_config import override
from moss_audio_tokenizer.training.speech.tts_task import TtsTask
from moss_audio_tokenizer.training.speech.tts_trainer import TtsTrainer
from moss_audio_tokenizer.tts import CatTts, CodeLoss

ALL = (
    "soft_targets.share=0.5",
    "half_weight_at=1",
    "dropout.skew=2",
    "hidden_dropout=0.2",
    "num_quantizers=2",
)


@pytest.fixture(scope="module")
def codes(tmp_path_factory) -> str:
    return write_codes(tmp_path_factory.mktemp("codes"))


@pytest.fixture
def config(codes, tmp_path):
    return override(language_config("tts", tmp_path / "run", codes), ALL)


@pytest.fixture
def vectors(monkeypatch) -> torch.Tensor:
    """Of the codes of the toy, which no codec has made."""
    made = torch.randn(LAYERS + 1, BOOK, 5, generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr(TtsTrainer, "code_vectors", lambda self: made)
    return made


def finished(config, resume: bool = False):
    folder = trainer_for(config, resume, report=lambda _: None).run()
    return load_file(folder / "model.safetensors")


@pytest.mark.usefixtures("vectors")
def test_a_resumed_run_continues_bit_for_bit(config, tmp_path):
    expected = finished(config)
    cut = replace(config, output=str(tmp_path / "cut"))
    run_until(trainer_for(cut, report=lambda _: None), 6)
    torch.rand(100)  # Whatever else draws in between
    found = finished(cut, resume=True)
    assert all(np.array_equal(expected[name], found[name]) for name in expected)
    model = CatTts.from_pretrained(tmp_path / "run/final")
    assert (model.config.num_quantizers, model.config.hidden_dropout) == (2, 0.2)


def test_targets_are_of_all_stored_codes_in_training_alone(config, vectors):
    trainer = trainer_for(config, report=lambda _: None)
    task, rows = trainer.task, next(trainer.batches(0))
    batch = task._batch(rows)
    soft = batch.code_loss.soft_targets
    assert batch.audio_codes.shape[0] == LAYERS
    assert torch.equal(soft.vectors, vectors[:LAYERS])
    assert len(soft.scales) == 2
    assert set(rows.num_quantizers.tolist()) <= {1, 2}
    plain = trainer.task.eval()._batch(rows)
    assert (plain.audio_codes.shape[0], plain.code_loss.soft_targets) == (2, None)
    assert trainer.validated_num_quantizers() == [1, 2]
    trainer.close()


@pytest.mark.usefixtures("vectors")
def test_losses_are_divided_by_the_weights_of_their_codebooks(config):
    trainer = trainer_for(override(config, ["dropout.probability=0"]), report=lambda _: None)
    rows = next(trainer.batches(0))
    frames = sum(row.num_frames for row in rows.batch.rows)
    assert trainer.num_targets(rows) == frames * (1 + 1 / 2)
    assert trainer.task.eval().num_tokens(rows) == frames * 2
    # A model that knows nothing takes each code for as likely as all others.
    model, task = trainer.task.model, trainer.task
    for layer in model.depth.exits:
        torch.nn.init.zeros_(layer[-1].weight)
    losses = TtsTask(model, task.config, code_loss=task._code_loss)(rows, frames * 1.5)
    assert float(losses["codes"].detach()) == pytest.approx(np.log(BOOK), rel=1e-5)
    trainer.close()


def test_a_sharper_soft_target_is_a_lower_scale(config, vectors):
    scales = []
    for entropy in (0.5, 1.5):
        own = override(config, [f"soft_targets.entropy={entropy}"])
        trainer = trainer_for(own, report=lambda _: None)
        scales.append(trainer.task.code_loss.soft_targets.scales)
        trainer.close()
    assert all(narrow > wide > 0 for narrow, wide in zip(*scales, strict=True))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("dropout.skew=0.5", r"skew.*1 to 100"),
        ("soft_targets.share=1.5", r"share.*0 to 1"),
        ("soft_targets.entropy=0.0", r"entropy.*above 0"),
        ("hidden_dropout=1.0", r"hidden_dropout.*0 up to 1"),
        ("half_weight_at=-1.0", r"half_weight_at.*0 to"),
        ("half_weight_at=nan", r"half_weight_at.*finite"),
        ("num_quantizers=-1", r"num_quantizers.*0 for all"),
    ],
)
def test_values_out_of_range_are_refused_in_a_line(config, change, message):
    with pytest.raises(ConfigError, match=message) as caught:
        override(config, [change])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("num_quantizers=4", r"num_quantizers is 4, but the codes have 3 codebooks; set it to 3"),
        ("hidden_dropout=0.2", r"soft_targets.share is set, but data.codec is empty; name one"),
        ("soft_targets.entropy=3", r"soft_targets.entropy is 3; expected .* below 2\.77 nats"),
    ],
)
def test_runs_that_cannot_be_are_refused_in_a_line(config, change, message, request):
    if "entropy" in change:
        request.getfixturevalue("vectors")
    with pytest.raises(ConfigError, match=message) as caught:
        trainer_for(override(config, [change]), report=lambda _: None)
    assert "\n" not in str(caught.value)


def test_the_general_recipe_is_that_of_the_installed_model():
    config = recipe("tts_general")
    assert (config.soft_targets.share, config.soft_targets.entropy) == (0.5, 1.5)
    assert (config.half_weight_at, config.dropout.skew, config.hidden_dropout) == (4.0, 1.3, 0.1)
    assert (config.scored_share, config.num_quantizers, config.recognition_weight) == (0.9, 8, 2.0)
    assert recipe("tts").num_quantizers == 0
    assert CodeLoss(recipe("tts").half_weight_at).weight(31) == 1
