"""Curves of quality by bitrate or number of quantizers, as PNG, for light and dark pages."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import MissingDependencyError
from .metric_registry import METRICS
from .published import OURS, PUBLISHED, short_name
from .summary import Summary

# Okabe and Ito's colors, which color-blind readers can distinguish; markers do so again.
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C6BB1", "#7F7F7F")
_MARKERS = "osD^vPX*"
_INKS = {"light": ("#ffffff", "#1b1c20", "#dedfe5"), "dark": ("#1d1f25", "#e9eaee", "#33363f")}
_INCHES = (5.2, 3.6)
# Marks of a scale, not codecs: their hundreds of kilobits would press all others into a corner.
_ANCHORS = ("original", "lowpass")
_RATE_TICKS = (0.125, 0.25, 0.5, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


def family(model: str) -> str:
    """What is drawn as one curve: "opus" of "opus:6", "encodec:folder" of "encodec:folder@6"."""
    if "@" in model:
        return model.rpartition("@")[0]
    kind, colon, value = model.partition(":")
    return kind if colon and value.replace(".", "").rstrip("C").isdigit() else model


def curves(summaries: Sequence[Summary], metric: str) -> dict[str, list[Summary]]:
    """The codecs' summaries that have a metric, by family, from the lowest rate to the highest."""
    found: dict[str, list[Summary]] = {}
    for one in summaries:
        if metric in one.metrics and family(one.model) not in _ANCHORS:
            found.setdefault(family(one.model), []).append(one)
    return {name: sorted(points, key=_rate) for name, points in found.items()}


def _rate(summary: Summary) -> float:
    return summary.actual_kbps


def rate_plot(
    summaries: Sequence[Summary],
    metric: str,
    families: Sequence[str],
    theme: str = "light",
    published: Sequence[Summary] = (),
) -> bytes:
    """A metric against the actual bitrate, a curve for each family, as PNG.

    Args:
        summaries: of one domain.
        metric: its name.
        families: all that the page shows, so that each keeps its color in every plot.
        theme: "light" or "dark".
        published: rows of the paper, drawn as thin lines with their names beside.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    paper, ink, grid = _INKS[theme]
    canvas, axes = _empty_plot(paper)
    beside = curves(published, metric)
    _draw_published(axes, beside, metric, ink)
    found = curves(summaries, metric)
    for name, points in found.items():
        _draw(axes, name, points, metric, list(families).index(name))
    axes.set_title(METRICS[metric].heading, fontsize=11, loc="left", color=ink)
    drawn = [*found.values(), *beside.values()]
    _dress(axes, [one.actual_kbps for points in drawn for one in points])
    _color(axes, ink, grid)
    return _finished(canvas)


@dataclass(frozen=True)
class LayerCurve:
    """A figure by the number of quantizers.

    Attributes:
        name: in the legend.
        points: (number of quantizers, mean, half width of the interval), from few to many.
    """

    name: str
    points: Sequence[tuple[int, float, float]]


def layer_plot(curves: Sequence[LayerCurve], title: str, theme: str = "light") -> bytes:
    """Curves against the number of quantizers, as PNG; a curve keeps its color by its index.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    paper, ink, grid = _INKS[theme]
    canvas, axes = _empty_plot(paper)
    for index, curve in enumerate(curves):
        if curve.points:
            _errorbar(axes, curve.name, list(zip(*curve.points, strict=True)), index)
    axes.set_title(title, fontsize=11, loc="left", color=ink)
    axes.set_xlabel("quantizers", fontsize=9)
    axes.set_xscale("log", base=2)
    # From zero, which an interval's end does not move.
    axes.set_ylim(bottom=min([0.0, *(mean for curve in curves for _, mean, _ in curve.points)]))
    ticks = sorted({count for curve in curves for count, _, _ in curve.points})
    axes.set_xticks(ticks, [f"{tick}" for tick in ticks])
    axes.minorticks_off()
    _color(axes, ink, grid)
    return _finished(canvas)


def _empty_plot(paper: str) -> tuple[Any, Any]:
    """A canvas and its axes."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingDependencyError(
            "plots need matplotlib: pip install 'moss-audio-tokenizer[eval]'"
        ) from error
    figure = Figure(figsize=_INCHES, dpi=130, facecolor=paper, layout="constrained")
    return FigureCanvasAgg(figure), figure.add_subplot(facecolor=paper)


def _finished(canvas: Any) -> bytes:
    canvas.draw()
    return _small_png(canvas.buffer_rgba())


def _small_png(pixels: Any) -> bytes:
    """A picture in 64 colors, which lines and letters do with, at a third of the size."""
    from PIL import Image  # comes with matplotlib

    picture = io.BytesIO()
    colors = Image.fromarray(np.asarray(pixels)[..., :3].copy()).quantize(
        64, dither=Image.Dither.NONE
    )
    colors.save(picture, "PNG", optimize=True)
    return picture.getvalue()


def _draw(axes: Any, name: str, points: Sequence[Summary], metric: str, index: int) -> None:
    rates = [point.actual_kbps for point in points]
    means = [point.metrics[metric].mean for point in points]
    errors = [point.metrics[metric].interval or 0.0 for point in points]
    _errorbar(axes, name, (rates, means, errors), index)


def _draw_published(axes: Any, found: dict[str, list[Summary]], metric: str, ink: str) -> None:
    """Reference lines: the paper's own codec dashed, the others thin and dotted."""
    for name, points in found.items():
        ours = name == OURS
        rates = [point.actual_kbps for point in points]
        means = [point.metrics[metric].mean for point in points]
        axes.plot(
            *(rates, means),
            color=ink,
            alpha=0.8 if ours else 0.4,
            linestyle="--" if ours else ":",
            linewidth=1.4 if ours else 1.0,
            marker="." if ours else "x",
            markersize=5 if ours else 4,
            label=f"{short_name(name)} ({PUBLISHED})" if ours else None,
            zorder=1,
        )
        if not ours:
            axes.annotate(
                *(short_name(name), (rates[-1], means[-1])),
                xytext=(3, 0),
                textcoords="offset points",
                va="center",
                fontsize=6,
                color=ink,
                alpha=0.6,
            )


def _errorbar(axes: Any, name: str, values: Sequence[Sequence[float]], index: int) -> None:
    """A curve of positions, means and half widths of intervals."""
    axes.errorbar(
        *values,
        color=_COLORS[index % len(_COLORS)],
        marker=_MARKERS[index % len(_MARKERS)],
        label=name,
        capsize=3,
        linewidth=1.6,
        markersize=5,
        elinewidth=1.0,
    )


def _dress(axes: Any, rates: Sequence[float]) -> None:
    axes.set_xlabel("actual kbps", fontsize=9)
    axes.set_xscale("log", base=2)
    if rates:
        lowest, highest = min(rates) / 1.25, max(rates) * 1.25
        axes.set_xlim(lowest, highest)
        ticks = [tick for tick in _RATE_TICKS if lowest <= tick <= highest]
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()


def _color(axes: Any, ink: str, grid: str) -> None:
    axes.tick_params(colors=ink, labelsize=9, color=grid)
    axes.grid(color=grid, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.xaxis.label.set_color(ink)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(grid)
    legend = axes.legend(fontsize=8, frameon=False)
    for text in legend.get_texts() if legend else ():
        text.set_color(ink)
