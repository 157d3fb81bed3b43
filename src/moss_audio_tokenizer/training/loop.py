"""The training loop: steps, validation, checkpoints, resume.

Owns the order of things. What a step computes is the task's, what a batch is the data's, whose
the folder is `run_folder.py`'s.
"""

import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..config import CodecConfig, preset
from ..errors import ConfigError, TrainingError
from ..files import atomic_path
from ..manifest import ManifestEntry, has_split, read_manifest
from ..model.checkpoint import Checkpoint, load_codec, save_codec
from ..model.codec import Codec
from ..model.hub import find_checkpoint
from .adversary import Adversary
from .config import TrainingConfig
from .data import Clip, TrainingData, load_clips
from .discriminators import save_discriminators
from .frozen import FrozenProof
from .progress import ProgressLog
from .quantizer_start import start_from_data
from .reconstruction import ReconstructionTask
from .run_folder import RunFolder
from .run_state import (
    DISCRIMINATORS_NAME,
    load_adversary,
    load_optimizer,
    prune_runs,
    save_run,
    saved_step,
)
from .schedule import learning_rate_at, make_optimizer
from .termination import on_sigterm
from .validation import validate

__all__ = ["Trainer", "learning_rate_at"]

# Batches that fit the quantizer come from here on, far behind any step of training.
_CALIBRATION_STEP = 1 << 40


