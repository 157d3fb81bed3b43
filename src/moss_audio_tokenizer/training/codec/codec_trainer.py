"""Training a codec: its data, and its step with discriminators and warm start.

Owns what `loop.py` leaves to a kind of run, and when codebooks and the low-band pass-through are
fitted to data. `codec_task.py` computes the losses, `data/` makes the batches, `codec_state.py`
builds, saves and restores what trains.
"""

import itertools
import math
from collections.abc import Callable, Generator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from ...config.costs import clip_costs
from ...model.codec import Codec
from ...model.quantizer import ResidualQuantizer
from ..checkpointing import Fill
from ..data.audio_data import AudioData, Batch
from ..data.audio_rows import Clip, load_clips
from ..data.clip_sources import find_clips, spread_evenly
from ..distributed import Processes, set_state, whole_state
from ..loop import Loop, Proof
from ..optim import means
from .adversarial import Adversary, Audio
from .codebooks import start_from_data
from .codec_config import TRAINED_PARTS, TrainingConfig
from .codec_state import Training, assemble, checkpoint_files, codec_config, final_files, load_run
from .codec_task import MicroBatch, MicroBatchPlanner
from .low_band import start_low_band
from .validation import FrozenProof, ValidationResult, measure, summarize

# Forward and backward pass together are three forward passes' work.
_PASSES = 3
# Clips with longer texts are left out.
_MAX_TOKENS = 512
# Batches that fit come from here on, far behind any step of training.
_CALIBRATION_STEP = 1 << 40
_LOW_BAND_ROWS = 256
Passes = list[tuple[MicroBatch, Audio]]


