"""Rows and codes of a run as figures: averages with 95% intervals, and the use of codebooks.

Also as tables and as CSV. Knows no codecs.
"""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite, nan

import numpy as np
from jaxtyping import Integer

from .clip_results import Row
from .loading import import_package
from .metric_registry import METRICS
from .pages import Table

# Error rates are errors over words of all clips together, not means of clips' rates.
_WEIGHTS = {"wer": "num_words", "cer": "num_characters"}


def speech_first(domains: Iterable[str]) -> list[str]:
    """Each domain once, in their order, but speech first: its metrics say the most."""
    return sorted(dict.fromkeys(domains), key=lambda domain: domain != "speech")


def domain_heading(domain: str) -> str:
    """A domain as a heading."""
    return domain[:1].upper() + domain[1:]


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
    """All clips of one domain and language through one model at one bitrate.

    Attributes:
        language: of the clips; "" for all together.
        kbps: nominal; actual_kbps is the mean and delay_ms the median over clips.
        num_clips: that went through; num_failed did not.
        metrics: averages by name; what is undefined for all clips is left out.
        published: the data that the paper measured on; "" for a measured summary.
    """

    model: str
    num_quantizers: int | None
    domain: str
    language: str
    kbps: float
    actual_kbps: float
    delay_ms: float
    num_clips: int
    num_failed: int
    metrics: dict[str, Average]
    published: str = ""


def summarize(rows: Iterable[Row], by_language: bool = False) -> list[Summary]:
    """Averages by domain, model and bitrate, in the order of first appearance.

    Args:
        rows: of one run.
        by_language: whether each language of a domain is a group of its own; clips of unknown
            language are then left out.

    Raises:
        MissingDependencyError: SciPy is not installed.
    """
    groups: dict[tuple[str, str, str, int | None], list[Row]] = {}
    for row in rows:
        if by_language and not row.language:
            continue
        language = row.language if by_language else ""
        groups.setdefault((row.domain, language, row.model, row.num_quantizers), []).append(row)
    return [_summary(language, members) for (_, language, _, _), members in groups.items()]


def _summary(language: str, rows: Sequence[Row]) -> Summary:
    good = [row for row in rows if not row.error]
    first = (good or rows)[0]
    return Summary(
        *(first.model, first.num_quantizers, first.domain, language, first.kbps),
        actual_kbps=float(np.mean([row.actual_kbps for row in good])) if good else 0.0,
        delay_ms=float(np.median([row.delay_ms for row in good])) if good else 0.0,
        num_clips=len(good),
        num_failed=len(rows) - len(good),
        metrics=averages(
            {
                name: [(row.metrics.get(name, nan), _weight(row, name)) for row in good]
                for name in dict.fromkeys(name for row in good for name in row.metrics)
            }
        ),
    )


def summary_table(summaries: Sequence[Summary], caption: str = "") -> Table:
    """A row for each summary, with every metric that any of them has."""
    metrics = [name for name in METRICS if any(name in one.metrics for one in summaries)]
    first = ["language"] if any(one.language for one in summaries) else []
    heads = [*first, "model", "quantizers", "kbps", "actual kbps", "clips"]
    rows = []
    for one in summaries:
        name = f"{one.model} (published)" if one.published else one.model
        cells = [average_cell(one.metrics.get(name), METRICS[name].digits) for name in metrics]
        rows.append([*([one.language] if first else []), name, *_rates(one), *cells])
    return Table([*heads, *(METRICS[name].heading for name in metrics)], rows, caption)


def _rates(one: Summary) -> list[str]:
    failed = f" ({one.num_failed} failed)" if one.num_failed else ""
    layers = "-" if one.num_quantizers is None else f"{one.num_quantizers}"
    if one.published:
        return [layers, f"{one.kbps:g}", "-", "-"]
    return [layers, f"{one.kbps:g}", f"{one.actual_kbps:.2f}", f"{one.num_clips}{failed}"]


def average_cell(average: Average | None, digits: int) -> str:
    """A mean and its interval as a table shows them; a dash where there is none."""
    if average is None:
        return "-"
    interval = "" if average.interval is None else f" ± {average.interval:.{digits}f}"
    return f"{average.mean:.{digits}f}{interval}"


def csv_table(summaries: Sequence[Summary]) -> str:
    """Every figure as CSV: for each metric its mean, its interval and its number of clips."""
    names = [name for name in METRICS if any(name in one.metrics for one in summaries)]
    rates = ("kbps", "actual_kbps", "delay_ms")
    facts = ("domain", "language", "model", "num_quantizers", *rates, "num_clips", "num_failed")
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    parts = ("mean", "interval", "num_clips")
    writer.writerow([*facts, *(f"{name}_{part}" for name in names for part in parts)])
    for one in summaries:
        values = [getattr(one.metrics.get(name), part, None) for name in names for part in parts]
        writer.writerow([*(getattr(one, fact) for fact in facts), *values])
    return text.getvalue()


