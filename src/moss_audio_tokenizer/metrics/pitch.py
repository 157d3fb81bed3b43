"""Pitch tracking by YIN, and how much of a voice's pitch a reconstruction keeps.

Owns the tracker: 16 kHz, a frame every 10 ms, 60 to 500 Hz. Knows nothing of speech beyond that
range. Source: de Cheveigné and Kawahara, "YIN, a fundamental frequency estimator", 2002, with a
threshold that adapts to hoarse voices and without its last step (the search around each frame).
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from .signals import MEASURED_RATE, aligned_at_measured_rate, at_measured_rate

LOWEST_HERTZ, HIGHEST_HERTZ = 60.0, 500.0
# A quarter tone: what is further off is another note.
TOLERANCE_CENTS = 50.0

_HOP = MEASURED_RATE // 100
_WINDOW = 512
_LONGEST = int(np.ceil(MEASURED_RATE / LOWEST_HERTZ))
_SHORTEST = int(MEASURED_RATE / HIGHEST_HERTZ)
# One lag more at the end, so that the longest has two neighbours.
_LAGS = _LONGEST + 2
_FFT = 1024
_BLOCK_FRAMES = 2048
# The dip that is deep enough to be the period, and so to call a frame voiced.
_PERIODIC = 0.15
# Without such a dip, one this close to the lowest point will do: in a hoarse voice the noise
# decides which multiple of the period lies lowest.
_CLOSE = 0.1
# Frames this much quieter than the loudest hold room, not voice.
_SILENCE_DECIBELS = 40.0


@dataclass(frozen=True)
class PitchTrack:
    """Pitch over time, a frame every 10 ms from the start of the clip.

    Attributes:
        hertz: fundamental frequency; NaN where the frame is silent.
        aperiodicity: 0 for a perfect repetition, about 1 for noise and silence.
        voiced: where the frame repeats itself and is not much quieter than the loudest.
    """

    hertz: Float[np.ndarray, "frames"]
    aperiodicity: Float[np.ndarray, "frames"]
    voiced: Bool[np.ndarray, "frames"]


def gross_pitch_error(
    reference: Float[np.ndarray, "samples"],
    estimate: Float[np.ndarray, "other_samples"],
    sampling_rate: int,
) -> float:
    """Share of the reference's voiced frames whose pitch the estimate misses by over 50 cents.

    0 is the best, 1 the worst, which white noise comes near. A frame in which the estimate is
    silent is a miss; the estimate need not be voiced, for hoarseness is not a matter of pitch.
    NaN when the reference has no voiced frame.

    Raises:
        AudioError: a signal is not mono, empty, or not finite.
    """
    reference, estimate = aligned_at_measured_rate(reference, estimate, sampling_rate)
    truth = _track(reference)
    if not truth.voiced.any():
        return float("nan")
    cents = 1200 * np.abs(np.log2(_track(estimate).hertz / truth.hertz))
    # A comparison with NaN is false: silence is a miss.
    return float(1.0 - (cents[truth.voiced] <= TOLERANCE_CENTS).mean())


def track_pitch(signal: Float[np.ndarray, "samples"], sampling_rate: int) -> PitchTrack:
    """Pitch of a mono signal between 60 and 500 Hz.

    Raises:
        AudioError: the signal is not mono, empty, or not finite.
    """
    return _track(at_measured_rate(signal, sampling_rate))


def _track(signal: Float[np.ndarray, "samples"]) -> PitchTrack:
    parts = [_periods(block) for block in _frame_blocks(signal)]
    lags, aperiodicity, power = (np.concatenate(part) for part in zip(*parts, strict=True))
    sounding = power > power.max() * 10 ** (-_SILENCE_DECIBELS / 10)
    with np.errstate(divide="ignore"):
        hertz = np.where(power > 0, MEASURED_RATE / lags, np.nan)
    return PitchTrack(hertz, aperiodicity, sounding & (aperiodicity < _PERIODIC))


def _frame_blocks(signal: Float[np.ndarray, "samples"]) -> Iterator[np.ndarray]:
    """Frames of a window and the longest lag, some at a time: an hour's would take gigabytes."""
    length = _WINDOW + _LAGS
    padded = np.pad(signal, (0, max(0, length - len(signal))))
    frames = np.lib.stride_tricks.sliding_window_view(padded, length)[::_HOP]
    for start in range(0, len(frames), _BLOCK_FRAMES):
        yield frames[start : start + _BLOCK_FRAMES]


def _periods(
    frames: Float[np.ndarray, "frames length"],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Period in samples, aperiodicity and power of each frame."""
    dips = _normalised_differences(frames)
    lag = _first_deep_dip(dips)
    rows = np.arange(len(frames))
    left, centre, right = dips[rows, lag - 1], dips[rows, lag], dips[rows, lag + 1]
    # The lowest point of the parabola through three points; flat ground stays where it is.
    curvature = left - 2 * centre + right
    shift = np.divide(0.5 * (left - right), curvature, np.zeros_like(left), where=curvature > 1e-12)
    return lag + np.clip(shift, -0.5, 0.5), centre, (frames[:, :_WINDOW] ** 2).mean(1)


def _normalised_differences(
    frames: Float[np.ndarray, "frames length"],
) -> Float[np.ndarray, "frames lags"]:
    """The difference function d(lag) over its mean at shorter lags (YIN, equation 8)."""
    squares = np.cumsum(np.pad(frames**2, ((0, 0), (1, 0))), axis=1)
    energies = squares[:, _WINDOW:] - squares[:, :-_WINDOW]
    spectrum = np.fft.rfft(frames, _FFT)
    window = np.fft.rfft(frames[:, :_WINDOW], _FFT)
    correlation = np.fft.irfft(spectrum * window.conj(), _FFT)[:, :_LAGS]
    differences = np.maximum(energies[:, :1] + energies[:, :_LAGS] - 2 * correlation, 0.0)
    means = np.cumsum(differences[:, 1:], axis=1) / np.arange(1, _LAGS)
    normalized = np.ones_like(differences)
    np.divide(differences[:, 1:], means, normalized[:, 1:], where=means > 1e-12)
    return normalized


def _first_deep_dip(dips: Float[np.ndarray, "frames lags"]) -> np.ndarray:
    """The shortest lag at the bottom of a dip that is deep enough, or as good as the deepest."""
    inside = dips[:, _SHORTEST : _LONGEST + 1]
    before = dips[:, _SHORTEST - 1 : _LONGEST]
    after = dips[:, _SHORTEST + 1 : _LONGEST + 2]
    enough = np.maximum(_PERIODIC, inside.min(1, keepdims=True) + _CLOSE)
    deep = (inside < enough) & (inside <= before) & (inside < after)
    return _SHORTEST + np.where(deep.any(1), deep.argmax(1), inside.argmin(1))
