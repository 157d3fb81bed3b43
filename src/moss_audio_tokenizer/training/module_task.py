"""A model that is trained as one module: its losses, its checkpoint, its losses on held-out data.

Owns what every run of a single module shares beside `loop.py`; what a batch is and what the losses
are belongs to the kinds of run that build on it.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from ..checkpoint.stored_weights import WEIGHTS_NAME
from ..errors import MossAudioError
from .checkpointing import (
    OPTIMIZER_NAME,
    Fill,
    load_optimizer,
    optimizer_tensors,
    unreadable,
    write_tensors,
)
from .distributed import Processes, set_state, whole_state
from .logging import TensorBoardLog
from .optim import Optimizing


class PartedBatch(Protocol):
    """A process's batch of a step; everything random in it follows from seed and step."""

    @property
    def names(self) -> Sequence[str]:
        """Names of its rows, for error messages."""

    @property
    def audio_seconds(self) -> float:
        """Seconds of audio in all rows, without padding."""

    def part(self: "Rows", index: int, count: int) -> "Rows":
        """The rows of part ``index`` of ``count`` equal ones."""


Rows = TypeVar("Rows", bound=PartedBatch)


class ModuleTask(nn.Module, ABC, Generic[Rows]):
    """A model with its losses: one module with one forward pass, so that it can be distributed.

    Attributes:
        model: a module that holds all trained parameters; its ``save_pretrained(folder)`` writes
            config.json and model*.safetensors, which its class's ``from_pretrained(folder)`` reads.
    """

    # nn.Module knows nothing of `save_pretrained`.
    model: Any

    @abstractmethod
    def num_tokens(self, rows: Rows) -> int:
        """How many targets the losses of ``rows`` are sums over."""

    @abstractmethod
    def forward(self, rows: Rows, num_tokens: float) -> dict[str, Tensor]:
        """Scalars by name, each a sum over targets divided by ``num_tokens``; "total" is trained.

        Args:
            rows: the rows of one pass, on any device.
            num_tokens: the number of targets of a pass, averaged over passes and processes: the
                mean over passes and processes is then the mean over all targets, however they are
                distributed.
        """


def load_module(checkpoint: Path, kind: Any) -> Any:
    """The model that a checkpoint holds in its own format.

    Args:
        checkpoint: the folder of the checkpoint.
        kind: the class of the model, which has ``from_pretrained``.

    Raises:
        TrainingError: the checkpoint cannot be read.
    """
    try:
        return kind.from_pretrained(checkpoint)
    except (MossAudioError, SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise unreadable(checkpoint / WEIGHTS_NAME, error) from error


def restore_module(
    checkpoint: Path, saved: nn.Module, model: nn.Module, optimizer: Optimizing
) -> None:
    """Set weights and optimizer state to those of a checkpoint.

    Args:
        checkpoint: the folder that holds the optimizer state.
        saved: the model that `load_module` read from there.
        model: the model in training, which takes its weights.
        optimizer: the optimizer of ``model``.
    """
    set_state(model, whole_state(saved))
    load_optimizer(checkpoint, OPTIMIZER_NAME, model, optimizer)


def module_files(model: Any, optimizer: Optimizing) -> Fill:
    """What writes the model in its own format, and the optimizer state, into a folder."""
    moments = optimizer_tensors(model, optimizer)

    def fill(folder: Path) -> None:
        model.save_pretrained(folder)
        write_tensors(folder / OPTIMIZER_NAME, moments)

    return fill


@dataclass(frozen=True)
class HeldOutLosses:
    """A validation that measures losses alone.

    Attributes:
        scalars: means over all targets; "score" is the total.
    """

    scalars: dict[str, float]

    def show(self, board: TensorBoardLog, step: int) -> None:
        """Adds nothing to the curves."""


@torch.no_grad()
def held_out_losses(
    task: ModuleTask[Rows],
    batches: Iterable[Rows],
    processes: Processes,
    autocast: Callable[[], AbstractContextManager[Any]],
) -> HeldOutLosses:
    """The losses on held-out rows, each target with the same weight.

    Args:
        task: the task in training.
        batches: the batches of this process; at least one process must have one.
        processes: the processes of the run; all of them must call this.
        autocast: makes the context of the precision that the run computes in.
    """
    task.eval()
    sums: dict[str, float] = {}
    tokens = 0
    for rows in batches:
        tokens += task.num_tokens(rows)
        with autocast():
            losses = task(rows, 1.0)
        for name, value in losses.items():
            sums[name] = sums.get(name, 0.0) + float(value)
    task.train()
    return _averaged(processes.gather((sums, tokens)))


def _averaged(parts: Sequence[tuple[dict[str, float], int]]) -> HeldOutLosses:
    total = max(1, sum(tokens for _, tokens in parts))
    names = sorted({name for sums, _ in parts for name in sums})
    scalars = {name: sum(sums.get(name, 0.0) for sums, _ in parts) / total for name in names}
    return HeldOutLosses(scalars | {"score": scalars["total"]})
