"""A run of another kind than the codec's: the same loop, one module, its own batches."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
import toy_run
from safetensors.torch import load_file
from toy_run import ToyConfig, ToyModel, ToyTrainer, read_log, run_until, toy_config

from moss_audio_tokenizer.errors import TrainingError


def train(config: ToyConfig, resume: bool = False) -> Path:
    return ToyTrainer(config, resume, lambda _: None).run()


@pytest.fixture
def config(tmp_path) -> ToyConfig:
    return toy_config(str(tmp_path / "run"))


def test_a_run_learns_and_leaves_what_runs_leave(config):
    final = train(config)
    output = Path(config.output)
    assert torch.allclose(ToyModel.from_pretrained(final).linear.weight, torch.ones(3), atol=0.1)
    log, validations = read_log(output), read_log(output, "validation.jsonl")
    assert [line["step"] for line in log] == list(range(1, 31))
    expected = {"step", "total", "error", "gradient_norm", "learning_rate"}
    assert log[0].keys() == expected
    assert log[-1]["total"] < 0.01 * log[0]["total"]
    assert [line["step"] for line in validations] == [10, 20, 30]
    assert validations[-1]["score"] == validations[-1]["total"] < validations[0]["score"]
    checkpoint = output / "checkpoints" / "step-000030"
    assert sorted(path.name for path in checkpoint.iterdir()) == [
        "config.json",
        "model.safetensors",
        "optimizer.safetensors",
        "state.json",
    ]
    assert json.loads((checkpoint / "state.json").read_text())["best_step"] == 30
    assert sorted(path.name for path in final.iterdir()) == ["config.json", "model.safetensors"]


@pytest.mark.parametrize("broken_at", [10, 17])
def test_a_resumed_run_continues_bit_for_bit(config, tmp_path, broken_at):
    final = train(config)
    parted = replace(config, output=str(tmp_path / "parted"))
    run_until(ToyTrainer(parted, report=lambda _: None), broken_at)
    resumed = train(parted, resume=True)
    for name in ("metrics.jsonl", "validation.jsonl"):
        assert read_log(tmp_path / "parted", name) == read_log(tmp_path / "run", name)
    expected = load_file(final / "model.safetensors")
    found = load_file(resumed / "model.safetensors")
    assert all(torch.equal(value, expected[name]) for name, value in found.items())


def assert_about_equal(found: list[dict], expected: list[dict]) -> None:
    assert len(found) == len(expected)
    for left, right in zip(found, expected, strict=True):
        assert left == pytest.approx(right, rel=1e-4, abs=1e-6)


def test_passes_change_nothing_though_their_targets_differ_in_number(config, tmp_path):
    train(config)
    train(replace(config, output=str(tmp_path / "passes"), accumulate=4))
    assert_about_equal(read_log(tmp_path / "passes"), read_log(tmp_path / "run"))


def test_two_processes_do_what_one_does(config, tmp_path):
    train(replace(config, max_steps=3))
    program = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    line = [*program, toy_run.__file__, str(tmp_path / "two")]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(line, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    for name in ("metrics.jsonl", "validation.jsonl"):
        assert_about_equal(read_log(tmp_path / "two", name), read_log(tmp_path / "run", name))


def test_without_held_out_data_nothing_is_validated(config):
    train(replace(config, validation=replace(config.validation, clips=0)))
    assert not (Path(config.output) / "validation.jsonl").exists()


def test_bf16_reaches_the_model_and_not_the_weights(config):
    trainer = ToyTrainer(replace(config, precision="bf16"), report=lambda _: None)
    seen = []
    linear = trainer.task.model.linear
    linear.register_forward_hook(lambda *call: seen.append(call[-1].dtype))
    trainer.train_step(trainer.rows(0))
    trainer.close()
    assert (seen, linear.weight.dtype) == ([torch.bfloat16], torch.float32)


def test_a_loss_that_is_not_finite_stops_the_run_and_names_step_and_rows(config):
    trainer = ToyTrainer(config, report=lambda _: None)
    batch = trainer.rows(0)
    batch.inputs[1] = float("inf")
    before = trainer.task.model.linear.weight.clone()
    with pytest.raises(TrainingError, match=r"step 1 is not finite .*row-0-0, row-0-1, row-0-2"):
        trainer.train_step(batch)
    trainer.close()
    assert torch.equal(trainer.task.model.linear.weight, before)


def test_the_learning_rate_follows_the_schedule(config):
    train(config)
    rates = [line["learning_rate"] for line in read_log(Path(config.output))]
    assert rates[:3] == pytest.approx([0.1, 0.2, 0.2])
    assert all(left > right for left, right in pairwise(rates[2:]))


def test_a_checkpoint_of_another_model_is_refused(config, monkeypatch):
    train(config)
    monkeypatch.setattr(ToyTrainer, "make_task", lambda self: toy_run.ToyTask(5))
    with pytest.raises(TrainingError, match=r"another model: 'linear\.weight' differs"):
        ToyTrainer(config, resume=True)


@pytest.mark.parametrize("name", ["model", "optimizer"])
def test_damaged_files_are_named(config, name):
    train(config)
    path = Path(config.output) / "checkpoints" / "step-000030" / f"{name}.safetensors"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(TrainingError, match=rf"{name}\.safetensors cannot be read .*; remove"):
        ToyTrainer(config, resume=True)
