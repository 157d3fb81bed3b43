"""Two signals brought to the same footing: checked, cut to the shorter, resampled to 16 kHz."""

import numpy as np
import soxr
from jaxtyping import Float

from ..errors import AudioError

MEASURED_RATE = 16_000
"""Samples a second at which the published figures were measured."""


def aligned(
    reference: Float[np.ndarray, "samples"], estimate: Float[np.ndarray, "other_samples"]
) -> tuple[Float[np.ndarray, "shorter"], Float[np.ndarray, "shorter"]]:
    """Both signals in float64, cut to the shorter.

    Raises:
        AudioError: a signal is not mono, empty, or not finite.
    """
    length = min(_checked(reference, "reference"), _checked(estimate, "estimate"))
    return reference[:length].astype(np.float64), estimate[:length].astype(np.float64)


def aligned_at_measured_rate(
    reference: Float[np.ndarray, "samples"],
    estimate: Float[np.ndarray, "other_samples"],
    sampling_rate: int,
) -> tuple[Float[np.ndarray, "resampled"], Float[np.ndarray, "resampled"]]:
    """Both signals in float64, cut to the shorter, at 16 kHz (soxr, high quality).

    Raises:
        AudioError: as `aligned`, or the sampling rate is not positive.
    """
    reference, estimate = aligned(reference, estimate)
    return at_measured_rate(reference, sampling_rate), at_measured_rate(estimate, sampling_rate)


def at_measured_rate(
    signal: Float[np.ndarray, "samples"], sampling_rate: int
) -> Float[np.ndarray, "resampled"]:
    """One signal in float64 at 16 kHz.

    Raises:
        AudioError: as `aligned_at_measured_rate`.
    """
    if sampling_rate < 1:
        raise AudioError(f"sampling_rate is {sampling_rate}; expected samples a second, 1 or more")
    _checked(signal, "the signal")
    return _resampled(signal.astype(np.float64), sampling_rate)


def _checked(signal: Float[np.ndarray, "samples"], name: str) -> int:
    """The length of a signal that can be measured."""
    if signal.ndim != 1 or signal.size == 0:
        raise AudioError(
            f"{name} has shape {signal.shape}; expected mono audio (samples,), at least one sample"
        )
    if not np.isfinite(signal).all():
        raise AudioError(f"{name} holds NaN or infinite samples; replace them first")
    return len(signal)


def _resampled(signal: Float[np.ndarray, "samples"], rate: int) -> Float[np.ndarray, "resampled"]:
    if rate == MEASURED_RATE:
        return signal
    resampled = soxr.resample(signal, rate, MEASURED_RATE)
    # A handful of samples can round to none.
    return resampled if len(resampled) else np.zeros(1)
