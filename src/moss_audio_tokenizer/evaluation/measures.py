"""Which metrics there are, by name, and all of them on one pair of clips."""

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float

from .. import metrics

Metric = Callable[[np.ndarray, np.ndarray, int], float]


def _si_sdr(reference: np.ndarray, estimate: np.ndarray, sampling_rate: int) -> float:
    del sampling_rate  # measured at the codec's own rate, whatever it is
    return metrics.si_sdr(reference, estimate)


METRICS: dict[str, Metric] = {
    "stoi": metrics.stoi,
    "mel_distance": metrics.mel_distance,
    "stft_distance": metrics.stft_distance,
    "si_sdr": _si_sdr,
    "pesq_wb": metrics.pesq_wb,
    "pesq_nb": metrics.pesq_nb,
}
"""Every metric: (mono reference, mono estimate, sampling rate) -> value."""

DEFAULT_METRICS = ("stoi", "mel_distance", "stft_distance", "si_sdr")
SPEECH_METRICS = frozenset({"stoi", "pesq_wb", "pesq_nb"})
"""Models of how speech is heard: they say nothing of music or a door that slams."""


def measure(
    reference: Float[np.ndarray, "channels samples"],
    estimate: Float[np.ndarray, "channels other_samples"],
    sampling_rate: int,
    names: Sequence[str] = DEFAULT_METRICS,
) -> dict[str, float]:
    """Metrics of a clip mixed down to mono, by name.

    Raises:
        AudioError: a clip is empty or not finite.
        MissingDependencyError: a metric's package is not installed.
    """
    reference, estimate = reference.mean(axis=0), estimate.mean(axis=0)
    return {name: METRICS[name](reference, estimate, sampling_rate) for name in names}
