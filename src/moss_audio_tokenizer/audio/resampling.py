"""Sampling rates: which are allowed, and going from one to another with soxr.

It does not know files or channel conversions; it only changes the number of samples a second.
"""

import operator

import numpy as np
import soxr
from jaxtyping import Float
from numpy.typing import ArrayLike

from ..errors import AudioError
from .samples import check_audio, check_finite

MIN_SAMPLING_RATE = 8_000
MAX_SAMPLING_RATE = 192_000
_BLOCK_SAMPLES = 1 << 18


def resample(
    audio: ArrayLike, from_rate: int, to_rate: int
) -> Float[np.ndarray, "channels resampled"]:
    """Audio at another sampling rate: soxr, "HQ", linear phase, without delay.

    Args:
        audio: (samples,) or (channels, samples).
        from_rate: samples a second of ``audio``, 8,000 to 192,000.
        to_rate: samples a second wanted, 8,000 to 192,000.

    Returns:
        float32, ceil(samples * to_rate / from_rate) samples, so that nothing is cut off.

    Raises:
        AudioError: unusable audio (see check_audio) or rates, or samples so large that the result
            is not finite.
    """
    samples = check_audio(audio)
    resampler = StreamResampler(from_rate, to_rate, len(samples))
    if from_rate == to_rate:
        return samples
    starts = range(0, samples.shape[1], _BLOCK_SAMPLES)
    parts = [resampler.add(samples[:, start : start + _BLOCK_SAMPLES]) for start in starts]
    resampled = np.concatenate([*parts, resampler.finish()], axis=1)
    check_finite(resampled, source="resampled audio")
    return resampled


class StreamResampler:
    """Resamples audio that comes block by block, to the same samples as in one go.

    Args:
        from_rate: samples a second of the blocks.
        to_rate: samples a second wanted.
        num_channels: channels of the blocks.

    Raises:
        AudioError: a rate that is not an integer from 8,000 to 192,000.
    """

    def __init__(self, from_rate: int, to_rate: int, num_channels: int) -> None:
        self._from, self._to = check_sampling_rate(from_rate), check_sampling_rate(to_rate)
        self._channels = num_channels
        self._taken = self._given = 0
        self._soxr: soxr.ResampleStream | None = None
        if self._from != self._to:
            self._soxr = soxr.ResampleStream(
                self._from, self._to, num_channels, dtype="float32", quality="HQ"
            )

    def add(self, block: Float[np.ndarray, "channels samples"]) -> np.ndarray:
        """What is certain after another block: (channels, samples), perhaps none."""
        self._taken += block.shape[1]
        return block if self._soxr is None else self._resampled(self._soxr, block, last=False)

    def finish(self) -> Float[np.ndarray, "channels samples"]:
        """The rest, once all blocks are in."""
        if self._soxr is None:
            return np.zeros((self._channels, 0), np.float32)
        # soxr rounds the length, down to nothing for a few samples; silence behind makes up for it.
        silence = np.zeros((self._channels, self._from // self._to + 2), np.float32)
        wanted = -(-self._taken * self._to // self._from) - self._given
        return self._resampled(self._soxr, silence, last=True)[:, :wanted]

    def _resampled(self, stream: soxr.ResampleStream, block: np.ndarray, last: bool) -> np.ndarray:
        block = np.ascontiguousarray(block.T)
        resampled = stream.resample_chunk(block, last=last).reshape(-1, self._channels)
        self._given += len(resampled)
        return np.ascontiguousarray(resampled.T)


def check_sampling_rate(sampling_rate: int) -> int:
    """The rate as an int, or an AudioError when it is not an integer from 8,000 to 192,000."""
    try:
        rate = operator.index(sampling_rate)
    except TypeError:
        rate = None
    if rate is None or not MIN_SAMPLING_RATE <= rate <= MAX_SAMPLING_RATE:
        raise AudioError(
            f"got sampling rate {sampling_rate!r}; expected an integer from "
            f"{MIN_SAMPLING_RATE} to {MAX_SAMPLING_RATE} samples a second"
        )
    return rate
