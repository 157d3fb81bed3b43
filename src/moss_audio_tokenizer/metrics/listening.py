"""Models of a listener from optional packages: STOI (pystoi) and PESQ (pesq), both at 16 kHz.

Owns what they answer where the packages would warn, fail or return a stand-in.
"""

import warnings
from importlib import import_module
from typing import Any

import numpy as np

from ..errors import MissingDependencyError
from .signals import MEASURED_RATE, Estimate, Reference, aligned_at_measured_rate

# pystoi compares segments of 30 frames at 10 kHz; with fewer it returns this number.
_STOI_TOO_SHORT = 1e-5
_STOI_FRAME_SECONDS = 0.0256
# Samples at 16 kHz below which pesq has nothing to align.
_PESQ_SHORTEST = MEASURED_RATE // 4


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
