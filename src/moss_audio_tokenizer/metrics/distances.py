"""Distances that need no other program: mel and STFT distances, spectral convergence, SDRs.

Mel and STFT distance, spectral convergence and SDR follow the public evaluation code of
MOSS-Audio-Tokenizer (OpenMOSS/MOSS-Audio-Tokenizer-Eval), which measured the paper's Table 2.
"""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float

from .signals import (
    MEASURED_RATE,
    Estimate,
    Reference,
    aligned,
    aligned_at_measured_rate,
    magnitude_blocks,
    mel_filters,
)

# By window length.
_NUM_MELS = {2048: 150, 512: 80}
_LOG_FLOOR = 1e-5
# DAC's training loss, the distance that its paper reports.
_DAC_NUM_MELS = {32: 5, 64: 10, 128: 20, 256: 40, 512: 80, 1024: 160, 2048: 320}


def mel_distance(reference: Reference, estimate: Estimate, sampling_rate: int) -> float:
    """Mel distance at 16 kHz: log10 power and magnitude, summed over windows 2048 and 512.

    At each scale mean |log10 max(m, 1e-5)^2 - log10 max(m', 1e-5)^2| + mean |m - m'| over Slaney
    mel magnitudes (150 and 80 bands, hop a quarter of the window, periodic sqrt-Hann). 0 is the
    best; never NaN: silence against silence is 0.

    Raises:
        AudioError: a signal is not mono, empty, or not finite.
    """
    pair = aligned_at_measured_rate(reference, estimate, sampling_rate)
    return sum(_spectral_distance(pair, length, mels) for length, mels in _NUM_MELS.items())


def stft_distance(reference: Reference, estimate: Estimate, sampling_rate: int) -> float:
    """STFT distance at 16 kHz: `mel_distance` on the STFT magnitudes themselves.

    0 is the best; never NaN.

    Raises:
        AudioError: a signal is not mono, empty, or not finite.
    """
    pair = aligned_at_measured_rate(reference, estimate, sampling_rate)
    return sum(_spectral_distance(pair, length) for length in _NUM_MELS)


def dac_mel_distance(reference: Reference, estimate: Estimate, sampling_rate: int) -> float:
    """DAC's mel distance, at 16 kHz: log10 magnitude summed over windows 32, 64, ... 2048.

    At each scale mean |log10 max(m, 1e-5) - log10 max(m', 1e-5)| over Slaney mel magnitudes (5, 10,
    ... 320 bands, hop a quarter of the window, periodic Hann). 0 is the best; never NaN.
    Source: the mel loss of Descript's DAC (Kumar et al., 2023), which reports it at 44.1 kHz.

    Raises:
        AudioError: a signal is not mono, empty, or not finite.
    """
    pair = aligned_at_measured_rate(reference, estimate, sampling_rate)
    return sum(_log_distance(pair, length, mels) for length, mels in _DAC_NUM_MELS.items())


def spectral_convergence(reference: Reference, estimate: Estimate, sampling_rate: int) -> float:
    """Frobenius norm of the difference of STFT magnitudes over that of the reference's, at 16 kHz.

    Windows of 2048 (periodic Hann, hop 512, zeros at the ends). 0 is the best; NaN when the
    reference is silent.

    Raises:
        AudioError: a signal is not mono, empty, or not finite.
    """
    pair = aligned_at_measured_rate(reference, estimate, sampling_rate)
    blocks = (magnitude_blocks(one, 2048, 512, root=False, padding="constant") for one in pair)
    difference = total = 0.0
    for true, made in zip(*blocks, strict=True):
        difference += float(((true - made) ** 2).sum())
        total += float((true**2).sum())
    return float(np.sqrt(difference / total)) if total > 0.0 else float("nan")


def sdr(reference: Reference, estimate: Estimate) -> float:
    """Signal-to-distortion ratio in dB without any fitted gain: 10 log10 |r|^2 / |r - e|^2.

    Higher is better; 0 dB is what silence gets. +inf for the reference itself, NaN when the
    reference is silent.

    Raises:
        AudioError: a signal is not mono, empty, or not finite.
    """
    reference, estimate = aligned(reference, estimate)
    power = _inner(reference, reference)
    noise = _inner(reference - estimate, reference - estimate)
    if power == 0.0:
        return float("nan")
    return float("inf") if noise == 0.0 else 10 * float(np.log10(power / noise))


def si_sdr(reference: Reference, estimate: Estimate) -> float:
    """Scale-invariant signal-to-distortion ratio in dB, means removed, at the signals' own rate.

    Higher is better. +inf when the estimate is the reference up to a gain, -inf when nothing of
    the reference is in it (silence, say), NaN when the reference is silent.
    Source: Le Roux et al., "SDR - half-baked or well done?", 2019, equation 4.

    Raises:
        AudioError: a signal is not mono, empty, or not finite.
    """
    reference, estimate = (signal - signal.mean() for signal in aligned(reference, estimate))
    power = _inner(reference, reference)
    if power == 0.0:
        return float("nan")
    target = (_inner(reference, estimate) / power) * reference
    target_power = _inner(target, target)
    noise_power = _inner(estimate - target, estimate - target)
    if target_power == 0.0:
        return float("-inf")
    return float("inf") if noise_power == 0.0 else 10 * float(np.log10(target_power / noise_power))


def _inner(left: np.ndarray, right: np.ndarray) -> float:
    """Not the product of a matrix library, whose rounding depends on its threads."""
    return float(np.sum(left * right))


def _spectral_distance(
    pair: tuple[np.ndarray, np.ndarray], length: int, num_mels: int | None = None
) -> float:
    """Mean absolute differences of log10 powers and of magnitudes, at one window length."""
    total, count = 0.0, 0
    for reference, estimate in _spectra(pair, length, num_mels):
        logs = _log_power(reference) - _log_power(estimate)
        total += float(np.abs(logs).sum() + np.abs(reference - estimate).sum())
        count += logs.size
    return total / count


def _log_distance(pair: tuple[np.ndarray, np.ndarray], length: int, num_mels: int) -> float:
    total, count = 0.0, 0
    for reference, estimate in _spectra(pair, length, num_mels, root=False):
        logs = _log_power(reference) - _log_power(estimate)
        total += float(np.abs(logs).sum()) / 2.0  # of a power, twice that of a magnitude
        count += logs.size
    return total / count


def _spectra(
    pair: tuple[np.ndarray, np.ndarray], length: int, num_mels: int | None, root: bool = True
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Blocks of both signals' magnitudes, in mel bands where their number is given."""
    filters = mel_filters(MEASURED_RATE, length, num_mels).T if num_mels else None
    blocks = (magnitude_blocks(signal, length, length // 4, root=root) for signal in pair)
    for reference, estimate in zip(*blocks, strict=True):
        yield (
            (reference, estimate) if filters is None else (reference @ filters, estimate @ filters)
        )


def _log_power(magnitude: Float[np.ndarray, "*any"]) -> Float[np.ndarray, "*any"]:
    return 2.0 * np.log10(np.maximum(magnitude, _LOG_FLOOR))
