"""Training a codec: its parts, its data, and a step of it with losses, adversary and warm start.

Owns what `loop.py` leaves to a kind of run. What a step computes is the task's, what a batch is
the data's, how the parts are built `assembly.py`'s.
"""

import math
from collections.abc import Callable, Generator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor

from ...config.costs import clip_costs
from ...errors import TrainingError
from ..checkpointing import Fill
from ..data import Batch, Clip, TrainingData, find_clips, load_clips
from ..initialization.fitting import Fitting
from ..loop import Loop, Proof
from ..optim import learning_rate_at
from ..optimisation import begin_step, clip_gradients, mean_tokens, means, require_finite
from .adversary import Adversary, Audio
from .assembly import PARTS, assemble, codec_config, part_of
from .codec_config import TrainingConfig
from .codec_state import checkpoint_files, final_files, load_run
from .micro_batches import RowPlan, StepRows
from .validation import ValidationResult, measure, summarise
from .verify_frozen import FrozenProof

# Forward and backward pass together are three forward passes' work.
_PASSES = 3
Passes = list[tuple[StepRows, Audio]]


class Trainer(Loop[TrainingConfig, Batch]):
    """A run that trains a codec; arguments, attributes and errors are `Loop`'s.

    Attributes:
        task: codec and language model.
        training: all that trains.
        data: where batches come from.
        validation_clips: what is measured; there may be none.
    """

    def __init__(
        self, config: TrainingConfig, resume: bool = False, report: Callable[[str], None] = print
    ) -> None:
        # A recipe that does not fit its model leaves no folder behind.
        self._codec_config = codec_config(config)
        super().__init__(config, resume, report)

    def build(self) -> None:
        """Codec, language model and discriminators."""
        self.training, self._called = assemble(self.config, self._codec_config, self.processes)
        self.task = self.training.task

    def restore(self, checkpoint: Path) -> None:
        """Weights, moments and the running mean."""
        load_run(checkpoint, self.training)

    def open_data(self) -> None:
        """Clips to train and to validate on, and what is fitted to them."""
        config, processes = self.config, self.processes
        self._plan = RowPlan(
            config, self._codec_config, processes.device, processes.rank, processes.world
        )
        self.data = self._training_data()
        self.validation_clips = self._validation_data()
        self._fitting = Fitting(config, self.data, self.report)

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

    def begin_proof(self, begun: bool) -> Proof | None:
        """That what is frozen stays what it is."""
        frozen = [part for part in PARTS[:3] if not self.config.trains(part)]
        if not frozen or self.processes.sharded:
            return None
        codec, clips = self.task.codec, self.validation_clips
        return partial(FrozenProof(self.output, codec, frozen, clips, begun).finish, codec)

    def batches(self, step: int) -> Generator[Batch]:
        """The data's."""
        return self.data.batches(step)

    def audio_seconds(self, batch: Batch) -> float:
        """Without padding."""
        return float(batch.lengths.sum()) / self._codec_config.sampling_rate

    def operations(self) -> float:
        """Of encoder and decoder, at the length of a crop."""
        codec, seconds = self._codec_config, self.config.data.crop_seconds
        frames = round(seconds * codec.frame_rate)
        costs = [c for side in ("encode", "decode") for c in clip_costs(codec, side, frames)]
        return _PASSES * sum(cost.operations for cost in costs) / seconds

    def optimise(self, batch: Batch) -> dict[str, float]:
        """One step of codec and language model, after one of the discriminators."""
        self._fitting.before_step(self.step, self.training, self.processes)
        self._choose_trained_parts()
        settings, optimizer = self.config.optimizer, self.training.optimizer
        rate = learning_rate_at(self.step, self.config.max_steps, settings)
        begin_step(optimizer, rate)
        scalars = self._gradients(self._plan.passes(batch, self.step), batch)
        scalars["gradient_norm"] = clip_gradients(self.task.parameters(), settings.clip_norm)
        self._require_finite(scalars, batch)
        optimizer.step()
        if self.task.codebooks is not None:
            self.task.codebooks.update(self.processes, self.step)
        if self.training.mean is not None:
            self.training.mean.update()
            if self.task.codebooks is not None:
                # These are running means already, but for rows that have moved.
                self.training.mean.restart("quantizer.codebooks")
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
        return means(sums, self.processes) | judged

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
        judged = means(adversary.train_step(passes), self.processes)
        self._require_finite(judged, batch)
        return judged

    def _mean_tokens(self, passes: list[StepRows]) -> float:
        """Target tokens of a pass, on average over all passes and processes."""
        semantic = self.task.semantic
        if semantic is None:
            return 1.0
        texts = [[len(semantic.targets(t)) for t in rows.texts if t] for rows in passes]
        self._require_short(max((max(counts, default=0) for counts in texts), default=0))
        return mean_tokens([sum(counts) for counts in texts], self.processes)

    def _require_short(self, tokens: int) -> None:
        most = self.config.semantic.max_tokens
        if tokens > most:
            raise TrainingError(
                f"a text of step {self.step + 1} has {tokens} tokens; expected at most {most}: "
                "raise semantic.max_tokens, or lower data.text_seconds"
            )

    def _require_finite(self, scalars: dict[str, float], batch: Batch) -> None:
        require_finite(scalars, batch.names, self.step + 1, self.processes)

    def _choose_trained_parts(self) -> None:
        decoder_only = 0 < self.config.decoder_only_from <= self.step
        for name in PARTS:
            module = part_of(self.task, name)
            if module is not None:
                rests = decoder_only and name in ("encoder", "quantizer")
                trained = self.config.trains(name) and not rests
                module.requires_grad_(trained)
                if name == "quantizer" and self.task.codebooks is not None:
                    self.task.codebooks.lead(trained)

    def validate(self) -> ValidationResult | None:
        """Reconstruct the validation clips, shared out to the processes."""
        if not self.validation_clips:
            return None
        processes = self.processes
        quantized = self.step > self.config.warm_start.steps
        codec = self.training.shipped_codec(processes)
        mine = self.validation_clips[processes.rank :: processes.world]
        reader = None if processes.sharded else self.task.semantic
        measures = measure(codec, mine, self.config.validation, quantized, reader)
        return summarise(processes.gather(measures), self._codec_config, quantized)

    def checkpoint_files(self) -> Fill:
        """Codec, language model, discriminators, moments and the running mean."""
        return checkpoint_files(self.training, self.processes)

    def final_files(self) -> Fill:
        """The codec, and the language model and discriminators that trained it."""
        return final_files(self.training, self.processes)
