"""Micro-batches: what one process computes in one pass, with everything that is random in it.

Owns how randomness is drawn: from the seed, the step and the index of a row in the whole batch, so
that neither a resumed run nor the number of processes changes it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ...config import CodecConfig
from ..data import Batch
from .codec_config import TrainingConfig
from .losses import NUM_MEL_WINDOWS, NUM_PHASE_WINDOWS


@dataclass
class MicroBatch:
    """The rows of one pass as tensors.

    Attributes:
        audio: whole frames, right-padded with zeros.
        lengths: the number of samples of each row that are not padding.
        padded: whether any row has padding.
        num_frames: the number of frames of each row that hold such samples.
        samples_a_frame: the number of samples of each channel in a frame.
        active: the number of quantizer layers in use; None while the quantizer is bypassed.
        noise_seeds: the seed of each row for the noise of the warm start.
        crop_positions: where in each row the discriminators' crop begins, from 0 to 1.
        mel_windows: indices of the windows that the mel loss uses; None for all.
        phase_windows: the same for the phase loss.
        texts: the transcript of each row; empty where there is none.
        tasks: the task of each row with a text.
        share: the weight of this pass in its step.
    """

    audio: Float[Tensor, "rows channels samples"]
    lengths: Int[Tensor, "rows"]
    padded: bool
    num_frames: list[int]
    samples_a_frame: int
    active: Int[Tensor, "rows"] | None
    noise_seeds: list[int]
    crop_positions: Float[Tensor, "rows"]
    mel_windows: list[int] | None
    phase_windows: list[int] | None
    texts: Sequence[str]
    tasks: Sequence[str]
    share: float

    def valid(self) -> Bool[Tensor, "rows frames"]:
        """Which frames are not padding."""
        counts = torch.tensor(self.num_frames, device=self.audio.device)
        total = self.audio.shape[-1] // self.samples_a_frame
        return torch.arange(total, device=self.audio.device) < counts[:, None]


class MicroBatchPlanner:
    """Draws what is random in a step.

    Args:
        config: the recipe.
        codec: the configuration of the codec in training.
        device: the device that computes.
        rank: the rank of this process.
        world: the number of processes.
    """

    def __init__(
        self,
        config: TrainingConfig,
        codec: CodecConfig,
        device: torch.device,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self._config = config
        self._codec = codec
        self._device = device
        self._rank = rank
        self._world = world

    def passes(self, batch: Batch, step: int) -> list[MicroBatch]:
        """The passes that this process makes over its share of a step's batch."""
        count, spectra = self._config.accumulate, self._config.spectra
        mine = len(batch.names)
        random = torch.Generator().manual_seed(self._config.seed * 1_000_003 + step)
        active = self._active_layers(mine * self._world, random)
        crop_positions = torch.rand(mine * self._world, generator=random)
        windows = (
            _drawn(spectra.mel_windows, NUM_MEL_WINDOWS, random),
            _drawn(spectra.phase_windows, NUM_PHASE_WINDOWS, random),
        )
        first = self._rank * mine
        size = mine // count
        return [
            self._rows(
                batch.part(index, count),
                step,
                first + index * size,
                active,
                crop_positions,
                windows,
            )
            for index in range(count)
        ]

    def _rows(
        self,
        batch: Batch,
        step: int,
        first: int,
        active: Tensor,
        crop_positions: Tensor,
        windows: tuple[list[int] | None, list[int] | None],
    ) -> MicroBatch:
        rows = range(first, first + len(batch.names))
        quantized = step >= self._config.warm_start.steps
        hop = self._codec.downsample_rate
        lengths = torch.from_numpy(batch.lengths)
        return MicroBatch(
            audio=torch.from_numpy(batch.audio).to(self._device),
            lengths=lengths.to(self._device),
            padded=bool((lengths < batch.audio.shape[-1]).any()),
            num_frames=[-(-int(length) // hop) for length in lengths],
            samples_a_frame=hop,
            active=active[rows.start : rows.stop].to(self._device) if quantized else None,
            noise_seeds=[_mixed(self._config.seed, step, row) for row in rows],
            crop_positions=crop_positions[rows.start : rows.stop].to(self._device),
            mel_windows=windows[0],
            phase_windows=windows[1],
            texts=batch.texts,
            tasks=batch.tasks,
            share=1 / self._config.accumulate,
        )

    def _active_layers(self, rows: int, random: torch.Generator) -> Int[Tensor, "rows"]:
        """Quantizer dropout: a share of the rows keeps a random prefix of 1 .. N layers."""
        layers = self._codec.quantizer.num_quantizers
        prefix = torch.randint(1, layers + 1, (rows,), generator=random)
        dropped = torch.rand(rows, generator=random) < self._config.quantizer_dropout
        return torch.where(dropped, prefix, layers)


def _drawn(wanted: int, there: int, random: torch.Generator) -> list[int] | None:
    """Indices of ``wanted`` of ``there`` windows; None where all are wanted."""
    if not 0 < wanted < there:
        return None
    return torch.randperm(there, generator=random)[:wanted].tolist()


def _mixed(seed: int, step: int, row: int) -> int:
    """Mixes (seed, step, row) into one 63-bit seed."""
    return ((seed * 1_000_003 + step) * 65_537 + row) % (1 << 63)
