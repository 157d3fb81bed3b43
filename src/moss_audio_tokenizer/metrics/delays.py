"""Delays of codecs found and taken away, by one rule for all of them.

The rule, on signals at 16 kHz: the lag between -20 and 100 ms at which the envelopes of 24 mel
bands agree best; within 4 ms of it, the lag at which the waveforms agree best, where they agree
at all (correlation above 0.5, or below -0.5). A vocoder's waveform does not, and its envelopes
tell a lag to 5 ms only: a smaller one is left alone. The original has the lag 0, and so has every
codec that neither delays nor advances. The first minute decides. Knows nothing of codecs.
"""

import numpy as np
from jaxtyping import Float

from .signals import MEASURED_RATE, magnitude_blocks, mel_filters

_HOP = MEASURED_RATE // 500
_WINDOW = 512
_NUM_BANDS = 24
_EARLIEST, _LATEST = -10, 50
_NEAR = MEASURED_RATE // 250
_AGREES = 0.5
_UNSURE = MEASURED_RATE // 200
_FLOOR = 1e-3
_MOST_SAMPLES = 60 * MEASURED_RATE


def find_delay(
    reference: Float[np.ndarray, "samples"], estimate: Float[np.ndarray, "other_samples"]
) -> int:
    """Samples by which the estimate comes late, at 16 kHz; negative when it comes early."""
    length = min(len(reference), len(estimate), _MOST_SAMPLES)
    reference, estimate = reference[:length], estimate[:length]
    coarse = _HOP * _envelope_lag(_envelopes(reference), _envelopes(estimate))
    exact, agreement = _waveform_lag(reference, estimate, coarse)
    if abs(agreement) > _AGREES:
        return exact
    return coarse if abs(coarse) >= _UNSURE else 0


def without_delay(
    estimate: Float[np.ndarray, "samples"], delay: int, length: int
) -> Float[np.ndarray, "length"]:
    """An estimate shifted by its delay and brought to a length, with silence where it has none."""
    moved = estimate[delay:] if delay >= 0 else np.pad(estimate, (-delay, 0))
    return np.pad(moved[:length], (0, max(0, length - len(moved))))


def _envelopes(signal: Float[np.ndarray, "samples"]) -> Float[np.ndarray, "frames bands"]:
    filters = mel_filters(MEASURED_RATE, _WINDOW, _NUM_BANDS).T
    blocks = [block @ filters for block in magnitude_blocks(signal, _WINDOW, _HOP)]
    levels = np.log(np.concatenate(blocks) + _FLOOR)
    return levels - levels.mean(0)


def _envelope_lag(
    reference: Float[np.ndarray, "frames bands"], estimate: Float[np.ndarray, "frames bands"]
) -> int:
    """The lag in frames of the highest correlation; the smallest of equal ones."""
    lags = sorted(range(_EARLIEST, min(_LATEST, len(reference) - 1) + 1), key=abs)
    lags = [lag for lag in lags if -lag < len(reference)]
    return max(lags, key=lambda lag: _correlation(reference, estimate, lag))


def _waveform_lag(reference: np.ndarray, estimate: np.ndarray, around: int) -> tuple[int, float]:
    """The lag in samples near another one where waveforms agree most, up to sign, and how much."""
    lags = sorted(range(around - _NEAR, around + _NEAR + 1), key=abs)
    scored = [
        (lag, _correlation(reference, estimate, lag)) for lag in lags if abs(lag) < len(reference)
    ]
    return max(scored, key=lambda item: abs(item[1]), default=(0, 0.0))


def _correlation(reference: np.ndarray, estimate: np.ndarray, lag: int) -> float:
    """Normalised correlation of what overlaps, as a share of all there is."""
    first = reference[: len(reference) - lag] if lag >= 0 else reference[-lag:]
    second = estimate[lag:] if lag >= 0 else estimate[: len(estimate) + lag]
    norm = float(np.sqrt((reference**2).sum() * (estimate**2).sum()))
    return float((first * second).sum()) / norm if norm > 0.0 else 0.0
