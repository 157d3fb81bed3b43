"""Sampling rates: which are allowed, and going from one to another with soxr.

It does not know files or channel conversions; it only changes the number of samples a second.
"""

import operator

import numpy as np
import soxr
from jaxtyping import Float
from numpy.typing import ArrayLike

from ..errors import AudioError
from .samples import check_audio

MIN_SAMPLING_RATE = 8_000
MAX_SAMPLING_RATE = 192_000


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
        AudioError: unusable audio (see check_audio) or rates.
    """
    samples = check_audio(audio)
    from_rate, to_rate = check_sampling_rate(from_rate), check_sampling_rate(to_rate)
    if from_rate == to_rate:
        return samples
    wanted = -(-samples.shape[1] * to_rate // from_rate)
    # soxr rounds the length, down to nothing for a few samples; silence behind makes up for it.
    padded = np.pad(samples, ((0, 0), (0, from_rate // to_rate + 2)))
    resampled = soxr.resample(padded.T, from_rate, to_rate, quality="HQ")
    return np.ascontiguousarray(resampled[:wanted].T)


def check_sampling_rate(sampling_rate: int) -> int:
    """The rate as an int, or an AudioError when it is no integer from 8,000 to 192,000."""
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
