"""Registry of metrics: their names, titles and directions, and all of them on a pair of clips."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np
from jaxtyping import Float

from .. import metrics
from ..metrics.signals import MEASURED_RATE, at_measured_rate

Function = Callable[[np.ndarray, np.ndarray, int], float]


@dataclass(frozen=True)
class Metric:
    """A metric as tables and plots show it.

    Attributes:
        title: its name.
        better: "higher" or "lower".
        digits: decimals worth printing.
        unit: "" or a unit.
        function: (mono reference, mono estimate, sampling rate) -> value; None for what needs a
            scoring model.
        spoken: whether it is for speech only; it is skipped for music and other sounds.
        package: what must be installed beyond the eval extra, or "".
    """

    title: str
    better: str
    digits: int = 3
    unit: str = ""
    function: Function | None = None
    spoken: bool = False
    package: str = ""

    @property
    def heading(self) -> str:
        """The name, the unit, and an arrow that points to better."""
        unit = f" {self.unit}" if self.unit else ""
        return f"{self.title}{unit} {'↑' if self.better == 'higher' else '↓'}"


def _si_sdr(reference: np.ndarray, estimate: np.ndarray, sampling_rate: int) -> float:
    del sampling_rate  # `measure` brings everything to 16 kHz
    return metrics.si_sdr(reference, estimate)


def _sdr(reference: np.ndarray, estimate: np.ndarray, sampling_rate: int) -> float:
    del sampling_rate
    return metrics.sdr(reference, estimate)


METRICS: dict[str, Metric] = {
    "stoi": Metric("STOI", "higher", function=metrics.stoi, spoken=True),
    "pesq_wb": Metric("PESQ-WB", "higher", 2, "", metrics.pesq_wb, True, "pesq"),
    "pesq_nb": Metric("PESQ-NB", "higher", 2, "", metrics.pesq_nb, True, "pesq"),
    "pitch_error": Metric("pitch error", "lower", 3, "", metrics.gross_pitch_error, True),
    "mel_distance": Metric("mel distance", "lower", function=metrics.mel_distance),
    "stft_distance": Metric("STFT distance", "lower", function=metrics.stft_distance),
    "dac_mel_distance": Metric("DAC mel distance", "lower", function=metrics.dac_mel_distance),
    "spectral_convergence": Metric(
        "spectral convergence", "lower", function=metrics.spectral_convergence
    ),
    "si_sdr": Metric("SI-SDR", "higher", 1, "dB", _si_sdr),
    "sdr": Metric("SDR", "higher", 1, "dB", _sdr),
    "buzz_share": Metric("buzz share", "lower", function=metrics.buzz_share),
    "speaker_similarity": Metric("speaker similarity", "higher", spoken=True),
    "opinion_score": Metric("opinion score", "higher", 2, spoken=True),
    "wer": Metric("WER", "lower", spoken=True),
    "cer": Metric("CER", "lower", spoken=True),
}
"""Every metric by the name that it has in results, in the order of tables."""

DEFAULT_METRICS = ("stoi", "pitch_error", "mel_distance", "stft_distance", "si_sdr")
ALL_METRICS = tuple(name for name, metric in METRICS.items() if metric.function)


def metrics_of(domain: str, names: Sequence[str]) -> list[str]:
    """The metrics that mean something in a domain: those of speech are for "speech" alone."""
    return [name for name in names if domain == "speech" or not METRICS[name].spoken]


def missing_packages(names: Sequence[str]) -> dict[str, str]:
    """The metrics that cannot be computed here, and the package that each lacks."""
    packages = {name: METRICS[name].package for name in names}
    return {name: package for name, package in packages.items() if package and not _found(package)}


def _found(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ValueError:  # a module that a test has put out of reach
        return False


def measure(
    reference: Float[np.ndarray, "channels samples"],
    estimate: Float[np.ndarray, "channels other_samples"],
    sampling_rate: int,
    names: Sequence[str] = DEFAULT_METRICS,
) -> dict[str, float]:
    """Metrics by name of clips mixed down to mono and resampled to 16 kHz.

    Raises:
        AudioError: a clip is empty or not finite.
        MissingDependencyError: a metric's package is not installed.
    """
    one, other = (
        at_measured_rate(clip.mean(axis=0, dtype=np.float64), sampling_rate)
        for clip in (reference, estimate)
    )
    return measure_mono(one, other, names)


def measure_mono(
    reference: Float[np.ndarray, "samples"],
    estimate: Float[np.ndarray, "other_samples"],
    names: Sequence[str],
) -> dict[str, float]:
    """Metrics by name of two signals that are at 16 kHz already; raises as `measure`."""
    functions = {name: METRICS[name].function for name in names}
    return {
        name: function(reference, estimate, MEASURED_RATE)
        for name, function in functions.items()
        if function is not None
    }
