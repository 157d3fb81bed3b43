"""The order of things in a training run: folder, steps, logs, checkpoints, resume, stop.

Knows nothing of what is trained: a kind of run is a subclass of `Loop` that says how to build it,
what a step is, how good it is and how it is saved. Whose the folder is, is `run_folder.py`'s.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar, cast

import torch
from torch import Tensor, nn

from ..runtime.hardware import computing_rate
from .checkpointing import (
    Fill,
    checkpoint_folder,
    prune_runs,
    save_checkpoint,
    save_final,
    saved_state,
)
from .distributed import Processes, on_sigterm
from .logging import ProgressLog, Throughput, Validation
from .optim import (
    Optimizing,
    begin_step,
    clip_gradients,
    learning_rate_at,
    mean_tokens,
    means,
    require_finite,
)
from .run_config import RunConfig
from .run_folder import RunFolder


class NamedRows(Protocol):
    """A batch whose rows have names, for error messages."""

    @property
    def names(self) -> Sequence[str]:
        """One name for each row."""


Config = TypeVar("Config", bound=RunConfig)
BatchType = TypeVar("BatchType", bound=NamedRows)
Result = TypeVar("Result")
# Called at the end of a run; returns a line that says what has been verified.
Proof = Callable[[], str]


class Loop(ABC, Generic[Config, BatchType]):
    """One run in one folder, which it locks until `run` ends.

    The hooks are called in this order: `build`, `restore` on resume, `open_data`,
    `begin_proof`; then, for every batch of `batches`, `train_step` with the hooks of `optimize`
    (`before_step`, `passes`, `before_passes`, `num_targets`, `losses`, `after_step`), and
    `audio_seconds`, `validate` and `checkpoint_files` as they come; at last `final_files`. All
    processes call all of them, except `begin_proof`, which the first one alone calls.

    Args:
        config: the resolved recipe.
        resume: whether to resume from the newest complete checkpoint in ``config.output``.
        report: a function that is called with lines of progress, in the first process.

    Attributes:
        step: the number of optimizer steps made so far.
        stopping: whether to stop after the current step.
        optimizer: set by `build`: the optimizer of `trained_module`.
        distributed: set by `build`: the module that a pass calls, wrapped for several processes.

    Raises:
        ConfigError: the recipe asks for what its model or this machine cannot do.
        TrainingError: the folder holds another run, or the data cannot be used.
    """

    optimizer: Optimizing
    distributed: nn.Module

    def __init__(
        self, config: Config, resume: bool = False, report: Callable[[str], None] = print
    ) -> None:
        self.config = config
        self.step = 0
        self.stopping = False
        self.processes = Processes(config.device, config.shard)
        self.report = report if self.processes.first else _silent
        self.output = Path(config.output)
        # Held by the first process alone, as is the proof: the others only hear of errors.
        self._folder: RunFolder | None = None
        self._proof: Proof | None = None
        self.processes.at_first(lambda: setattr(self, "_folder", RunFolder(config.output)))
        try:
            self._prepare(resume)
        except BaseException:
            self.close()
            raise

    @abstractmethod
    def build(self) -> None:
        """Make everything that trains, as it is before the first step."""

    @abstractmethod
    def restore(self, checkpoint: Path) -> None:
        """Restore everything that trains from the folder of a checkpoint."""

    @abstractmethod
    def open_data(self) -> None:
        """Find what to train and to validate on; the last chance to refuse the start."""

    def begin_proof(self, begun: bool) -> Proof | None:  # noqa: ARG002
        """Record what the end of the run is compared with; None where nothing is to be verified.

        Args:
            begun: whether the run is resumed from a checkpoint.
        """
        return None

    @abstractmethod
    def batches(self, step: int) -> Generator[BatchType]:
        """The batches of this process from a step on; closed at the end."""

    @abstractmethod
    def passes(self, batch: BatchType) -> list[Any]:
        """What a step computes one after another: ``accumulate`` parts of this process's batch."""

    @abstractmethod
    def num_targets(self, rows: Any) -> float:
        """How many targets (tokens) the losses of one pass are sums over; 0 if they are means."""

    @abstractmethod
    def losses(self, rows: Any, num_targets: float) -> dict[str, Tensor]:
        """The losses of one pass, "total" among them, with gradients.

        Args:
            rows: one of `passes`.
            num_targets: the mean of `num_targets` over all passes and processes, to divide by.
        """

    @abstractmethod
    def trained_module(self) -> nn.Module:
        """The module whose gradients are clipped together."""

    def before_step(self) -> None:
        """Prepare weights for the step that comes next; nothing by default."""

    def before_passes(self, passes: list[Any], batch: BatchType) -> None:
        """Work that needs all passes of a step before the first gradient; nothing by default."""

    def step_scalars(self) -> dict[str, float]:
        """Scalars to log beside the losses, once all passes of a step have been computed."""
        return {}

    def after_step(self) -> None:
        """Update what follows the weights, after the optimizer; nothing by default."""

    @abstractmethod
    def audio_seconds(self, batch: BatchType) -> float:
        """Seconds of audio in this process's batch."""

    @abstractmethod
    def operations(self) -> float:
        """Floating-point operations of a training step for each second of audio."""

    @abstractmethod
    def validate(self) -> Validation | None:
        """Measure held-out data; None where none are given or wanted."""

    def starts_trained(self) -> bool:
        """Whether the model is a trained one already, which is then validated before step 1."""
        return False

    def next_step(self, folder: Path) -> str:  # noqa: ARG002
        """A line that says what to do with the trained model in ``folder``; empty for none."""
        return ""

    @abstractmethod
    def checkpoint_files(self) -> Fill:
        """Gather everything that trains, for `restore`.

        Returns:
            What writes it into a folder, with config.json, model*.safetensors and
            optimizer.safetensors; called in the first process alone.
        """

    @abstractmethod
    def final_files(self) -> Fill:
        """Gather what is to be used after training, in the way of `checkpoint_files`."""

    def _prepare(self, resume: bool) -> None:
        """Everything that can refuse to start, and only then a change of the folder."""
        config = self.config
        checkpoint = self._at_folder(lambda folder: folder.checkpoint_for(config, resume))
        if config.threads:
            torch.set_num_threads(config.threads)
        self.build()
        self._state: dict[str, Any] = {"step": 0}
        if checkpoint:
            self.report(f"resuming from {checkpoint.name}")
            self.restore(checkpoint)
            self._state = saved_state(checkpoint)
        self.step = int(self._state["step"])
        self._saved = self.step if checkpoint else -1
        self.open_data()
        self._at_folder(lambda folder: folder.begin(config, self.step))
        begun = checkpoint is not None
        self.processes.at_first(lambda: setattr(self, "_proof", self.begin_proof(begun)))

    def _at_folder(self, work: Callable[[RunFolder], Result]) -> Result:
        """Work on the folder in the first process, whose result or error all of them get."""
        return self.processes.at_first(lambda: work(cast(RunFolder, self._folder)))

    def close(self) -> None:
        """Unlock the folder; `run` does so at its end."""
        if self._folder is not None:
            self._folder.close()

    def run(self) -> Path:
        """Train to the end, or to SIGTERM.

        Returns:
            The folder of the trained model, or of the last checkpoint when stopped early.

        Raises:
            TrainingError: a loss is not finite, or a checkpoint cannot be written.
        """
        try:
            with on_sigterm(self._stop), self._open_log() as log:
                folder = self._finish(self._run_steps(log))
            self.processes.leave()
            return folder
        finally:
            self.close()

    def _open_log(self) -> AbstractContextManager[ProgressLog | None]:
        """The logs, which the first process alone writes."""
        if not self.processes.first:
            return nullcontext()
        config = self.config
        return ProgressLog(self.output, self.step, self.report, config.wandb, config.max_steps)

    def _stop(self) -> None:
        self.stopping = True

    def _run_steps(self, log: ProgressLog | None) -> Path:
        settings = self.config
        if self.step == 0 and self.starts_trained():
            self._validate(log)
        throughput = self._throughput()
        with closing(self.batches(self.step)) as batches:
            while self.step < settings.max_steps and not self.processes.any(self.stopping):
                batch = next(batches)
                scalars = self.train_step(batch)
                mine = torch.tensor(self.audio_seconds(batch), device=self.processes.device)
                scalars |= throughput.step(float(self.processes.sum(mine)))
                if log:
                    log.step(self.step, scalars)
                last = self.step == settings.max_steps
                if last or self.step % settings.validation.every == 0:
                    self._validate(log)
                if self.step % settings.checkpoint_every == 0:
                    self._save()
        return self._save()

    def train_step(self, batch: BatchType) -> dict[str, float]:
        """One step on this process's batch: what `optimize` returns."""
        scalars = self.optimize(batch)
        self.step += 1
        return scalars

    def optimize(self, batch: BatchType) -> dict[str, float]:
        """One optimizer step.

        Returns:
            The named losses, "total" among them, the norm of the gradient and the learning rate.

        Raises:
            TrainingError: the loss or its gradient is not finite.
        """
        self.before_step()
        rate = learning_rate_at(self.step, self.config.max_steps, self.config.optimizer)
        begin_step(self.optimizer, rate)
        scalars = self._accumulate_gradients(batch)
        scalars["gradient_norm"] = clip_gradients(self.trained_module().parameters())
        self.require_finite(scalars, batch)
        self.optimizer.step()
        self.after_step()
        return scalars | {"learning_rate": rate}

    def _accumulate_gradients(self, batch: BatchType) -> dict[str, float]:
        """Add up the gradients of all passes; the losses are means over passes and processes."""
        passes = self.passes(batch)
        self.before_passes(passes, batch)
        counts = [self.num_targets(rows) for rows in passes]
        num_targets = mean_tokens(counts, self.processes)
        share, sums = 1 / len(passes), dict[str, Tensor]()
        for number, rows in enumerate(passes, start=1):
            with self.processes.waiting(self.distributed, number == len(passes)):
                losses = self.losses(rows, num_targets)
                (losses["total"] * share).backward()
            for name, value in losses.items():
                sums[name] = sums.get(name, 0) + value.detach() * share
        return means(sums, self.processes) | self.step_scalars()

    def require_finite(self, scalars: dict[str, float], batch: BatchType) -> None:
        """Stop the run where a scalar of this step is not finite; all processes must call it."""
        require_finite(scalars, batch.names, self.step + 1, self.processes)

    def _throughput(self) -> Throughput:
        kind = torch.bfloat16 if self.config.precision == "bf16" else torch.float32
        peak = self.config.peak_tflops * 1e12 or computing_rate(self.processes.device, kind)
        return Throughput(self.operations(), peak * self.processes.world)

    def _validate(self, log: ProgressLog | None) -> None:
        result = self.validate()
        if result is None:
            return
        if log:
            log.validation(self.step, result)
        score, best = result.scalars["score"], self._state.get("best_score")
        if self.step and self.config.keep_best and (best is None or score < best):
            self._state |= {"best_score": score, "best_step": self.step}
            self._save()

    def _save(self) -> Path:
        """The checkpoint of this step, written unless it is there already."""
        target = checkpoint_folder(self.output, self.step)
        if self._saved != self.step:
            state = self._state | {"step": self.step}
            save_checkpoint(self.output, state, self.checkpoint_files(), self.processes)
            self._saved = self.step
            best = self._state.get("best_step")
            self.processes.at_first(lambda: prune_runs(self.output, best))
        return target

    def _finish(self, checkpoint: Path) -> Path:
        if self.step < self.config.max_steps:
            self.report("stopped; continue with --resume")
            return checkpoint
        if line := self.processes.at_first(lambda: self._proof() if self._proof else ""):
            self.report(line)
        final = save_final(self.output, self.final_files(), self.processes)
        if line := self.next_step(final):
            self.report(line)
        return final


def _silent(_: str) -> None:
    """The report of all processes but the first: nothing."""