def averages(figures: Mapping[str, Iterable[tuple[float, float]]]) -> dict[str, Average]:
    """Weighted means by name, from (value, weight) pairs; undefined values are left out."""
    found = {}
    for name, pairs in figures.items():
        defined = [(value, weight) for value, weight in pairs if isfinite(value) and weight > 0]
        if defined:
            found[name] = average(*zip(*defined, strict=True))
    return found


def _weight(row: Row, name: str) -> float:
    return float(getattr(row, _WEIGHTS[name])) if name in _WEIGHTS else 1.0


def average(values: Sequence[float], weights: Sequence[float] | None = None) -> Average:
    """The weighted mean of values, with the interval of a ratio of two means.

    Source of the interval: Cochran, "Sampling Techniques", 1977, section 2.11; with equal weights
    it is the usual one.

    Raises:
        MissingDependencyError: SciPy is not installed.
    """
    x = np.asarray(values, np.float64)
    w = np.ones_like(x) if weights is None else np.asarray(weights, np.float64)
    mean = float((w * x).sum() / w.sum())
    if len(x) == 1:
        return Average(mean, None, 1)
    spread = float(np.sqrt(((w * (x - mean)) ** 2).sum() / (len(x) - 1)))
    error = spread / (len(x) ** 0.5 * float(w.mean()))
    return Average(mean, _student_t(len(x) - 1) * error, len(x))


def _student_t(degrees_of_freedom: int) -> float:
    """The factor of a two-sided 95% interval: 1.96 for many clips, 3.18 for four."""
    special = import_package("scipy.special", "a confidence interval", extra="eval")
    return float(special.stdtrit(degrees_of_freedom, 0.975))


@dataclass(frozen=True)
class CodeStatistics:
    """Codes of one model, counted; the entropy is too low where frames are few.

    Attributes:
        used: share of the entries that occur, for each layer.
        perplexity: 2 to the entropy, for each layer: the entries that would do if all were equal.
        entropy_bits: bits a code and layer.
        nominal_kbps: at which every code is stored whole.
        achievable_kbps: at which an ideal coder would store them, layers taken one by one.
    """

    num_frames: int
    codebook_size: int
    used: tuple[float, ...]
    perplexity: tuple[float, ...]
    entropy_bits: tuple[float, ...]
    nominal_kbps: float
    achievable_kbps: float


def code_statistics(
    clips: Iterable[Integer[np.ndarray, "num_quantizers frames"]],
    codebook_size: int,
    frame_rate: float,
) -> CodeStatistics:
    """Statistics of the codes of one or more clips, all with the same number of layers."""
    codes = np.concatenate(list(clips), axis=1)
    counts = np.stack([np.bincount(layer, minlength=codebook_size) for layer in codes])
    shares = counts / codes.shape[1]
    logs = np.log2(shares, where=shares > 0, out=np.zeros_like(shares))
    entropy = np.abs((shares * logs).sum(1))
    bits = (codebook_size - 1).bit_length()
    return CodeStatistics(
        num_frames=codes.shape[1],
        codebook_size=codebook_size,
        used=tuple((counts > 0).mean(1).tolist()),
        perplexity=tuple((2.0**entropy).tolist()),
        entropy_bits=tuple(entropy.tolist()),
        nominal_kbps=len(codes) * bits * frame_rate / 1000,
        achievable_kbps=float(entropy.sum()) * frame_rate / 1000,
    )


def statistics_table(statistics: Mapping[str, CodeStatistics]) -> Table:
    """A row for some layers of every model: the first, second, fourth, eighth ... and the last."""
    rows = []
    for name, one in statistics.items():
        bits, count = (one.codebook_size - 1).bit_length(), len(one.used)
        for layer in sorted({2**power - 1 for power in range(count.bit_length())} | {count - 1}):
            shares = f"{one.used[layer]:.1%}", f"{one.perplexity[layer]:.0f}"
            entropy = f"{one.entropy_bits[layer]:.2f}"
            rows.append((name, f"{layer + 1}", *shares, entropy, f"{bits}"))
    totals = [
        f"{name}: {one.achievable_kbps:.2f} kbps by the entropy of {one.num_frames} frames, "
        f"layer by layer; {one.nominal_kbps:.2f} kbps as stored."
        for name, one in statistics.items()
    ]
    heads = ("model", "layer", "entries used", "perplexity", "entropy, bits", "bits stored")
    return Table(heads, rows, " ".join(totals))
