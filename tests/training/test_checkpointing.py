import json

import pytest
import torch
from safetensors import SafetensorError

from moss_audio_tokenizer.checkpoint.codec_checkpoint import Checkpoint, load_codec, save_codec
from moss_audio_tokenizer.errors import TrainingError
from moss_audio_tokenizer.llm import ByteText, random_language_model
from moss_audio_tokenizer.semantic import SemanticHead
from moss_audio_tokenizer.training import checkpointing as run_state
from moss_audio_tokenizer.training.checkpointing import (
    newest_run,
    prune_runs,
    save_checkpoint,
    save_final,
    saved_state,
)
from moss_audio_tokenizer.training.codec.codec_config import CodecOptimizerConfig, TrainingConfig
from moss_audio_tokenizer.training.codec.codec_state import (
    Training,
    checkpoint_files,
    final_files,
    load_run,
)
from moss_audio_tokenizer.training.codec.codec_task import CodecTask
from moss_audio_tokenizer.training.distributed import Processes
from moss_audio_tokenizer.training.optim import WeightAverage, make_optimizer

ONE = Processes("cpu")


def save(output, run: Training, step: int):
    return save_checkpoint(output, {"step": step}, checkpoint_files(run, ONE), ONE)


def write_final(output, run: Training):
    return save_final(output, final_files(run, ONE), ONE)


@pytest.fixture
def make_training(make_codec):
    """A codec with all that can train beside it, before its first step."""

    def make(channels: int = 1) -> Training:
        codec = make_codec(channels).requires_grad_(requires_grad=True)
        reader = SemanticHead(random_language_model(16, 1, 2, 257), ByteText(), 12)
        task = CodecTask(codec, reader, TrainingConfig())
        optimizer = make_optimizer(task, CodecOptimizerConfig())
        return Training(task, optimizer, mean=WeightAverage(codec, 0.9))

    return make


@pytest.fixture
def trained(make_training) -> Training:
    """After a step, in which neither quantizer nor language model had a gradient."""
    run = make_training()
    codec = run.task.codec
    hidden = codec.require_encoder()(torch.ones(1, 1, 80))
    codec.require_decoder()(hidden).square().sum().backward()
    run.optimizer.step()
    run.mean.update()
    return run


def touch_run(output, step: int, without: str | None = None) -> None:
    folder = output / "checkpoints" / f"step-{step:06d}"
    folder.mkdir(parents=True)
    for name in ("model.safetensors", "config.json", "optimizer.safetensors", "state.json"):
        if name != without:
            (folder / name).write_text(json.dumps({"step": step}))


def names(output) -> list[str]:
    return sorted(path.name for path in (output / "checkpoints").iterdir())


def test_everything_comes_back_bit_for_bit(tmp_path, trained, make_training):
    folder = save(tmp_path, trained, 12)
    assert (folder.name, saved_state(folder)["step"]) == ("step-000012", 12)
    assert newest_run(tmp_path) == folder
    other = make_training()
    load_run(folder, other)
    pairs = zip(trained.task.parameters(), other.task.parameters(), strict=True)
    for before, after in pairs:
        assert torch.equal(before, after)
        assert (
            trained.optimizer.state.get(before, {}).keys()
            == other.optimizer.state.get(after, {}).keys()
        )
        for key, value in trained.optimizer.state.get(before, {}).items():
            assert torch.equal(value, other.optimizer.state[after][key])
    means = other.mean.whole_state()
    assert all(torch.equal(value, means[n]) for n, value in trained.mean.whole_state().items())


def test_a_mean_is_what_ships_and_what_does_not_train_on(tmp_path, trained):
    weights = {name: p.clone() for name, p in trained.task.codec.named_parameters()}
    mean = trained.mean.whole_state()
    for folder, expected in (
        (save(tmp_path, trained, 1), weights),
        (write_final(tmp_path, trained), mean),
    ):
        with Checkpoint(folder) as checkpoint:
            saved = dict(load_codec(checkpoint).named_parameters())
        assert all(torch.equal(value, saved[name]) for name, value in expected.items())
    assert any(not torch.equal(weights[name], value) for name, value in mean.items())


