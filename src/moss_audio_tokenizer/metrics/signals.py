"""Signals made comparable (checked, cut to the shorter, at 16 kHz, without delay); their spectra.

Owns magnitude spectra, the Slaney mel filters, mel cepstra and the delays of codecs; knows nothing
of distances. Frames are centered: the signal is reflected by half a window at both ends, so that
frame i is centered on sample i * hop.
"""

from collections.abc import Iterator
from functools import lru_cache
from typing import Literal

import numpy as np
import soxr
from jaxtyping import Float

from ..errors import AudioError

MEASURED_RATE = 16_000
"""Samples a second at which the published figures were measured."""

Reference = Float[np.ndarray, "samples"]
Estimate = Float[np.ndarray, "other_samples"]
"""Mono signals; the longer one is cut to the shorter."""

# The Slaney scale: linear below 1 kHz (3 mels for 200 Hz), logarithmic above.
_HERTZ_A_MEL = 200.0 / 3.0
_LOG_FROM_HERTZ = 1000.0
_LOG_FROM_MEL = _LOG_FROM_HERTZ / _HERTZ_A_MEL
_LOG_STEP = np.log(6.4) / 27.0
_BLOCK_FRAMES = 2048

_CEPSTRA_WINDOW_SECONDS = 0.032
_NUM_MELS = 40
_NUM_CEPSTRA = 20
_CEPSTRA_FLOOR = 1e-5
# Pauses are left out: frames this far below the loudest say more of the room than of the voice.
_CEPSTRA_RANGE_LOG10 = 2.0

# Of delays; lags are in hops.
_LAG_HOP = MEASURED_RATE // 500
_LAG_WINDOW = 512
_LAG_BANDS = 24
_EARLIEST_LAG, _LATEST_LAG = -10, 50
_NEAR_SAMPLES = MEASURED_RATE // 250
_AGREES = 0.5
_UNSURE_SAMPLES = MEASURED_RATE // 200
_LAG_FLOOR = 1e-3
_MOST_SAMPLES = 60 * MEASURED_RATE


def aligned(
    reference: Reference, estimate: Estimate
) -> tuple[Float[np.ndarray, "shorter"], Float[np.ndarray, "shorter"]]:
    """Both signals in float64, cut to the shorter.

    Raises:
        AudioError: a signal is not mono, empty, or not finite.
    """
    length = min(_checked(reference, "reference"), _checked(estimate, "estimate"))
    return reference[:length].astype(np.float64), estimate[:length].astype(np.float64)


