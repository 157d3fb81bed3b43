"""Several processes compute what one does, and a run that is killed goes on bit for bit."""

import json
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import toy_processes
from safetensors.torch import load_file
from torch import nn

from moss_audio_tokenizer.errors import ConfigError, TrainingError
from moss_audio_tokenizer.training.distributed import Processes, set_state, spread_like, whole_state
from moss_audio_tokenizer.training.optim import WeightAverage

# Every loss: a warm start, the quantizer fitted, discriminators, texts; several passes a step.
KEYS = (
    "max_steps=4",
    "checkpoint_every=2",
    "accumulate=2",
    "ema_decay=0.5",
    "losses.phase=1.0",
    "device=cpu",
    "threads=1",
    "peak_tflops=1",
    "data.text_share=0.5",
    "data.batch_seconds=2.0",
    "data.batch_size=4",
    "semantic.llm=random",
    "semantic.width=16",
    "warm_start.steps=1",
    "warm_start.samples=64",
    "adversarial.start=2",
    "adversarial.crop_seconds=0.1",
    "adversarial.discriminators.channel_divisor=32",
    "adversarial.discriminators.periods=(2,)",
    "validation.clips=0",
    "optimizer.learning_rate=1e-4",
)


def command(output: Path, manifest: str, *keys: str, resume: bool = False) -> Callable[[], None]:
    arguments = ["train", "smoke", f"output={output}", f"data.manifest={manifest}", *KEYS, *keys]
    return toy_processes.command([*arguments, *(["--resume"] if resume else [])])


def errors_of(output: Path) -> Path:
    return output.with_name(f"{output.name}.txt")


def run(output: Path, manifest: str, *keys: str, resume: bool = False) -> None:
    """In one process of its own."""
    toy_processes.run([command(output, manifest, *keys, resume=resume)], errors_of(output))


def read_log(output: Path) -> list[dict]:
    speeds = ("audio_seconds_per_second", "utilization")
    lines = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in speeds} for line in lines]


@pytest.fixture(scope="module")
def alone(tmp_path_factory, spoken) -> Path:
    output = tmp_path_factory.mktemp("alone") / "run"
    run(output, spoken)
    return output


# A decay so short that rows are moved from the second of three steps on.
EMA = ("codebook_decay=0.3", "spectra.mel_windows=3", "spectra.phase_windows=1")
IN_PAIRS = {"copies": ("shard=False",), "shards": ("shard=True",), "ema": EMA}


@pytest.fixture(scope="module")
def in_pairs(tmp_path_factory, spoken) -> Path:
    """Folder of the runs of `IN_PAIRS`, one after the other in the same two processes."""
    folder = tmp_path_factory.mktemp("pair")
    # Two processes make one pass each over what one process passes over twice.
    runs = [
        command(folder / name, spoken, *keys, "accumulate=1") for name, keys in IN_PAIRS.items()
    ]
    toy_processes.run(runs, folder / "errors.txt", count=2)
    return folder


@pytest.mark.parametrize("name", ["copies", "shards"])
def test_two_processes_do_what_one_does(alone, in_pairs, name):
    output = in_pairs / name
    expected, found = read_log(alone), read_log(output)
    assert {"semantic", "adversarial", "phase", "commitment"} <= found[-1].keys()
    assert_same_losses(found, expected)
    kept = sorted(path.name for path in (output / "checkpoints/step-000004").iterdir())
    assert kept == sorted(path.name for path in (alone / "checkpoints/step-000004").iterdir())


def test_ema_codebooks_are_alike_in_two_processes(in_pairs, spoken, tmp_path):
    run(tmp_path / "one", spoken, *EMA)
    outputs = tmp_path / "one", in_pairs / "ema"
    one, two = map(read_log, outputs)
    assert_same_losses(two, one)
    one, two = (
        load_file(output / "checkpoints/step-000004/codebooks.safetensors")["shares"]
        for output in outputs
    )
    torch.testing.assert_close(one, two)
    assert (one == 0.3).any()  # moved in the last step


def assert_same_losses(found: list[dict], expected: list[dict]) -> None:
    assert [line.keys() for line in found] == [line.keys() for line in expected]
    for left, right in zip(found, expected, strict=True):
        # The norm of gradients that are large in few weights is less exact than the losses are.
        norms = left.pop("gradient_norm"), right.pop("gradient_norm")
        assert norms[0] == pytest.approx(norms[1], rel=1e-3)
        assert left == pytest.approx(right, rel=1e-5, abs=1e-5)


def test_a_killed_run_is_resumed_bit_for_bit(alone, spoken, tmp_path):
    output = tmp_path / "run"
    (process,) = toy_processes.start([command(output, spoken)], errors_of(output))
    while process.is_alive() and not (output / "checkpoints/step-000002").is_dir():
        time.sleep(0.01)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL, errors_of(output).read_text()
    run(output, spoken, resume=True)
    assert read_log(output) == read_log(alone)


def test_one_process_needs_nobody():
    processes = Processes("cpu")
    assert (processes.rank, processes.world, processes.first) == (0, 1, True)
    assert processes.gather("mine") == ["mine"]
    assert processes.at_first(lambda: 5) == 5
    assert not processes.any(flag=False)
    assert float(processes.mean(torch.tensor(3.0))) == 3.0
    with pytest.raises(ConfigError, match="one process"):
        Processes("cpu", shard=True)


def test_a_gpu_that_is_not_there_is_named(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="sees no GPU"):
        Processes("cuda")


def test_weights_go_out_and_come_back():
    left, right = nn.Linear(3, 2), nn.Linear(3, 2)
    set_state(right, whole_state(left))
    assert torch.equal(left.weight, right.weight)
    copy = spread_like(left.weight.detach(), right.weight)
    copy.zero_()
    assert left.weight.any()
    with pytest.raises(TrainingError, match="another model: 'bias' differs"):
        set_state(right, {"weight": left.weight})


def test_a_moving_mean_follows_the_weights():
    module = nn.Linear(1, 1, bias=False)
    nn.init.constant_(module.weight, 1.0)
    mean = WeightAverage(module, 0.9)
    for value in (2.0, 3.0):
        nn.init.constant_(module.weight, value)
        mean.update()
    # 1 -> 1.1 -> 1.29
    assert float(mean.whole_state()["weight"]) == pytest.approx(1.29)
    other = WeightAverage(nn.Linear(1, 1, bias=False), 0.9)
    other.load(mean.whole_state())
    assert float(other.whole_state()["weight"]) == pytest.approx(1.29)


def test_a_mean_restarts_where_weights_were_set():
    module = nn.ModuleDict({"quantizer": nn.Linear(1, 1), "decoder": nn.Linear(1, 1)})
    mean = WeightAverage(module, 0.9)
    before = mean.whole_state()["decoder.weight"].clone()
    for parameter in module.parameters():
        nn.init.constant_(parameter, 5.0)
    mean.restart("quantizer.")
    state = mean.whole_state()
    assert float(state["quantizer.weight"]) == float(state["quantizer.bias"]) == 5.0
    assert torch.equal(state["decoder.weight"], before)