class CodecTrainer(Loop[TrainingConfig, Batch]):
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
        self.training, self.distributed = assemble(self.config, self._codec_config, self.processes)
        self.task, self.optimizer = self.training.task, self.training.optimizer

    def restore(self, checkpoint: Path) -> None:
        """Weights, moments and the running mean."""
        load_run(checkpoint, self.training)

    def open_data(self) -> None:
        """Clips to train and to validate on, and what is fitted to them."""
        config, processes = self.config, self.processes
        self._plan = MicroBatchPlanner(
            config, self._codec_config, processes.device, processes.rank, processes.world
        )
        self.data = self._training_data()
        self.validation_clips = self._validation_data()
        self._fitting = Fitting(config, self.data, self.report)

    def _training_data(self) -> AudioData:
        codec, processes = self._codec_config, self.processes
        multiple = math.lcm(self.config.data.row_multiple, self.config.accumulate)
        data = AudioData(
            replace(self.config.data, row_multiple=multiple),
            codec.sampling_rate,
            codec.number_channels,
            codec.downsample_rate,
            self.config.seed,
            processes.rank,
            processes.world,
            self.report,
            self._fits,
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
        chosen = spread_evenly(entries, count)
        loaded = load_clips(chosen, codec.sampling_rate, codec.number_channels)
        clips = [clip for clip in loaded if isinstance(clip, Clip)]
        for line in loaded:
            if isinstance(line, str):
                self.report(f"skipped: {line}")
        self.report(f"{len(clips)} validation clips, {len(loaded) - len(clips)} unreadable")
        return clips

    def _fits(self, text: str) -> bool:
        """Whether a text is short enough for the language model."""
        semantic = self.task.semantic
        return semantic is None or len(semantic.targets(text)) <= _MAX_TOKENS

    def begin_proof(self, begun: bool) -> Proof | None:
        """Hashes of what is frozen, for the proof that it stays what it is."""
        parts = ("encoder", "quantizer", "decoder")
        frozen = [part for part in parts if not self.config.trains(part)]
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

    def before_step(self) -> None:
        """Fit to data what is due, and choose what trains in this step."""
        self._fitting.before_step(self.step, self.training, self.processes)
        decoder_only = 0 < self.config.decoder_only_from <= self.step
        for name in TRAINED_PARTS["all"]:
            module = self.task.semantic if name == "semantic" else getattr(self.task.codec, name)
            if module is not None:
                rests = decoder_only and name in ("encoder", "quantizer")
                trained = self.config.trains(name) and not rests
                module.requires_grad_(trained)
                if name == "quantizer" and self.task.codebooks is not None:
                    self.task.codebooks.take_over(trained)

    def passes(self, batch: Batch) -> list[MicroBatch]:
        """Parts of the batch with everything random in them."""
        return self._plan.passes(batch, self.step)

    def before_passes(self, passes: list[MicroBatch], batch: Batch) -> None:
        """The discriminators' step, which comes before the generator's.

        Of several passes it needs the estimates of all, without gradients: keeping all of their
        graphs would undo what passes are for. Of a single one it is made in `losses`, on the
        estimate that has a graph anyway.
        """
        self._batch, self._discriminator_scalars = batch, dict[str, float]()
        if len(passes) > 1 and self._trains_adversary:
            with torch.no_grad():
                estimates: Passes = [(rows, self.distributed(rows)[0]) for rows in passes]
            self._train_discriminators(estimates)

    def step_scalars(self) -> dict[str, float]:
        """The discriminators' loss and the norm of their gradient."""
        return self._discriminator_scalars

    def num_targets(self, rows: MicroBatch) -> int:
        """Tokens of all texts."""
        semantic = self.task.semantic
        if semantic is None:
            return 0
        return sum(len(semantic.targets(text)) for text in rows.texts if text)

    def losses(self, rows: MicroBatch, num_targets: float) -> dict[str, Tensor]:
        """The task's losses, with the discriminators' where they take part."""
        estimate, losses = self.distributed(rows, num_targets)
        adversary = self.training.adversary
        if self._trains_adversary and rows.share == 1:
            self._train_discriminators([(rows, estimate)])
        if adversary is not None and adversary.trains_codec(self.step):
            losses |= adversary.losses(rows, estimate)
        return losses | {"total": self.task.total(losses)}

    def trained_module(self) -> nn.Module:
        """Codec and language model."""
        return self.task

    def after_step(self) -> None:
        """Moving averages: of codebooks, and of all weights."""
        codebooks, average = self.task.codebooks, self.training.mean
        if codebooks is not None:
            codebooks.update(self.processes, self.step)
        if average is not None:
            average.update()
            if codebooks is not None:
                # Codebooks are moving averages already, except for entries that were replaced.
                average.restart("quantizer.codebooks")

    @property
    def _trains_adversary(self) -> bool:
        adversary = self.training.adversary
        return adversary is not None and adversary.trains_discriminators(self.step)

    def _train_discriminators(self, passes: Passes) -> None:
        adversary = cast(Adversary, self.training.adversary)
        scalars = means(adversary.train_step(passes), self.processes)
        self.require_finite(scalars, self._batch)
        self._discriminator_scalars = scalars

    def validate(self) -> ValidationResult | None:
        """Reconstruct the validation clips, shared out to the processes."""
        if not self.validation_clips:
            return None
        processes = self.processes
        quantized = self.step > self.config.warm_start.steps or self.starts_trained()
        codec = self.training.shipped_codec(processes)
        mine = self.validation_clips[processes.rank :: processes.world]
        reader = None if processes.sharded else self.task.semantic
        measures = measure(codec, mine, self.config.validation, quantized, reader)
        return summarize(processes.gather(measures), self._codec_config, quantized)

    def starts_trained(self) -> bool:
        """Fine-tuning: the first validation is what the run is compared with."""
        return bool(self.config.train.checkpoint)

    def next_step(self, folder: Path) -> str:
        """How to hear what the trained codec makes of a recording."""
        return f"to listen to it: moss-audio reconstruct IN.wav -o OUT.wav --model {folder}"

    def checkpoint_files(self) -> Fill:
        """Codec, language model, discriminators, moments and the running mean."""
        return checkpoint_files(self.training, self.processes)

    def final_files(self) -> Fill:
        """The codec, and the language model and discriminators that trained it."""
        return final_files(self.training, self.processes)


class Fitting:
    """Fits what the warm start of a recipe asks for; every process the same to the same samples.

    Args:
        config: the recipe.
        data: the training data, whose batches are the samples.
        report: a function that is called with a line about what was fitted.
    """

    def __init__(
        self, config: TrainingConfig, data: AudioData, report: Callable[[str], None]
    ) -> None:
        self._config = config
        self._data = data
        self._report = report

    def before_step(self, step: int, run: Training, processes: Processes) -> None:
        """Fit everything that is due before ``step``."""
        if step == 0 and self._config.warm_start.low_band:
            self._open_low_band(run, processes)
        if self._quantizer_due(step):
            self._fit_quantizer(run, processes)

    def _open_low_band(self, run: Training, processes: Processes) -> None:
        codec = Codec(run.task.codec.config)
        codec.load_state_dict(whole_state(run.task.codec))
        batches = itertools.count(_CALIBRATION_STEP)
        audio: list[Tensor] = []
        while sum(map(len, audio)) < _LOW_BAND_ROWS:
            batch = self._data.batch(next(batches))
            audio += [torch.from_numpy(rows) for rows in processes.gather(batch.audio)]
        length = min(rows.shape[-1] for rows in audio)
        audio = [rows[..., :length] for rows in audio]
        counts = start_low_band(codec, torch.cat(audio), self._config.warm_start.low_band)
        set_state(run.task.codec, whole_state(codec))
        if run.mean is not None:
            run.mean.restart()
        shown = ", ".join(map(str, counts))
        self._report(f"low band given {shown} channels in the stages of the encoder")

    def _quantizer_due(self, step: int) -> bool:
        start, decoder_only = self._config.warm_start, self._config.decoder_only_from
        past = step - start.steps
        if not start.samples or past < 0 or 0 < decoder_only < step:
            return False
        again = start.refit_every > 0 and past % start.refit_every == 0
        return past == 0 or again or step == decoder_only

    def _fit_quantizer(self, run: Training, processes: Processes) -> None:
        codec = run.shipped_codec(processes, mean=False)
        hidden = self._hidden_frames(codec, processes)
        random = torch.Generator().manual_seed(self._config.seed)
        quantizer = ResidualQuantizer(codec.quantizer.config)
        quantizer.load_state_dict(codec.quantizer.state_dict())
        left = start_from_data(quantizer, hidden, random)
        set_state(run.task.codec.quantizer, whole_state(quantizer))
        # The optimizer's moments and the mean belong to the weights that were there before.
        for parameter in run.task.codec.quantizer.parameters():
            run.optimizer.state.pop(parameter, None)
        if run.task.codebooks is not None:
            run.task.codebooks.restart()
        if run.mean is not None:
            run.mean.restart("quantizer.")
        shown = ", ".join(f"{2**n}: {left[2**n - 1]:.3f}" for n in range(len(left).bit_length()))
        self._report(f"quantizer fitted to {len(hidden)} frames; energy left after layer {shown}")

    @torch.no_grad()
    def _hidden_frames(self, codec: Codec, processes: Processes) -> Tensor:
        """At least as many frames of the encoder's output as wanted, in float32, on the CPU."""
        wanted = self._config.warm_start.samples
        was_training = codec.training
        codec.eval()
        frames: list[Tensor] = []
        for step in itertools.count(_CALIBRATION_STEP):
            batch = self._data.batch(step)
            hidden = codec.require_encoder()(torch.from_numpy(batch.audio).to(processes.device))
            hop = codec.config.downsample_rate
            mine = [row[: -(-n // hop)].cpu() for row, n in zip(hidden, batch.lengths, strict=True)]
            frames += [row for rows in processes.gather(mine) for row in rows]
            if sum(map(len, frames)) >= wanted:
                break
        codec.train(was_training)
        return torch.cat(frames)
