"""Pitch tracking by YIN, what a reconstruction keeps of the pitch, and the buzz that it adds.

Owns the tracker: 16 kHz, a frame every 10 ms, 60 to 500 Hz. Source: de Cheveigné and Kawahara,
"YIN, a fundamental frequency estimator", 2002, with a threshold that adapts to hoarse voices and
without its last step (the search around each frame).

A buzz is a tone at the patch rate. A decoder that writes the waveform patch by patch can repeat an
error at every patch border; in the spectrum that is a comb of lines at multiples of the patch rate.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from .signals import MEASURED_RATE, Estimate, Reference, aligned_at_measured_rate, at_measured_rate

LOWEST_HERTZ, HIGHEST_HERTZ = 60.0, 500.0
# A quarter tone: what is further off is another note.
TOLERANCE_CENTS = 50.0

_HOP = MEASURED_RATE // 100
_WINDOW = 512
_LONGEST = int(np.ceil(MEASURED_RATE / LOWEST_HERTZ))
_SHORTEST = int(MEASURED_RATE / HIGHEST_HERTZ)
# One lag more at the end, so that the longest has two neighbors.
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

PATCH_RATE = 100.0
"""Patches a second that the last stage of the bundled model's decoder writes."""

_BUZZ_WINDOW = 2048
_LOWEST_BUZZ, _HIGHEST_BUZZ = 700.0, 4000.0
# Half the main lobe of a Hann window, within which the energy of a steady line lies.
_LINE_HERTZ = 2 * MEASURED_RATE / _BUZZ_WINDOW
# A multiple of the patch rate this close to a harmonic cannot be separated from it.
_HARMONIC_HERTZ = 2 * _LINE_HERTZ
# Within a window, harmonics of a pitch that drifts further cross several lines of the comb.
_MOST_DRIFT = 0.04


@dataclass(frozen=True)
class PitchTrack:
    """Pitch over time, a frame every 10 ms from the start of the clip.

    Attributes:
        hertz: fundamental frequency; NaN where the frame is silent.
        voiced: where the frame repeats itself and is not much quieter than the loudest.
    """

    hertz: Float[np.ndarray, "frames"]
    voiced: Bool[np.ndarray, "frames"]


def gross_pitch_error(reference: Reference, estimate: Estimate, sampling_rate: int) -> float:
    """Share of the reference's voiced frames whose pitch the estimate misses by over 50 cents.

    0 is the best, 1 the worst, which white noise comes near. A frame in which the estimate is
    silent is a miss; the estimate need not be voiced, for hoarseness is not a matter of pitch.
    NaN when the reference has no voiced frame.

    Raises:
        AudioError: a signal is not mono, empty, or not finite.
    """
    reference, estimate = aligned_at_measured_rate(reference, estimate, sampling_rate)
    truth = track_pitch(reference, MEASURED_RATE)
    if not truth.voiced.any():
        return float("nan")
    cents = 1200 * np.abs(np.log2(track_pitch(estimate, MEASURED_RATE).hertz / truth.hertz))
    # A comparison with NaN is false: silence is a miss.
    return float(1.0 - (cents[truth.voiced] <= TOLERANCE_CENTS).mean())


def buzz_share(
    reference: Reference,
    estimate: Estimate,
    sampling_rate: int,
    patch_rate: float = PATCH_RATE,
) -> float:
    """Share of the estimate's energy from 0.7 to 4 kHz on lines of the patch rate, 0 to 1.

    Measured in windows of 128 ms in which the reference is voiced and its pitch stays within 4%
    of its median. Harmonics are followed along the reference's pitch and subtracted before the
    energy on the lines is taken; lines within 31 Hz of a harmonic of the mean pitch are left out.
    0 is the best; noise gives about 0.3 less what is left out. NaN when there is no such window.

    Raises:
        AudioError: a signal is not mono, empty, or not finite.
    """
    reference, estimate = aligned_at_measured_rate(reference, estimate, sampling_rate)
    hertz = np.fft.rfftfreq(_BUZZ_WINDOW, 1 / MEASURED_RATE)
    band = (hertz >= _LOWEST_BUZZ) & (hertz <= _HIGHEST_BUZZ)
    comb = band & (_distance(hertz, patch_rate) <= _LINE_HERTZ)
    lines = patch_rate * np.rint(hertz / patch_rate)
    window = np.hanning(_BUZZ_WINDOW + 1)[:-1]
    on_lines = total = 0.0
    for start, pitch in _voiced_windows(reference):
        sound = estimate[start : start + _BUZZ_WINDOW] * window
        free = _distance(lines, pitch.mean()) > _HARMONIC_HERTZ
        total += float(_power(sound)[band].sum())
        on_lines += float(_power(_without_harmonics(sound, pitch, window))[comb & free].sum())
    # Rounded, because a solver's last digits depend on its threads.
    return round(on_lines / total, 6) if total > 0.0 else float("nan")


