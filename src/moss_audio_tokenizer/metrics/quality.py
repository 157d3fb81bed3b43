"""How far an estimate is from its reference: spectral distances, SDRs, STOI and PESQ.

Mel and STFT distance, spectral convergence and SDR follow the public evaluation code of
MOSS-Audio-Tokenizer (OpenMOSS/MOSS-Audio-Tokenizer-Eval), which measured the paper's Table 2. STOI
and PESQ, models of a listener, are computed by optional packages (pystoi, pesq).
"""

import warnings
from collections.abc import Iterator
from importlib import import_module
from typing import Any

import numpy as np
from jaxtyping import Float

from ..errors import MissingDependencyError
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
# pystoi compares segments of 30 frames at 10 kHz; with fewer it returns this number.
_STOI_TOO_SHORT = 1e-5
_STOI_FRAME_SECONDS = 0.0256
# Samples at 16 kHz below which pesq has nothing to align.
_PESQ_SHORTEST = MEASURED_RATE // 4


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


def stoi(reference: Reference, estimate: Estimate, sampling_rate: int) -> float:
    """Short-time objective intelligibility, not extended: 1 is the best, about 0 is noise.

    NaN when the reference is silent, or holds less than about 0.4 s once its silent parts are
    taken out; 0 when only the estimate is silent. Source: Taal et al., 2011, by pystoi.

    Raises:
        AudioError: a signal is not mono, empty, or not finite.
        MissingDependencyError: pystoi is not installed.
    """
    pystoi = _package("pystoi", "STOI needs it; pip install 'moss-audio-tokenizer[eval]'")
    reference, estimate = aligned_at_measured_rate(reference, estimate, sampling_rate)
    if not reference.any() or len(reference) < 2 * _STOI_FRAME_SECONDS * MEASURED_RATE:
        return float("nan")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Not enough STFT frames", RuntimeWarning)
        value = float(pystoi.stoi(reference, estimate, MEASURED_RATE, extended=False))
    return float("nan") if value == _STOI_TOO_SHORT else value


def pesq_wb(reference: Reference, estimate: Estimate, sampling_rate: int) -> float:
    """Wide-band PESQ (ITU-T P.862.2), a mean opinion score from about 1.0 to 4.64.

    NaN when either signal is silent, shorter than 0.25 s, or without a stretch of speech.

    Raises:
        AudioError: a signal is not mono, empty, or not finite.
        MissingDependencyError: pesq is not installed.
    """
    return _pesq(reference, estimate, sampling_rate, "wb")


def pesq_nb(reference: Reference, estimate: Estimate, sampling_rate: int) -> float:
    """Narrow-band PESQ (ITU-T P.862.1) on 16 kHz signals, from about 1.0 to 4.55; NaN as wide-band.

    Raises:
        AudioError: a signal is not mono, empty, or not finite.
        MissingDependencyError: pesq is not installed.
    """
    return _pesq(reference, estimate, sampling_rate, "nb")


def _pesq(reference: np.ndarray, estimate: np.ndarray, sampling_rate: int, band: str) -> float:
    pesq = _package("pesq", "PESQ needs it and a C compiler to build it; pip install pesq")
    reference, estimate = aligned_at_measured_rate(reference, estimate, sampling_rate)
    if len(reference) < _PESQ_SHORTEST or not (reference.any() and estimate.any()):
        return float("nan")
    try:
        return float(pesq.pesq(MEASURED_RATE, reference, estimate, band))
    except (pesq.BufferTooShortError, pesq.NoUtterancesError):
        return float("nan")


def _package(name: str, remedy: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        raise MissingDependencyError(f"{name} is not installed: {remedy}") from error