def test_a_run_that_has_made_no_step_comes_back(tmp_path, make_training):
    folder = save(tmp_path, make_training(), 0)
    run = make_training()
    load_run(folder, run)
    assert saved_state(folder) == {"step": 0}
    assert not run.optimizer.state


def test_a_checkpoint_can_be_written_again(tmp_path, trained):
    first = save(tmp_path, trained, 3)
    assert save(tmp_path, trained, 3) == first
    assert names(tmp_path) == ["step-000003"]


def test_checkpoints_of_other_models_are_refused(tmp_path, trained, make_training):
    folder = save(tmp_path, trained, 1)
    with pytest.raises(TrainingError, match="another model than the recipe names"):
        load_run(folder, make_training(2))


def test_optimizers_of_other_tasks_are_refused(tmp_path, trained, make_training):
    folder = save(tmp_path, trained, 1)
    less = make_training()
    less.task.semantic = None
    load_run(folder, less)
    for parameter in trained.task.semantic.parameters():
        parameter.grad = torch.zeros_like(parameter)
    trained.optimizer.step()
    with pytest.raises(TrainingError, match="another model, one with 'semantic"):
        load_run(save(tmp_path, trained, 2), less)


@pytest.mark.parametrize("name", ["optimizer", "semantic", "mean"])
def test_damaged_files_are_refused(tmp_path, trained, make_training, name):
    folder = save(tmp_path, trained, 1)
    path = folder / f"{name}.safetensors"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(TrainingError, match=rf"{name}.* cannot be read"):
        load_run(folder, make_training())


@pytest.mark.parametrize("text", ["", "{", "[]", '{"step": "x"}', "{}"])
def test_a_damaged_state_is_named(tmp_path, trained, text):
    folder = save(tmp_path, trained, 1)
    (folder / "state.json").write_text(text)
    with pytest.raises(TrainingError, match=r"state\.json cannot be read .*; remove .*step-000001"):
        saved_state(folder)


def test_a_damaged_configuration_is_named(tmp_path, trained, make_training):
    folder = save(tmp_path, trained, 1)
    (folder / "config.json").write_text("{}")
    with pytest.raises(TrainingError, match=r"config\.json cannot be read .*; remove"):
        load_run(folder, make_training())


def test_dying_while_saving_leaves_the_checkpoint_before(tmp_path, trained, monkeypatch):
    first = save(tmp_path, trained, 1)

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(run_state, "write_json", die)
    for step in (1, 2):
        with pytest.raises(KeyboardInterrupt):
            save(tmp_path, trained, step)
    assert names(tmp_path) == ["step-000001"]
    assert newest_run(tmp_path) == first
    with Checkpoint(first) as checkpoint:
        load_codec(checkpoint)


@pytest.mark.parametrize("kind", [OSError, SafetensorError])
def test_a_full_disk_is_a_training_error(tmp_path, trained, monkeypatch, kind):
    def fail(*_: object) -> None:
        raise kind("No space left on device")

    monkeypatch.setattr(run_state, "save_file", fail)
    with pytest.raises(TrainingError, match="No space left on device"):
        save(tmp_path, trained, 1)
    with pytest.raises(TrainingError, match="No space left on device"):
        write_final(tmp_path, trained)
    assert not (tmp_path / "final").exists()


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
    prune_runs(tmp_path, best=1)
    assert names(tmp_path) == ["step-000001", "step-1000000", "step-999999"]


def test_a_saved_model_is_one_that_loads(tmp_path, trained):
    save_codec(trained.task.codec, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["model_type"] == "moss-audio-tokenizer"
    with Checkpoint(tmp_path) as checkpoint:
        assert load_codec(checkpoint).config == trained.task.codec.config


@pytest.mark.parametrize("text", ['{"step": Infinity}', "[" * 100_000, '{"step": null}'])
def test_a_state_that_is_absurd_is_named_in_one_line(tmp_path, text):
    (tmp_path / "state.json").write_text(text)
    with pytest.raises(TrainingError, match=r"state\.json cannot be read .*; remove") as caught:
        run_state.saved_state(tmp_path)
    assert "\n" not in str(caught.value)
