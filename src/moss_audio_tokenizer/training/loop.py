"""The training loop: steps, validation, checkpoints, resume.

Owns the order of things. What a step computes is the task's, what a batch is the data's, how the
parts are built `assembly.py`'s, whose the folder is `run_folder.py`'s.
"""

import math
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor

from ..config.costs import clip_costs
from ..errors import TrainingError
from ..model.machine import computing_rate
from .adversary import Adversary, Audio
from .assembly import PARTS, assemble, codec_config, part_of
from .config import TrainingConfig
from .data import Batch, Clip, TrainingData, find_clips, load_clips
from .fitting import Fitting
from .frozen import FrozenProof
from .processes import Processes
from .progress import ProgressLog, Throughput
from .run_folder import RunFolder
from .run_state import load_run, prune_runs, save_run, saved_state, write_final
from .schedule import learning_rate_at
from .step_rows import RowPlan, StepRows
from .termination import on_sigterm
from .validation import ValidationResult, measure, summarise

__all__ = ["Trainer", "learning_rate_at"]

# Forward and backward pass together are three forward passes' work.
_PASSES = 3
Passes = list[tuple[StepRows, Audio]]


class Trainer:
    """One run in one folder, which it holds until `run` ends.

    Args:
        config: the resolved recipe.
        resume: go on from the newest whole checkpoint in ``config.output``.
        report: called with a line of progress now and then, in the first process.

    Attributes:
        step: optimiser steps made so far.
        stopping: set to stop after the step at hand.

    Raises:
        ConfigError: the recipe asks for what its model or this machine cannot do.
        TrainingError: the folder holds another run, or the data cannot be used.
    """

    def __init__(
        self, config: TrainingConfig, resume: bool = False, report: Callable[[str], None] = print
    ) -> None:
        self.config = config
        self.stopping = False
        self.processes = Processes(config.device, config.shard)
        self.report = report if self.processes.first else _silent
        self._codec_config = codec_config(config)
        self.output = Path(config.output)
        # Held by the first process alone, as is the proof: the others only hear of errors.
        self._folder: RunFolder | None = None
        self._proof: FrozenProof | None = None
        self.processes.at_first(self._take_folder)
        try:
            self._prepare(resume)
        except BaseException:
            self.close()
            raise

    def _prepare(self, resume: bool) -> None:
        """Everything that can refuse to start, and only then a change of the folder."""
        config, processes = self.config, self.processes
        checkpoint = processes.at_first(lambda: self._checkpoint_for(resume))
        if config.threads:
            torch.set_num_threads(config.threads)
        self.training, self._called = assemble(config, self._codec_config, processes)
        self.task = self.training.task
        self._state: dict[str, float] = {"step": 0}
        if checkpoint:
            self.report(f"resuming from {checkpoint.name}")
            load_run(checkpoint, self.training)
            self._state = saved_state(checkpoint)
        self.step = int(self._state["step"])
        self._saved = self.step if checkpoint else -1
        self._plan = RowPlan(
            config, self._codec_config, processes.device, processes.rank, processes.world
        )
        self.data = self._training_data()
        self.validation_clips = self._validation_data()
        self._fitting = Fitting(config, self.data, self.report)
        processes.at_first(self._begin_folder)
        processes.at_first(lambda: self._begin_proof(begun=checkpoint is not None))

    def _take_folder(self) -> None:
        self._folder = RunFolder(self.config.output)

    def _checkpoint_for(self, resume: bool) -> Path | None:
        return self._folder.checkpoint_for(self.config, resume) if self._folder else None

    def _begin_folder(self) -> None:
        if self._folder is not None:
            self._folder.begin(self.config, self.step)

    def _training_data(self) -> TrainingData:
        codec, processes = self._codec_config, self.processes
        multiple = math.lcm(self.config.data.row_multiple, self.config.accumulate)
        data = TrainingData(
            replace(self.config.data, row_multiple=multiple),
            codec.sampling_rate,
            codec.number_channels,
            codec.downsample_rate,
            self.config.seed,
            processes.rank,
            processes.world,
            self.report,
        )
        count = len(data.unreadable)
        self.report(f"{data.num_clips - count} training clips, {count} unreadable")
        for domain, clips in data.left_out.items():
            self.report(f"left out: {clips} clips of {domain!r}, no share in data.domain_weights")
        return data

    def _validation_data(self) -> list[Clip]:
        """Readable clips of the split "valid", spread evenly over it."""
        codec, count = self._codec_config, self.config.validation.clips
        entries = find_clips(self.config.data, "valid", self.report) if count else []
        if not entries:
            self.report("no validation: no clips of split 'valid' are given or wanted")
            return []
        entries = sorted(entries, key=lambda entry: entry.name or str(entry.path))
        chosen = np.linspace(0, len(entries) - 1, min(count, len(entries))).round().astype(int)
        clips, unreadable = load_clips(
            [entries[index] for index in chosen], codec.sampling_rate, codec.number_channels
        )
        for line in unreadable:
            self.report(f"skipped: {line}")
        self.report(f"{len(clips)} validation clips, {len(unreadable)} unreadable")
        return clips

    def _begin_proof(self, begun: bool) -> None:
        frozen = [part for part in PARTS[:3] if not self.config.trains(part)]
        if frozen and not self.processes.sharded:
            codec, clips = self.task.codec, self.validation_clips
            self._proof = FrozenProof(self.output, codec, frozen, clips, begun)

    def _finish_proof(self) -> None:
        if self._proof is not None:
            self.report(self._proof.finish(self.task.codec))

    def close(self) -> None:
        """Let go of the folder; `run` does so at its end."""
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
            with ExitStack() as stack:
                stack.enter_context(on_sigterm(self._stop))
                log = self._open_log(stack)
                checkpoint = self._run_steps(log)
                return self._finish(checkpoint)
        finally:
            self.close()

    def _open_log(self, stack: ExitStack) -> ProgressLog | None:
        """The logs, which the first process alone writes."""
        if not self.processes.first:
            return None
        log = ProgressLog(self.output, self.step, self.report, self.config.wandb)
        return stack.enter_context(log)

    def _stop(self) -> None:
        self.stopping = True

    def _run_steps(self, log: ProgressLog | None) -> Path:
        settings = self.config
        throughput = self._throughput()
        with closing(self.data.batches(self.step)) as batches:
            while self.step < settings.max_steps and not self.processes.any(self.stopping):
                batch = next(batches)
                scalars = self.train_step(batch)
                scalars |= throughput.step(self._seconds(batch))
                if log:
                    log.step(self.step, scalars, show=self.step % settings.log_every == 0)
                last = self.step == settings.max_steps
                if self.validation_clips and (last or self.step % settings.validation.every == 0):
                    self._validate(log)
                if self.step % settings.checkpoint_every == 0:
                    self._save()
        return self._save()

    def _throughput(self) -> Throughput:
        codec, processes = self._codec_config, self.processes
        seconds = self.config.data.crop_seconds
        frames = round(seconds * codec.frame_rate)
        costs = [c for side in ("encode", "decode") for c in clip_costs(codec, side, frames)]
        operations = _PASSES * sum(cost.operations for cost in costs) / seconds
        kind = torch.bfloat16 if self.config.precision == "bf16" else torch.float32
        peak = self.config.peak_tflops * 1e12 or computing_rate(processes.device, kind)
        return Throughput(operations, peak * processes.world)

    def _seconds(self, batch: Batch) -> float:
        """Audio of all processes in one step."""
        mine = torch.tensor(float(batch.lengths.sum()), device=self.processes.device)
        return float(self.processes.sum(mine)) / self._codec_config.sampling_rate

    def train_step(self, batch: Batch | None = None) -> dict[str, float]:
        """One optimiser step: the named losses, the learning rate and the gradient's norm.

        Args:
            batch: of this step; by default the data's.

        Raises:
            TrainingError: the loss or its gradient is not finite; no weight of the codec changed.
        """
        batch = self.data.batch(self.step) if batch is None else batch
        self._fitting.before_step(self.step, self.training, self.processes)
        self._choose_trained_parts()
        rate = learning_rate_at(self.step, self.config.max_steps, self.config.optimizer)
        optimizer = self.training.optimizer
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.zero_grad(set_to_none=True)
        scalars = self._gradients(self._plan.passes(batch, self.step), batch)
        trained = [p for p in self.task.parameters() if p.grad is not None]
        norm = torch.nn.utils.clip_grad_norm_(trained, self.config.optimizer.clip_norm)
        scalars["gradient_norm"] = float(_whole_scalar(norm))
        self._require_finite(scalars, batch)
        optimizer.step()
        if self.training.mean is not None:
            self.training.mean.update()
        self.step += 1
        return scalars | {"learning_rate": rate}

    def _gradients(self, passes: list[StepRows], batch: Batch) -> dict[str, float]:
        """Add up the gradients of all passes; the losses are means over passes and processes."""
        judged = self._judge_beforehand(passes, batch)
        tokens = self._mean_tokens(passes)
        sums: dict[str, Tensor] = {}
        for number, rows in enumerate(passes):
            last = number + 1 == len(passes)
            with self.processes.waiting(self._called, last):
                estimate, losses = self._called(rows, tokens)
                if self._judging:
                    if len(passes) == 1:
                        judged = self._judge([(rows, estimate)], batch)
                    adversary = cast(Adversary, self.training.adversary)
                    losses |= adversary.losses(rows, estimate)
                losses["total"] = self.task.total(losses)
                (losses["total"] * rows.share).backward()
            for name, value in losses.items():
                sums[name] = sums.get(name, 0) + value.detach() * rows.share
        return self._means(sums) | judged

    @property
    def _judging(self) -> bool:
        adversary = self.training.adversary
        return adversary is not None and adversary.active(self.step)

    def _judge_beforehand(self, passes: list[StepRows], batch: Batch) -> dict[str, float]:
        """Of several passes: estimates without gradients, for the discriminators' step.

        They must have made theirs before the codec is told anything, and keeping the graphs of
        all passes until then would undo what passes are for.
        """
        if len(passes) == 1 or not self._judging:
            return {}
        with torch.no_grad():
            estimates: Passes = [(rows, self._called(rows)[0]) for rows in passes]
        return self._judge(estimates, batch)

    def _judge(self, passes: Passes, batch: Batch) -> dict[str, float]:
        adversary = cast(Adversary, self.training.adversary)
        judged = self._means(adversary.train_step(passes))
        self._require_finite(judged, batch)
        return judged

    def _mean_tokens(self, passes: list[StepRows]) -> float:
        """Target tokens of a pass, on average over all passes and processes."""
        semantic = self.task.semantic
        if semantic is None:
            return 1.0
        counts = [len(semantic.targets(text)) for rows in passes for text in rows.texts if text]
        self._require_short(max(counts, default=0))
        mean = torch.tensor(sum(counts) / len(passes), device=self.processes.device)
        return max(1.0 / len(passes), float(self.processes.mean(mean)))

    def _require_short(self, tokens: int) -> None:
        most = self.config.semantic.max_tokens
        if tokens > most:
            raise TrainingError(
                f"a text of step {self.step + 1} has {tokens} tokens; expected at most {most}: "
                "raise semantic.max_tokens, or lower data.text_seconds"
            )

    def _means(self, values: dict[str, Tensor]) -> dict[str, float]:
        """Means over the processes, as numbers."""
        names = sorted(values)
        means = self.processes.mean(torch.stack([values[name].detach().float() for name in names]))
        return dict(zip(names, means.tolist(), strict=True))

    def _require_finite(self, scalars: dict[str, float], batch: Batch) -> None:
        if all(math.isfinite(value) for value in scalars.values()):
            return
        shown = ", ".join(f"{name} {value:g}" for name, value in scalars.items())
        files = ", ".join(name for names in self.processes.gather(batch.names) for name in names)
        raise TrainingError(
            f"step {self.step + 1} is not finite ({shown}) on rows of {files}; lower "
            "optimizer.learning_rate, or look at these files, and go on with --resume"
        )

    def _choose_trained_parts(self) -> None:
        decoder_only = 0 < self.config.decoder_only_from <= self.step
        for name in PARTS:
            module = part_of(self.task, name)
            if module is not None:
                rests = decoder_only and name in ("encoder", "quantizer")
                module.requires_grad_(self.config.trains(name) and not rests)

    def _validate(self, log: ProgressLog | None) -> None:
        result = self._measure()
        if log:
            log.validation(self.step, result, self._codec_config.sampling_rate)
        best = self._state.get("best_score")
        if self.config.keep_best and (best is None or result.scalars["score"] < best):
            self._state |= {"best_score": result.scalars["score"], "best_step": self.step}
            self._save()

    def _measure(self) -> ValidationResult:
        processes = self.processes
        quantized = self.step > self.config.warm_start.steps
        codec = self.training.shipped_codec(processes)
        mine = self.validation_clips[processes.rank :: processes.world]
        reader = None if processes.sharded else self.task.semantic
        measures = measure(codec, mine, self.config.validation, quantized, reader)
        size = self._codec_config.quantizer.codebook_size
        return summarise(processes.gather(measures), size, quantized)

    def _save(self) -> Path:
        """The checkpoint of this step, written unless it is there already."""
        target = self.output / "checkpoints" / f"step-{self.step:06d}"
        if self._saved != self.step:
            state = self._state | {"step": self.step}
            target = save_run(self.output, self.training, state, self.processes)
            self._saved = self.step
            keep, best = self.config.keep_checkpoints, self._state.get("best_step")
            kept_best = None if best is None else int(best)
            self.processes.at_first(lambda: prune_runs(self.output, keep, kept_best))
        return target

    def _finish(self, checkpoint: Path) -> Path:
        if self.step < self.config.max_steps:
            self.report("stopped; go on with --resume")
            return checkpoint
        self.processes.at_first(self._finish_proof)
        return write_final(self.output, self.training, self.processes)


def _silent(_: str) -> None:
    """What processes other than the first report."""


def _whole_scalar(norm: Tensor) -> Tensor:
    """The norm of sharded gradients lies in shares as well."""
    whole: Tensor = norm.full_tensor() if hasattr(norm, "full_tensor") else norm
    return whole
