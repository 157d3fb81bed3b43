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

from moss_audio_tokenizer.training.checkpointing import (
    OPTIMIZER_NAME,
    Fill,
    load_optimizer,
    optimizer_tensors,
    read_tensors,
    write_tensors,
)
from moss_audio_tokenizer.training.distributed import set_state
from moss_audio_tokenizer.training.logging import TensorBoardLog
from moss_audio_tokenizer.training.loop import Loop
from moss_audio_tokenizer.training.optim import make_optimizer
from moss_audio_tokenizer.training.run_config import OptimizerConfig, RunConfig, ValidationSchedule

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


class ToyTask(nn.Module):
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


@dataclass(frozen=True)
class ToyLosses:
    scalars: dict[str, float]

    def show(self, board: TensorBoardLog, step: int) -> None:
        """Nothing beside the curves."""


class ToyTrainer(Loop[ToyConfig, ToyRows]):
    def make_task(self) -> ToyTask:
        return ToyTask(self.config.width)

    def build(self) -> None:
        self.task = self.make_task().to(self.processes.device)
        self.distributed = self.processes.distribute(self.task, [])
        self.optimizer = make_optimizer(self.task.model, self.config.optimizer)

    def restore(self, checkpoint: Path) -> None:
        set_state(self.task.model, read_tensors(checkpoint, "model.safetensors"))
        load_optimizer(checkpoint, OPTIMIZER_NAME, self.task.model, self.optimizer)

    def checkpoint_files(self) -> Fill:
        moments = optimizer_tensors(self.task.model, self.optimizer)

        def fill(folder: Path) -> None:
            self.task.model.save_pretrained(folder)
            write_tensors(folder / OPTIMIZER_NAME, moments)

        return fill

    def final_files(self) -> Fill:
        return self.task.model.save_pretrained

    def passes(self, batch: ToyRows) -> list[ToyRows]:
        return [batch.part(part, self.config.accumulate) for part in range(self.config.accumulate)]

    def num_targets(self, rows: ToyRows) -> int:
        return self.task.num_tokens(rows)

    def autocast(self) -> torch.autocast:
        bf16 = self.config.precision == "bf16"
        return torch.autocast(self.processes.device.type, torch.bfloat16, enabled=bf16)

    def losses(self, rows: ToyRows, num_targets: float) -> dict[str, Tensor]:
        with self.autocast():
            return self.distributed(rows, num_targets)

    def trained_module(self) -> nn.Module:
        return self.task.model

    def audio_seconds(self, batch: ToyRows) -> float:
        return batch.audio_seconds

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

    def validate(self) -> ToyLosses | None:
        if not self.config.validation.clips:
            return None
        sums = torch.zeros(3)
        with torch.no_grad():
            for rows in self.held_out:
                losses = self.task(rows, 1.0)
                sums += torch.stack([losses["total"], losses["error"], rows.counts.sum()])
        total, error, count = self.processes.sum(sums).tolist()
        return ToyLosses({"total": total / count, "error": error / count, "score": total / count})


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
        "optimizer": OptimizerConfig(0.2, warmup_steps=2, schedule="cosine", decay_fraction=1.0),
        "validation": ValidationSchedule(every=10, clips=2),
    }
    return ToyConfig(**(values | changes))


class InterruptionError(Exception):
    """Stands for whatever ends a process in the middle."""


def run_until(trainer: Loop, step: int) -> None:
    """Run and break off, without a word, before step ``step`` + 1."""
    optimize = trainer.optimize

    def interrupted(batch):
        if trainer.step == step:
            raise InterruptionError
        return optimize(batch)

    trainer.optimize = interrupted
    with contextlib.suppress(InterruptionError):
        trainer.run()
    assert trainer.step == step


def read_log(folder: Path, name: str = "metrics.jsonl") -> list[dict]:
    """The lines of a log, without what a clock says."""
    speeds = ("audio_seconds_per_second", "utilization")
    lines = [json.loads(line) for line in (folder / name).read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in speeds} for line in lines]


if __name__ == "__main__":
    # Without a GPU the processes must find each other by themselves.
    device = "cpu" if torch.cuda.is_available() else "auto"
    ToyTrainer(toy_config(sys.argv[1], accumulate=2, max_steps=3, device=device)).run()
