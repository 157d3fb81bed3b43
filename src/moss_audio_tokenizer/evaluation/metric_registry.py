"""Registry of metrics: their names, titles and directions, and all of them on a pair of clips."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from .. import metrics
from ..metrics.signals import MEASURED_RATE, at_measured_rate
from .loading import is_installed

Function = Callable[[np.ndarray, np.ndarray, int], float]


@dataclass(frozen=True)
class Metric:
    """A metric as tables and plots show it.

    Attributes:
        title: its name.
        better: "higher" or "lower".
        function: (mono reference, mono estimate, sampling rate) -> value; None for what needs a
            scoring model.
        digits: decimals worth printing.
        unit: "" or a unit.
        spoken: whether it is for speech only; it is skipped for music and other sounds.
        package: what must be installed beyond the eval extra, or "".
        meaning: what it measures, in a few words for titles of plots.
        bounds: the lowest and the highest value that there can be.
    """

    title: str
    better: str = "higher"
    function: Function | None = None
    digits: int = 3
    unit: str = ""
    spoken: bool = False
    package: str = ""
    meaning: str = ""
    bounds: tuple[float | None, float | None] = (0, None)

    @property
    def heading(self) -> str:
        """The name, the unit, and an arrow that points to better."""
        unit = f" {self.unit}" if self.unit else ""
        return f"{self.title}{unit} {'↑' if self.better == 'higher' else '↓'}"

    @property
    def long_heading(self) -> str:
        """The name and what it measures, above a plot."""
        unit = f", {self.unit}" if self.unit else ""
        meaning = f": {self.meaning}" if self.meaning else ""
        return f"{self._capital}{unit}{meaning} ({self.better} is better)"

    def heading_by(self, model: str) -> str:
        """The name and the scoring model that brought it, above a plot."""
        return f"{self._capital} by {model} ({self.better} is better)"

    @property
    def _capital(self) -> str:
        return f"{self.title[0].upper()}{self.title[1:]}"


def _spoken(title: str, function: Function | None, meaning: str, **more: Any) -> Metric:
    """A metric of speech, by default higher for better."""
    return Metric(title, function=function, spoken=True, meaning=meaning, **more)


METRICS: dict[str, Metric] = {
    "stoi": _spoken("STOI", metrics.stoi, "intelligibility", bounds=(0, 1)),
    "pesq_wb": _spoken(
        *("PESQ-WB", metrics.pesq_wb, "predicted opinion, wide band"),
        digits=2,
        package="pesq",
        bounds=(1, 4.64),
    ),
    "pesq_nb": _spoken(
        *("PESQ-NB", metrics.pesq_nb, "predicted opinion, narrow band"),
        digits=2,
        package="pesq",
        bounds=(1, 4.55),
    ),
    "pitch_error": _spoken(
        *("pitch error", metrics.gross_pitch_error, "share of voiced frames"),
        better="lower",
        bounds=(0, 1),
    ),
    "mel_distance": Metric("mel distance", "lower", metrics.mel_distance),
    "stft_distance": Metric("STFT distance", "lower", metrics.stft_distance),
    "dac_mel_distance": Metric("DAC mel distance", "lower", metrics.dac_mel_distance),
    "spectral_convergence": Metric("spectral convergence", "lower", metrics.spectral_convergence),
    "si_sdr": Metric(
        *("SI-SDR", "higher", lambda one, other, _: metrics.si_sdr(one, other), 1, "dB"),
        bounds=(None, None),
    ),
    "sdr": Metric(
        *("SDR", "higher", lambda one, other, _: metrics.sdr(one, other), 1, "dB"),
        bounds=(None, None),
    ),
    "buzz_share": Metric("buzz share", "lower", metrics.buzz_share, bounds=(0, 1)),
    "speaker_similarity": _spoken(
        "speaker similarity", None, "cosine to the original", bounds=(-1, 1)
    ),
    "opinion_score": _spoken(
        "opinion score", None, "predicted, no reference", digits=2, bounds=(1, 5)
    ),
    "wer": _spoken("WER", None, "word error rate", better="lower"),
    "cer": _spoken("CER", None, "character error rate", better="lower"),
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
    return {name: one for name, one in packages.items() if one and not is_installed(one)}


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
