import json

import pytest
import torch

from moss_audio_tokenizer.errors import TrainingError
from moss_audio_tokenizer.model.checkpoint import Checkpoint, load_codec, save_codec
from moss_audio_tokenizer.training import run_state
from moss_audio_tokenizer.training.config import OptimizerConfig
from moss_audio_tokenizer.training.run_state import (
    load_optimizer,
    newest_run,
    prune_runs,
    save_run,
    saved_step,
)
from moss_audio_tokenizer.training.schedule import make_optimizer


@pytest.fixture
def trained(make_codec):
    """A codec and its optimiser after a step, in which the quantizer had no gradient."""
    codec = make_codec().requires_grad_(requires_grad=True)
    optimizer = make_optimizer(codec, OptimizerConfig())
    hidden = codec.require_encoder()(torch.ones(1, 1, 80))
    codec.require_decoder()(hidden).square().sum().backward()
    optimizer.step()
    return codec, optimizer


def touch_run(output, step: int, without: str | None = None) -> None:
    folder = output / "checkpoints" / f"step-{step:06d}"
    folder.mkdir(parents=True)
    for name in ("model.safetensors", "config.json", "optimizer.safetensors", "state.json"):
        if name != without:
            (folder / name).write_text(json.dumps({"step": step}))


def names(output) -> list[str]:
    return sorted(path.name for path in (output / "checkpoints").iterdir())


def test_model_and_optimizer_come_back_bit_for_bit(tmp_path, trained):
    codec, optimizer = trained
    folder = save_run(tmp_path, codec, optimizer, 12)
    assert (folder.name, saved_step(folder), newest_run(tmp_path)) == ("step-000012", 12, folder)
    with Checkpoint(folder) as checkpoint:
        restored = load_codec(checkpoint)
    other = make_optimizer(restored, OptimizerConfig())
    load_optimizer(folder, restored, other)
    assert saved_step(folder) == 12
    for before, after in zip(codec.parameters(), restored.parameters(), strict=True):
        assert torch.equal(before, after)
        assert optimizer.state.get(before, {}).keys() == other.state.get(after, {}).keys()
        for key, value in optimizer.state.get(before, {}).items():
            assert torch.equal(value, other.state[after][key])


def test_an_optimizer_that_has_made_no_step_comes_back(tmp_path, make_codec):
    codec = make_codec()
    optimizer = make_optimizer(codec, OptimizerConfig())
    folder = save_run(tmp_path, codec, optimizer, 0)
    load_optimizer(folder, codec, optimizer)
    assert saved_step(folder) == 0
    assert not optimizer.state


def test_a_checkpoint_can_be_written_again(tmp_path, trained):
    first = save_run(tmp_path, *trained, 3)
    assert save_run(tmp_path, *trained, 3) == first
    assert names(tmp_path) == ["step-000003"]


def test_optimizers_of_other_models_are_refused(tmp_path, trained, make_codec):
    folder = save_run(tmp_path, *trained, 1)
    stereo = make_codec(2)
    with pytest.raises(TrainingError, match=r"another model: .* differs in shape"):
        load_optimizer(folder, stereo, make_optimizer(stereo, OptimizerConfig()))
    half = make_codec()
    half.decoder = None
    with pytest.raises(TrainingError, match="another model, one with 'decoder"):
        load_optimizer(folder, half, make_optimizer(half, OptimizerConfig()))


def test_a_damaged_optimizer_is_refused(tmp_path, trained):
    codec, optimizer = trained
    folder = save_run(tmp_path, codec, optimizer, 1)
    path = folder / "optimizer.safetensors"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(TrainingError, match="cannot be read"):
        load_optimizer(folder, codec, optimizer)


def test_dying_while_saving_leaves_the_checkpoint_before(tmp_path, trained, monkeypatch):
    first = save_run(tmp_path, *trained, 1)

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(run_state, "write_json", die)
    for step in (1, 2):
        with pytest.raises(KeyboardInterrupt):
            save_run(tmp_path, *trained, step)
    assert names(tmp_path) == ["step-000001"]
    assert newest_run(tmp_path) == first
    with Checkpoint(first) as checkpoint:
        load_codec(checkpoint)


def test_a_full_disk_is_a_training_error(tmp_path, trained, monkeypatch):
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(run_state, "save_file", fail)
    with pytest.raises(TrainingError, match="No space left on device"):
        save_run(tmp_path, *trained, 1)


def test_nothing_saved_is_no_run(tmp_path):
    assert newest_run(tmp_path) is None
    prune_runs(tmp_path, 1)


@pytest.mark.parametrize(
    "missing", ["model.safetensors", "config.json", "optimizer.safetensors", "state.json"]
)
def test_a_half_written_checkpoint_is_not_chosen(tmp_path, missing):
    touch_run(tmp_path, 3)
    touch_run(tmp_path, 6, without=missing)
    assert newest_run(tmp_path).name == "step-000003"


def test_steps_are_compared_as_numbers(tmp_path):
    touch_run(tmp_path, 999_999)
    touch_run(tmp_path, 1_000_000)
    (tmp_path / "checkpoints" / "step-best").mkdir()
    assert newest_run(tmp_path).name == "step-1000000"


def test_pruning_keeps_the_newest_whole_checkpoints(tmp_path):
    for step in (1, 2, 999_999, 1_000_000):
        touch_run(tmp_path, step)
    touch_run(tmp_path, 1_000_001, without="state.json")
    (tmp_path / "checkpoints" / ".moss-0123.partial").mkdir()
    prune_runs(tmp_path, 2)
    assert names(tmp_path) == ["step-1000000", "step-999999"]


def test_a_saved_model_is_one_that_loads(tmp_path, trained):
    save_codec(trained[0], tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["model_type"] == "moss-audio-tokenizer"
    with Checkpoint(tmp_path) as checkpoint:
        assert load_codec(checkpoint).config == trained[0].config
