"""Rows averaged by bitrate and domain, with 95% intervals, and as a Markdown table."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from math import isfinite
from typing import Any

import numpy as np

from ..errors import MissingDependencyError
from .runner import Row

TITLES = {
    "stoi": "STOI ↑",
    "mel_distance": "mel distance ↓",
    "stft_distance": "STFT distance ↓",
    "si_sdr": "SI-SDR dB ↑",
    "pesq_wb": "PESQ-WB ↑",
    "pesq_nb": "PESQ-NB ↑",
}
"""Metrics as people read them; the arrow points to better."""


@dataclass(frozen=True)
class Average:
    """A mean over clips.

    Attributes:
        mean: over the clips where the metric is defined and finite.
        interval: half width of the 95% confidence interval of the mean (Student's t); None for
            a single clip, of which nothing can be said.
        num_clips: how many clips that were.
    """

    mean: float
    interval: float | None
    num_clips: int


@dataclass(frozen=True)
class Summary:
    """All clips of one domain at one bitrate; a metric undefined for all of them is left out."""

    domain: str
    num_quantizers: int
    kbps: float
    num_clips: int
    metrics: dict[str, Average]

    def as_json(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def summarise(rows: Iterable[Row]) -> list[Summary]:
    """Averages by domain and bitrate, in the order of first appearance; failed clips left out.

    Raises:
        MissingDependencyError: SciPy is not installed.
    """
    groups: dict[tuple[str, int], list[Row]] = {}
    for row in rows:
        if not row.error:
            groups.setdefault((row.domain, row.num_quantizers), []).append(row)
    return [
        Summary(domain, count, members[0].kbps, len(members), _averages(members))
        for (domain, count), members in groups.items()
    ]


def markdown_table(
    summaries: Sequence[Summary], metrics: Sequence[str] = ("stoi", "mel_distance")
) -> str:
    """A table of averages, a line for each domain and bitrate."""
    titles = ["domain", "clips", "quantizers", "kbps", *(TITLES[name] for name in metrics)]
    lines = [titles, ["---", *["---:"] * (len(titles) - 1)]]
    for summary in summaries:
        cells = [_cell(summary.metrics.get(name)) for name in metrics]
        first = [summary.domain or "-", f"{summary.num_clips}", f"{summary.num_quantizers}"]
        lines.append([*first, f"{summary.kbps:g}", *cells])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(average: Average | None) -> str:
    if average is None:
        return "-"
    interval = "" if average.interval is None else f" ± {average.interval:.3f}"
    return f"{average.mean:.3f}{interval}"


def _averages(rows: Sequence[Row]) -> dict[str, Average]:
    names = dict.fromkeys(name for row in rows for name in row.metrics)
    finite = {
        name: [row.metrics[name] for row in rows if isfinite(row.metrics.get(name, np.nan))]
        for name in names
    }
    return {name: _average(values) for name, values in finite.items() if values}


def _average(values: Sequence[float]) -> Average:
    count = len(values)
    if count == 1:
        return Average(float(values[0]), None, 1)
    error = float(np.std(values, ddof=1)) / count**0.5
    return Average(float(np.mean(values)), _student_t(count - 1) * error, count)


def _student_t(degrees_of_freedom: int) -> float:
    """The factor of a two-sided 95% interval: 1.96 for many clips, 3.18 for four."""
    try:
        from scipy.special import stdtrit
    except ImportError as error:
        raise MissingDependencyError(
            "confidence intervals need SciPy: pip install 'moss-audio-tokenizer[eval]'"
        ) from error
    return float(stdtrit(degrees_of_freedom, 0.975))