def aligned_at_measured_rate(
    reference: Reference, estimate: Estimate, sampling_rate: int
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


def hertz_to_mel(hertz: Float[np.ndarray, "*any"]) -> Float[np.ndarray, "*any"]:
    """Frequencies on the Slaney mel scale."""
    above = _LOG_FROM_MEL + np.log(np.maximum(hertz, 1e-9) / _LOG_FROM_HERTZ) / _LOG_STEP
    return np.where(hertz < _LOG_FROM_HERTZ, hertz / _HERTZ_A_MEL, above)


def mel_to_hertz(mels: Float[np.ndarray, "*any"]) -> Float[np.ndarray, "*any"]:
    """The inverse of `hertz_to_mel`."""
    above = _LOG_FROM_HERTZ * np.exp(_LOG_STEP * (mels - _LOG_FROM_MEL))
    return np.where(mels < _LOG_FROM_MEL, mels * _HERTZ_A_MEL, above)


@lru_cache(maxsize=16)
def mel_filters(
    sampling_rate: int, window_length: int, num_mels: int
) -> Float[np.ndarray, "mels bins"]:
    """Triangular filters from 0 Hz to Nyquist, each of unit area over frequency in Hz.

    Returns:
        (num_mels, window_length // 2 + 1), float64. It is shared: do not write into it.
    """
    bins = np.linspace(0.0, sampling_rate / 2, window_length // 2 + 1)
    highest = hertz_to_mel(np.array(sampling_rate / 2))
    corners = mel_to_hertz(np.linspace(0.0, highest, num_mels + 2))[:, None]
    left, centre, right = corners[:-2], corners[1:-1], corners[2:]
    rising = (bins - left) / (centre - left)
    falling = (right - bins) / (right - centre)
    return np.maximum(0.0, np.minimum(rising, falling)) * (2.0 / (right - left))


def magnitude_blocks(
    signal: Float[np.ndarray, "samples"],
    window_length: int,
    hop_length: int,
    root: bool = True,
    padding: Literal["reflect", "constant"] = "reflect",
) -> Iterator[Float[np.ndarray, "frames bins"]]:
    """STFT magnitudes under a periodic sqrt-Hann (or Hann) window, a block of frames at a time.

    Blocks bound the memory: an hour's whole spectrum would take gigabytes. Signals shorter than
    half a window are reflected as often as it takes.
    """
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window_length) / window_length)
    window = np.sqrt(hann) if root else hann
    padded = np.pad(signal, window_length // 2, mode=padding)
    frames = np.lib.stride_tricks.sliding_window_view(padded, window_length)[::hop_length]
    for start in range(0, len(frames), _BLOCK_FRAMES):
        yield np.abs(np.fft.rfft(frames[start : start + _BLOCK_FRAMES] * window))


def mfcc_statistics(
    samples: Float[np.ndarray, "samples"], sampling_rate: int
) -> Float[np.ndarray, "38"]:
    """Means, then deviations, of mel cepstra 1 to 19; loudness does not count.

    A baseline for speaker similarity without any model. It depends on the microphone and the words
    as much as on the voice, so cosines compare versions of one experiment, not speakers, and must
    not be set beside published similarities. All zero for silence.

    Source: Davis and Mermelstein, "Comparison of parametric representations for monosyllabic
    word recognition", 1980 (the cepstra).
    """
    window = 2 ** round(np.log2(_CEPSTRA_WINDOW_SECONDS * sampling_rate))
    filters = mel_filters(sampling_rate, window, _NUM_MELS).T
    blocks = magnitude_blocks(np.asarray(samples, np.float64), window, window // 4)
    mel = np.concatenate([block @ filters for block in blocks])
    level = np.log10(np.maximum(mel, _CEPSTRA_FLOOR))
    if mel.max() <= _CEPSTRA_FLOOR:  # silence has no voice
        return np.zeros(2 * (_NUM_CEPSTRA - 1))
    loud = level.mean(1) > level.mean(1).max() - _CEPSTRA_RANGE_LOG10
    # Without the mean over bands, which is loudness.
    cepstra = level[loud] @ _cosines()
    return np.concatenate((cepstra.mean(0), cepstra.std(0)))


def _cosines() -> Float[np.ndarray, "mels cepstra"]:
    """The discrete cosine transform, of type 2 and orthonormal, without its first row."""
    bands = np.pi * (np.arange(_NUM_MELS) + 0.5) / _NUM_MELS
    rows = np.cos(np.outer(bands, np.arange(1, _NUM_CEPSTRA)))
    return rows * np.sqrt(2.0 / _NUM_MELS)


def find_delay(
    reference: Float[np.ndarray, "samples"], estimate: Float[np.ndarray, "other_samples"]
) -> int:
    """Samples by which the estimate comes late, at 16 kHz; negative when it comes early.

    One rule for all codecs: the lag between -20 and 100 ms at which the envelopes of 24 mel bands
    agree best; within 4 ms of it, the lag at which the waveforms agree best, where they agree at
    all (correlation above 0.5, or below -0.5). A vocoder's waveform does not, and its envelopes
    tell a lag to 5 ms only: a smaller one is left alone. The original has the lag 0, and so has
    every codec that neither delays nor advances. The first minute decides.
    """
    length = min(len(reference), len(estimate), _MOST_SAMPLES)
    reference, estimate = reference[:length], estimate[:length]
    coarse = _LAG_HOP * _envelope_lag(_envelopes(reference), _envelopes(estimate))
    exact, agreement = _waveform_lag(reference, estimate, coarse)
    if abs(agreement) > _AGREES:
        return exact
    return coarse if abs(coarse) >= _UNSURE_SAMPLES else 0


def without_delay(
    estimate: Float[np.ndarray, "samples"], delay: int, length: int
) -> Float[np.ndarray, "length"]:
    """An estimate shifted by its delay and brought to a length, with silence where it has none."""
    moved = estimate[delay:] if delay >= 0 else np.pad(estimate, (-delay, 0))
    return np.pad(moved[:length], (0, max(0, length - len(moved))))


def _envelopes(signal: Float[np.ndarray, "samples"]) -> Float[np.ndarray, "frames bands"]:
    filters = mel_filters(MEASURED_RATE, _LAG_WINDOW, _LAG_BANDS).T
    blocks = [block @ filters for block in magnitude_blocks(signal, _LAG_WINDOW, _LAG_HOP)]
    levels = np.log(np.concatenate(blocks) + _LAG_FLOOR)
    return levels - levels.mean(0)


def _envelope_lag(
    reference: Float[np.ndarray, "frames bands"], estimate: Float[np.ndarray, "frames bands"]
) -> int:
    """The lag in frames of the highest correlation; the smallest of equal ones."""
    lags = sorted(range(_EARLIEST_LAG, min(_LATEST_LAG, len(reference) - 1) + 1), key=abs)
    lags = [lag for lag in lags if -lag < len(reference)]
    return max(lags, key=lambda lag: _correlation(reference, estimate, lag))


def _waveform_lag(reference: np.ndarray, estimate: np.ndarray, around: int) -> tuple[int, float]:
    """The lag in samples near another one where waveforms agree most, up to sign, and how much."""
    lags = sorted(range(around - _NEAR_SAMPLES, around + _NEAR_SAMPLES + 1), key=abs)
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
