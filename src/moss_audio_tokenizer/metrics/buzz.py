"""Buzz share: a tone at the patch rate, which a decoder of patches can add to a clean sound.

A decoder that writes the waveform patch by patch can repeat an error at every patch border. In
the spectrum that is a comb of lines at multiples of the patch rate, 100 Hz for a decoder that
writes patches of 10 ms. Lines that are harmonics of the sound's own pitch do not count.
"""

import numpy as np
from jaxtyping import Float

from .pitch import track_pitch
from .signals import MEASURED_RATE, aligned_at_measured_rate

PATCH_RATE = 100.0
"""Patches a second that the last stage of the bundled model's decoder writes."""

_WINDOW = 2048
_LOWEST_HERTZ, _HIGHEST_HERTZ = 700.0, 4000.0
# Half the main lobe of a Hann window, within which the energy of a steady line lies.
_LINE_HERTZ = 2 * MEASURED_RATE / _WINDOW
# A multiple of the patch rate this close to a harmonic cannot be separated from it.
_HARMONIC_HERTZ = 2 * _LINE_HERTZ
_PITCH_HOP = MEASURED_RATE // 100
# Pitch that drifts more within a window smears the harmonics over the comb.
_STEADY = 0.01


def buzz_share(
    reference: Float[np.ndarray, " samples"],
    estimate: Float[np.ndarray, " other_samples"],
    sampling_rate: int,
    patch_rate: float = PATCH_RATE,
) -> float:
    """Share of the estimate's energy from 0.7 to 4 kHz on lines of the patch rate, 0 to 1.

    Measured in windows of 128 ms in which the reference is voiced and its pitch is steady within
    1%; multiples of the patch rate within 31 Hz of a harmonic of that pitch are left out. 0 is
    the best; noise gives about 0.3 less what is left out. NaN when no window is steady.

    Raises:
        AudioError: a signal is not mono, empty, or not finite.
    """
    reference, estimate = aligned_at_measured_rate(reference, estimate, sampling_rate)
    on_lines = total = 0.0
    hertz = np.fft.rfftfreq(_WINDOW, 1 / MEASURED_RATE)
    band = (hertz >= _LOWEST_HERTZ) & (hertz <= _HIGHEST_HERTZ)
    comb = band & (_distance(hertz, patch_rate) <= _LINE_HERTZ)
    lines = patch_rate * np.rint(hertz / patch_rate)
    window = np.hanning(_WINDOW + 1)[:-1]
    for start, pitch in _steady_windows(reference):
        power = np.abs(np.fft.rfft(estimate[start : start + _WINDOW] * window)) ** 2
        total += float(power[band].sum())
        free = _distance(lines, pitch) > _HARMONIC_HERTZ
        on_lines += float(power[comb & free].sum())
    return on_lines / total if total > 0.0 else float("nan")


def _distance(hertz: Float[np.ndarray, " bins"], spacing: float) -> Float[np.ndarray, " bins"]:
    """Distance of each frequency from the nearest multiple of a spacing."""
    return np.abs(hertz - spacing * np.rint(hertz / spacing))


def _steady_windows(reference: Float[np.ndarray, " samples"]) -> list[tuple[int, float]]:
    """First samples and pitches of half-overlapping windows with a steady pitch."""
    found, pitches = track_pitch(reference, MEASURED_RATE), []
    frames = _WINDOW // _PITCH_HOP
    for start in range(0, len(reference) - _WINDOW + 1, _WINDOW // 2):
        first = start // _PITCH_HOP
        hertz, voiced = (item[first : first + frames] for item in (found.hertz, found.voiced))
        if not voiced.all():
            continue
        pitch = float(np.median(hertz))
        if np.abs(hertz - pitch).max() <= _STEADY * pitch:
            pitches.append((start, pitch))
    return pitches
