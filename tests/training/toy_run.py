"""A kind of run for tests: a linear model on batches of made-up rows, some with more targets."""

import contextlib
import json
import sys
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from moss_audio_tokenizer.training.loop import Loop
from moss_audio_tokenizer.training.run_config import OptimizerConfig, RunConfig, ValidationSchedule
from moss_audio_tokenizer.training.speech.module_trainer import (
    HeldOutLosses,
    ModuleTask,
    ModuleTrainer,
)

ROWS = 4


@dataclass(frozen=True)
class ToyConfig(RunConfig):
    width: int = 3

    kind = "toy"


@dataclass(frozen=True)
class ToyRows:
    inputs: Tensor
    counts: Tensor
    names: tuple[str, ...]

    @property
    def audio_seconds(self) -> float:
        return float(self.counts.sum())

    def part(self, index: int, count: int) -> "ToyRows":
        own = slice(index * len(self.names) // count, (index + 1) * len(self.names) // count)
        return ToyRows(self.inputs[own], self.counts[own], self.names[own])


class ToyModel(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, 1)
        for parameter in self.parameters():
            nn.init.zeros_(parameter)

    def save_pretrained(self, folder: Path) -> None:
        (folder / "config.json").write_text(json.dumps({"width": self.linear.in_features}))
        save_file(self.state_dict(), folder / "model.safetensors")

    @classmethod
    def from_pretrained(cls, folder: Path) -> "ToyModel":
        model = cls(json.loads((folder / "config.json").read_text())["width"])
        model.load_state_dict(load_file(folder / "model.safetensors"))
        return model


class ToyTask(ModuleTask[ToyRows]):
    """Sums of inputs; a row counts as many targets as ``counts`` says."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.model = ToyModel(width)

    def num_tokens(self, rows: ToyRows) -> int:
        return int(rows.counts.sum())

    def forward(self, rows: ToyRows, num_tokens: float) -> dict[str, Tensor]:
        wrong = self.model.linear(rows.inputs)[:, 0].float() - rows.inputs.sum(1)
        squared = (wrong.square() * rows.counts).sum() / num_tokens
        return {"total": squared, "error": (wrong.abs() * rows.counts).sum() / num_tokens}


class ToyTrainer(ModuleTrainer[ToyConfig, ToyRows]):
    def make_task(self) -> ToyTask:
        return ToyTask(self.config.width)

    def open_data(self) -> None:
        self.held_out = [self.rows(1_000_000 + index) for index in range(2)]

    def rows(self, step: int) -> ToyRows:
        """This process's share of the rows of a step."""
        random = torch.Generator().manual_seed(step)
        inputs = torch.randn(ROWS, self.config.width, generator=random)
        counts = torch.randint(1, 9, (ROWS,), generator=random)
        rows = ToyRows(inputs, counts, tuple(f"row-{step}-{row}" for row in range(ROWS)))
        return rows.part(self.processes.rank, self.processes.world)

    def batches(self, step: int) -> Generator[ToyRows]:
        while True:
            yield self.rows(step)
            step += 1

    def operations(self) -> float:
        return 1.0

    def validate(self) -> HeldOutLosses | None:
        return self.held_out_losses(self.held_out) if self.config.validation.clips else None


def toy_config(output: str, **changes) -> ToyConfig:
    """Thirty steps on a CPU, with three checkpoints and three validations."""
    values = {
        "output": output,
        "max_steps": 30,
        "device": "cpu",
        "precision": "fp32",
        "threads": 1,
        "peak_tflops": 1.0,
        "checkpoint_every": 10,
        "log_every": 10,
        "optimizer": OptimizerConfig(0.2, warmup_steps=2, schedule="cosine", decay_fraction=1.0),
        "validation": ValidationSchedule(every=10, clips=2),
    }
    return ToyConfig(**(values | changes))


class InterruptionError(Exception):
    """Stands for whatever ends a process in the middle."""


def run_until(trainer: Loop, step: int) -> None:
    """Run and break off, without a word, before step ``step`` + 1."""
    optimise = trainer.optimise

    def interrupted(batch):
        if trainer.step == step:
            raise InterruptionError
        return optimise(batch)

    trainer.optimise = interrupted
    with contextlib.suppress(InterruptionError):
        trainer.run()
    assert trainer.step == step


def read_log(folder: Path, name: str = "metrics.jsonl") -> list[dict]:
    """The lines of a log, without what a clock says."""
    speeds = ("audio_seconds_per_second", "utilisation")
    lines = [json.loads(line) for line in (folder / name).read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in speeds} for line in lines]


if __name__ == "__main__":
    # Without a GPU the processes must find each other by themselves.
    device = "cpu" if torch.cuda.is_available() else "auto"
    ToyTrainer(toy_config(sys.argv[1], accumulate=2, max_steps=3, device=device)).run()