def _voiced_windows(
    reference: Reference,
) -> Iterator[tuple[int, Float[np.ndarray, "window"]]]:
    """First samples of half-overlapping windows that count, and the pitch at each sample."""
    found = track_pitch(reference, MEASURED_RATE)
    time = np.arange(_BUZZ_WINDOW) / _BUZZ_WINDOW
    for start in range(0, len(reference) - _BUZZ_WINDOW + 1, _BUZZ_WINDOW // 2):
        last = min((start + _BUZZ_WINDOW) // _HOP, len(found.hertz))
        frames = np.arange(start // _HOP, last)
        hertz, voiced = found.hertz[frames], found.voiced[frames]
        pitch = np.median(hertz)
        if voiced.all() and np.abs(hertz - pitch).max() <= _MOST_DRIFT * pitch:
            # YIN compares two windows that lie a period apart: their middle is what it measures.
            middles = frames * _HOP - start + (_WINDOW + MEASURED_RATE / hertz) / 2
            yield start, np.polyval(np.polyfit(middles / _BUZZ_WINDOW, hertz, 2), time)


def _without_harmonics(
    sound: Float[np.ndarray, "window"],
    pitch: Float[np.ndarray, "window"],
    window: Float[np.ndarray, "window"],
) -> Float[np.ndarray, "window"]:
    """What is left after the best fit of harmonics whose amplitudes are parabolas over time."""
    phase = 2 * np.pi * np.cumsum(pitch) / MEASURED_RATE
    first, last = int(_LOWEST_BUZZ / pitch.max()), int(_HIGHEST_BUZZ / pitch.min()) + 1
    phases = np.outer(np.arange(max(1, first), last + 1), phase)
    amplitudes = np.linspace(-1, 1, len(sound)) ** np.arange(3)[:, None] * window
    waves = np.concatenate((np.cos(phases), np.sin(phases)))
    basis = (waves[:, None] * amplitudes).reshape(-1, len(sound))
    products = basis @ basis.T
    products[np.diag_indices_from(products)] *= 1 + 1e-6
    fit: np.ndarray = np.linalg.solve(products, basis @ sound) @ basis
    return sound - fit


def _power(sound: Float[np.ndarray, "window"]) -> Float[np.ndarray, "bins"]:
    return np.abs(np.fft.rfft(sound)) ** 2


def _distance(hertz: Float[np.ndarray, "bins"], spacing: float) -> Float[np.ndarray, "bins"]:
    """Distance of each frequency from the nearest multiple of a spacing."""
    return np.abs(hertz - spacing * np.rint(hertz / spacing))


def track_pitch(signal: Float[np.ndarray, "samples"], sampling_rate: int) -> PitchTrack:
    """Pitch of a mono signal between 60 and 500 Hz.

    Raises:
        AudioError: the signal is not mono, empty, or not finite.
    """
    signal = at_measured_rate(signal, sampling_rate)
    parts = [_periods(block) for block in _frame_blocks(signal)]
    lags, aperiodicity, power = (np.concatenate(part) for part in zip(*parts, strict=True))
    sounding = power > power.max() * 10 ** (-_SILENCE_DECIBELS / 10)
    with np.errstate(divide="ignore"):
        hertz = np.where(power > 0, MEASURED_RATE / lags, np.nan)
    return PitchTrack(hertz, sounding & (aperiodicity < _PERIODIC))


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
    dips = _normalized_differences(frames)
    lag = _first_deep_dip(dips)
    rows = np.arange(len(frames))
    left, center, right = dips[rows, lag - 1], dips[rows, lag], dips[rows, lag + 1]
    # The lowest point of the parabola through three points; flat ground stays where it is.
    curvature = left - 2 * center + right
    shift = np.divide(0.5 * (left - right), curvature, np.zeros_like(left), where=curvature > 1e-12)
    return lag + np.clip(shift, -0.5, 0.5), center, (frames[:, :_WINDOW] ** 2).mean(1)


def _normalized_differences(
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