class Trainer:
    """One run of the reconstruction stage in one folder, which it holds until `run` ends.

    Args:
        config: the resolved recipe.
        resume: go on from the newest whole checkpoint in ``config.output``.
        report: called with a line of progress now and then.

    Attributes:
        step: optimiser steps made so far.
        stopping: set to stop after the step at hand.

    Raises:
        ConfigError: the recipe asks for what its model cannot do.
        TrainingError: the folder holds another run, or the data cannot be used.
    """

    def __init__(
        self, config: TrainingConfig, resume: bool = False, report: Callable[[str], None] = print
    ) -> None:
        self.config = config
        self.report = report
        self.stopping = False
        self._codec_config = _codec_config(config)
        _check_fit(config, self._codec_config)
        self._folder = RunFolder(config.output)
        self.output = self._folder.path
        try:
            self._prepare(self._folder.checkpoint_for(config, resume))
        except BaseException:
            self.close()
            raise

    def _prepare(self, checkpoint: Path | None) -> None:
        """Everything that can refuse to start, and only then a change of the folder."""
        if self.config.threads:
            torch.set_num_threads(self.config.threads)
        self.codec = Codec(self._codec_config)
        self.optimizer = make_optimizer(self.codec, self.config.optimizer)
        self.task = ReconstructionTask(self.codec, self.config)
        self.adversary = self._make_adversary()
        self.step = self._restore(checkpoint) if checkpoint else self._initialise()
        self._saved = checkpoint
        self.codec.train()
        self.data = self._training_data()
        self.validation_clips = self._validation_data()
        self._folder.begin(self.config, self.step)
        self._proof = self._begin_proof(begun=checkpoint is not None)

    def _begin_proof(self, begun: bool) -> FrozenProof | None:
        if self.config.train.parts == "all":
            return None
        return FrozenProof(self.output, self.codec, self.validation_clips, begun)

    def close(self) -> None:
        """Let go of the folder; `run` does so at its end."""
        self._folder.close()

    def _make_adversary(self) -> Adversary | None:
        if not self.config.adversarial.start:
            return None
        return Adversary(self.config, self._codec_config.sampling_rate, self.task.autocast)

    def _initialise(self) -> int:
        if self.config.train.checkpoint:
            with Checkpoint(find_checkpoint(self.config.train.checkpoint, {})) as opened:
                self.codec.load_state_dict(load_codec(opened).state_dict())
        else:
            self.codec.initialise(torch.Generator().manual_seed(self.config.seed))
        return 0

    def _restore(self, checkpoint: Path) -> int:
        with Checkpoint(checkpoint) as opened:
            saved = load_codec(opened)
        if saved.config != self._codec_config:
            raise TrainingError(
                f"{checkpoint} holds another model than the recipe names; start a run in another "
                "output=DIR"
            )
        # Copied, not taken over: memory mapped from a file may round otherwise, and goes away.
        self.codec.load_state_dict(saved.state_dict())
        self.report(f"resuming from {checkpoint.name}")
        load_optimizer(checkpoint, self.codec, self.optimizer)
        if self.adversary is not None:
            load_adversary(checkpoint, self.adversary)
        return saved_step(checkpoint)

    def _training_data(self) -> TrainingData:
        codec, seed = self._codec_config, self.config.seed
        data = TrainingData(
            self.config.data,
            codec.sampling_rate,
            codec.number_channels,
            codec.downsample_rate,
            seed,
            report=self.report,
        )
        count = len(data.unreadable)
        self.report(f"{data.num_clips - count} training clips, {count} unreadable")
        for domain, clips in data.left_out.items():
            self.report(f"left out: {clips} clips of {domain!r}, no share in data.domain_weights")
        return data

    def _validation_data(self) -> list[Clip]:
        manifest, count = self.config.data.manifest, self.config.validation.clips
        if not count or not has_split(manifest, "valid"):
            self.report("no validation: no clips of split 'valid' are given or wanted")
            return []
        entries = sorted(self._entries("valid"), key=lambda entry: str(entry.path))
        clips, unreadable = self._load(_spread(entries, count))
        self.report(f"{len(clips)} validation clips, {unreadable} unreadable")
        return clips

    def _entries(self, split: str) -> list[ManifestEntry]:
        """The clips of a split, of the speakers that are wanted."""
        data = self.config.data
        entries = read_manifest(data.manifest, split)
        kept = [entry for entry in entries if not data.speakers or entry.speaker in data.speakers]
        if not kept:
            raise TrainingError(
                f"{data.manifest} has no clips of split {split!r} by {', '.join(data.speakers)}; "
                "set data.speakers to names that it has"
            )
        return kept

    def _load(self, entries: list[Any]) -> tuple[list[Clip], int]:
        """Readable clips, and the number of others, each of which is named."""
        config = self._codec_config
        clips, unreadable = load_clips(entries, config.sampling_rate, config.number_channels)
        for line in unreadable:
            self.report(f"skipped: {line}")
        return clips, len(unreadable)

    def run(self) -> Path:
        """Train to the end, or to SIGTERM.

        Returns:
            The folder of the trained model, or of the last checkpoint when stopped early.

        Raises:
            TrainingError: a loss is not finite, or a checkpoint cannot be written.
        """
        data = self.config.data
        try:
            with (
                on_sigterm(self._stop),
                ProgressLog(
                    self.output, self.step, data.batch_size * data.crop_seconds, self.report
                ) as log,
            ):
                checkpoint = self._run_steps(log)
                return self._finish(checkpoint)
        finally:
            self.close()

    def _stop(self) -> None:
        self.stopping = True

    def _run_steps(self, log: ProgressLog) -> Path:
        settings = self.config
        while self.step < settings.max_steps and not self.stopping:
            scalars = self.train_step()
            log.step(self.step, scalars, show=self.step % settings.log_every == 0)
            last = self.step == settings.max_steps
            if self.validation_clips and (last or self.step % settings.validation.every == 0):
                self._validate(log)
            if self.step % settings.checkpoint_every == 0:
                self._save()
        return self._save()

    def train_step(self) -> dict[str, float]:
        """One optimiser step: the named losses, the learning rate and the gradient's norm.

        Raises:
            TrainingError: the loss or its gradient is not finite; nothing has been changed.
        """
        if self._fit_due():
            self._fit_quantizer()
        self._choose_trained_parts()
        rate = learning_rate_at(self.step, self.config.max_steps, self.config.optimizer)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        audio = torch.from_numpy(self.data.batch(self.step).audio)
        losses, judged = self._losses(audio)
        self._require_finite(_scalars(judged))
        self.optimizer.zero_grad(set_to_none=True)
        losses["total"].backward()
        norm = torch.nn.utils.clip_grad_norm_(
            self.codec.parameters(), self.config.optimizer.clip_norm
        )
        scalars = _scalars(losses | judged)
        self._require_finite(scalars | {"gradient_norm": float(norm)})
        self.optimizer.step()
        self.step += 1
        return scalars | {"learning_rate": rate, "gradient_norm": float(norm)}

    def _losses(self, audio: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The codec's losses with their total, and what the discriminators' own step gave."""
        estimate, losses = self.task.reconstruct(audio, self.step)
        judged: dict[str, Tensor] = {}
        if self.adversary is not None and self.adversary.active(self.step):
            judged = self.adversary.train_step(audio, estimate, self.step)
            losses |= self.adversary.losses(audio, estimate, self.step)
        return losses | {"total": self.task.total(losses)}, judged

    def _require_finite(self, scalars: dict[str, float]) -> None:
        if all(math.isfinite(value) for value in scalars.values()):
            return
        shown = ", ".join(f"{name} {value:g}" for name, value in scalars.items())
        files = ", ".join(self.data.batch(self.step).names)
        raise TrainingError(
            f"step {self.step + 1} is not finite ({shown}) on crops of {files}; lower "
            "optimizer.learning_rate, or look at these files, and go on with --resume"
        )

    def _fit_due(self) -> bool:
        """Whether the quantizer is fitted to the encoder's output before this step."""
        start, decoder_only = self.config.warm_start, self.config.decoder_only_from
        past = self.step - start.steps
        if not start.samples or past < 0 or 0 < decoder_only < self.step:
            return False
        again = start.refit_every > 0 and past % start.refit_every == 0
        return past == 0 or again or self.step == decoder_only

    def _fit_quantizer(self) -> None:
        hidden = self._calibration_frames(self.config.warm_start.samples)
        random = torch.Generator().manual_seed(self.config.seed)
        left = start_from_data(self.codec.quantizer, hidden, random)
        # The optimiser's moments belong to the weights that were there before.
        for parameter in self.codec.quantizer.parameters():
            self.optimizer.state.pop(parameter, None)
        shown = ", ".join(f"{2**n}: {left[2**n - 1]:.3f}" for n in range(len(left).bit_length()))
        self.report(f"quantizer fitted to {len(hidden)} frames; energy left after layer {shown}")

    def _choose_trained_parts(self) -> None:
        everything = not 0 < self.config.decoder_only_from <= self.step
        everything = everything and self.config.train.parts == "all"
        self.codec.require_encoder().requires_grad_(everything)
        self.codec.quantizer.requires_grad_(everything)

    @torch.no_grad()
    def _calibration_frames(self, wanted: int) -> Tensor:
        """At least ``wanted`` frames of the encoder's output, in float32."""
        self.codec.eval()
        encoder = self.codec.require_encoder()
        frames: list[Tensor] = []
        for step in itertools.count(_CALIBRATION_STEP):
            frames.append(encoder(torch.from_numpy(self.data.batch(step).audio)).flatten(0, 1))
            if sum(map(len, frames)) >= wanted:
                break
        self.codec.train()
        return torch.cat(frames)

    def _validate(self, log: ProgressLog) -> None:
        settings = self.config.validation
        result = validate(
            self.codec,
            self.validation_clips,
            settings.num_quantizers,
            settings.max_seconds,
            quantize=self.step > self.config.warm_start.steps,
        )
        log.validation(self.step, result, self._codec_config.sampling_rate)

    def _save(self) -> Path:
        """The checkpoint of this step, written unless it is there already."""
        if self._saved is None or saved_step(self._saved) != self.step:
            self._saved = save_run(
                self.output, self.codec, self.optimizer, self.step, self.adversary
            )
            prune_runs(self.output, self.config.keep_checkpoints)
        return self._saved

    def _finish(self, checkpoint: Path) -> Path:
        if self.step < self.config.max_steps:
            self.report("stopped; go on with --resume")
            return checkpoint
        if self._proof is not None:
            report = self._proof.finish(self.codec)
            self.report(f"encoder, quantizer and codes are identical: {report['identical']}")
        final = self.output / "final"
        with atomic_path(final, error=TrainingError, replace_folder=True) as folder:
            folder.mkdir()
            save_codec(self.codec, folder)
            if self.adversary is not None:
                save_discriminators(self.adversary.discriminators, folder / DISCRIMINATORS_NAME)
        return final


def _scalars(losses: dict[str, Tensor]) -> dict[str, float]:
    return {name: float(value.detach()) for name, value in losses.items()}


def _codec_config(config: TrainingConfig) -> CodecConfig:
    if not config.train.checkpoint:
        return preset(config.model)
    with Checkpoint(find_checkpoint(config.train.checkpoint, {})) as opened:
        return opened.codec_config()


def _check_fit(config: TrainingConfig, codec: CodecConfig) -> None:
    """Hold against the model what the recipe alone cannot tell."""
    samples = config.data.crop_seconds * codec.sampling_rate
    frames = max(1, round(samples / codec.downsample_rate))
    whole = frames * codec.downsample_rate
    if abs(samples - whole) > 1e-6 * whole:
        raise ConfigError(
            f"data.crop_seconds is {config.data.crop_seconds:g}, which is "
            f"{samples / codec.downsample_rate:g} frames; expected a whole number of frames of "
            f"{codec.downsample_rate / codec.sampling_rate:g} s, such as "
            f"{whole / codec.sampling_rate:g}"
        )
    rows = codec.quantizer.codebook_size
    if 0 < config.warm_start.samples < rows:
        raise ConfigError(
            f"warm_start.samples is {config.warm_start.samples}; expected 0, or at least one "
            f"frame for each of the codebook's {rows} rows"
        )


def _spread(items: list[Any], count: int) -> list[Any]:
    """``count`` items evenly over a list."""
    if len(items) <= count:
        return items
    return [items[index] for index in np.linspace(0, len(items) - 1, count).round().astype(int)]
