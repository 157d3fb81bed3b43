"""Training one model on batches of tokens, as language models are: the step, and what is saved.

Owns passes, gradients and the checkpoint of a single module, copied to all processes (DDP). What a
batch is, what the losses are and what is measured are those of the kinds of run that build on it.
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

from ...checkpoint.codec_checkpoint import WEIGHTS_NAME
from ...errors import ConfigError, MossAudioError
from ..board import Board
from ..checkpointing import (
    OPTIMIZER_NAME,
    Fill,
    load_optimizer,
    optimizer_tensors,
    unreadable,
    write_tensors,
)
from ..distributed import set_state, whole_state
from ..loop import Config, Loop
from ..optim import learning_rate_at, make_optimizer
from ..optimisation import begin_step, clip_gradients, mean_tokens, means, require_finite


class PartedBatch(Protocol):
    """A process's batch of a step; all chance in it follows from seed and step."""

    @property
    def names(self) -> Sequence[str]:
        """Of its rows, for messages."""

    @property
    def audio_seconds(self) -> float:
        """Audio in all rows, without padding."""

    def part(self: "Rows", index: int, count: int) -> "Rows":
        """The rows of part ``index`` of ``count`` equal ones."""


Rows = TypeVar("Rows", bound=PartedBatch)


class ModuleTask(nn.Module, ABC, Generic[Rows]):
    """A model with its losses: one module with one forward pass, so that it can be distributed.

    Attributes:
        model: a module that holds everything that trains, as parameters; its
            ``save_pretrained(folder)`` writes config.json and model*.safetensors, which its class's
            ``from_pretrained(folder)`` reads.
    """

    # nn.Module knows nothing of `save_pretrained`.
    model: Any

    @abstractmethod
    def num_tokens(self, rows: Rows) -> int:
        """How many targets the losses of ``rows`` are sums over."""

    @abstractmethod
    def forward(self, rows: Rows, num_tokens: float) -> dict[str, Tensor]:
        """Scalars by name, each a sum over targets divided by ``num_tokens``; "total" trains.

        Args:
            rows: of one pass, wherever the data left them.
            num_tokens: targets of a pass, on average over passes and processes: so the mean over
                these is the mean over all targets, however they are shared out.
        """


@dataclass(frozen=True)
class HeldOutLosses:
    """A validation of losses alone.

    Attributes:
        scalars: means over all targets; "score" is the total.
    """

    scalars: dict[str, float]

    def show(self, board: Board, step: int) -> None:
        """There is nothing beside the curves."""


class ModuleTrainer(Loop[Config, Rows]):
    """A run that trains a `ModuleTask`; arguments and errors are `Loop`'s.

    Attributes:
        task: what trains.
        optimizer: of its model.
    """

    def __init__(
        self, config: Config, resume: bool = False, report: Callable[[str], None] = print
    ) -> None:
        if config.shard:
            raise ConfigError(
                f"shard is set, but a run of kind {config.kind!r} copies its weights to all "
                "processes; set shard=False"
            )
        super().__init__(config, resume, report)

    @abstractmethod
    def make_task(self) -> ModuleTask[Rows]:
        """The task before its first step, on any device; the same in all processes."""

    def build(self) -> None:
        """Task and optimiser."""
        self.task = self.make_task().to(self.processes.device)
        self.task.train()
        self._called = self.processes.distribute(self.task, [])
        self.optimizer = make_optimizer(self.task.model, self.config.optimizer)

    def restore(self, checkpoint: Path) -> None:
        """Weights and moments."""
        set_state(self.task.model, whole_state(self._load(checkpoint)))
        load_optimizer(checkpoint, OPTIMIZER_NAME, self.task.model, self.optimizer)

    def _load(self, checkpoint: Path) -> nn.Module:
        try:
            model: nn.Module = type(self.task.model).from_pretrained(checkpoint)
        except (MossAudioError, SafetensorError, OSError, ValueError, RuntimeError) as error:
            raise unreadable(checkpoint / WEIGHTS_NAME, error) from error
        return model

    def checkpoint_files(self) -> Fill:
        """The model in its own format, and the moments."""
        model = self.task.model
        moments = optimizer_tensors(model, self.optimizer)

        def fill(folder: Path) -> None:
            model.save_pretrained(folder)
            write_tensors(folder / OPTIMIZER_NAME, moments)

        return fill

    def final_files(self) -> Fill:
        """The model in its own format."""
        fill: Fill = self.task.model.save_pretrained
        return fill

    def audio_seconds(self, batch: Rows) -> float:
        """The batch's."""
        return batch.audio_seconds

    def autocast(self) -> AbstractContextManager[Any]:
        """The precision of the recipe; losses are to leave it."""
        bf16 = self.config.precision == "bf16"
        return torch.autocast(self.processes.device.type, torch.bfloat16, enabled=bf16)

    def optimise(self, batch: Rows) -> dict[str, float]:
        """One step, in as many passes as the recipe asks for."""
        settings = self.config.optimizer
        rate = learning_rate_at(self.step, self.config.max_steps, settings)
        begin_step(self.optimizer, rate)
        scalars = self._gradients(self.passes(batch))
        scalars["gradient_norm"] = clip_gradients(self.task.model.parameters(), settings.clip_norm)
        require_finite(scalars, batch.names, self.step + 1, self.processes)
        self.optimizer.step()
        return scalars | {"learning_rate": rate}

    def passes(self, batch: Rows) -> list[Rows]:
        """The parts of a step's batch; where a kind of run may draw what is random in a step."""
        count = self.config.accumulate
        return [batch.part(index, count) for index in range(count)]

    def _gradients(self, passes: Sequence[Rows]) -> dict[str, float]:
        """Add up the gradients of all passes; the losses are means over passes and processes."""
        counts = [self.task.num_tokens(rows) for rows in passes]
        tokens = mean_tokens(counts, self.processes)
        sums: dict[str, Tensor] = {}
        for number, rows in enumerate(passes, start=1):
            with self.processes.waiting(self._called, number == len(passes)):
                with self.autocast():
                    losses = self._called(rows, tokens)
                (losses["total"] / len(passes)).backward()
            for name, value in losses.items():
                sums[name] = sums.get(name, 0) + value.detach() / len(passes)
        return means(sums, self.processes)

    @torch.no_grad()
    def held_out_losses(self, batches: Iterable[Rows]) -> HeldOutLosses:
        """The losses on held-out rows, every target counting the same.

        Args:
            batches: this process's; some process has one.
        """
        self.task.eval()
        sums: dict[str, float] = {}
        tokens = 0
        for rows in batches:
            tokens += self.task.num_tokens(rows)
            with self.autocast():
                losses = self.task(rows, 1.0)
            for name, value in losses.items():
                sums[name] = sums.get(name, 0.0) + float(value)
        self.task.train()
        return _averaged(self.processes.gather((sums, tokens)))


def _averaged(parts: Sequence[tuple[dict[str, float], int]]) -> HeldOutLosses:
    total = max(1, sum(tokens for _, tokens in parts))
    names = sorted({name for sums, _ in parts for name in sums})
    scalars = {name: sum(sums.get(name, 0.0) for sums, _ in parts) / total for name in names}
    return HeldOutLosses(scalars | {"score": scalars["total"]})
