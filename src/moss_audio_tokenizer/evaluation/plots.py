"""Curves with 95% intervals as PNG, for light and dark pages; it knows no codecs."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import fill
from typing import Any

import numpy as np

from .loading import import_package
from .pages import Figure

# Okabe and Ito's colors, which color-blind readers can distinguish; markers do so again.
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C6BB1", "#7F7F7F")
_MARKERS = "osD^vPX*"
# Paper, ink and grid.
_THEMES = (("#ffffff", "#1b1c20", "#dedfe5"), ("#1d1f25", "#e9eaee", "#33363f"))
_INCHES = (6.4, 4.4)
# Longer titles go on in a second line.
_TITLE_LETTERS = 56
# Longer names, such as paths, are cut: a column of the legend has room for as many letters.
_LONGEST_NAME = 40
# The share of the plot that is left free above and below the means.
_MARGIN = 0.12

Bounds = tuple[float | None, float | None]


@dataclass(frozen=True)
class Curve:
    """Means by bitrate or number of quantizers.

    Attributes:
        name: in the legend.
        points: (position, mean, half width of the interval), from the lowest position.
        color: index of its color and marker; None for a published curve, dashed in ink.
        is_faint: whether it is drawn thin and without a name, to show the scale.
    """

    name: str
    points: Sequence[tuple[float, float, float]]
    color: int | None = None
    is_faint: bool = False


def draw_figure(
    file: str,
    title: str,
    x_label: str,
    curves: Sequence[Curve],
    ticks: Sequence[float],
    bounds: Bounds = (None, None),
) -> Figure:
    """A plot of curves over a logarithmic axis.

    Args:
        file: name below ``plots``, without its ending.
        title: above the plot.
        x_label: below the axis.
        curves: in the order of the legend.
        ticks: of the axis; those outside the curves are left out.
        bounds: values beyond which the axis does not go, for intervals may.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    light, dark = (_png(title, x_label, curves, ticks, bounds, *theme) for theme in _THEMES)
    return Figure(file, title, light, dark)


def _png(
    title: str,
    x_label: str,
    curves: Sequence[Curve],
    ticks: Sequence[float],
    bounds: Bounds,
    paper: str,
    ink: str,
    grid: str,
) -> bytes:
    backend = import_package("matplotlib.backends.backend_agg", "a plot", extra="eval")
    figure = import_package("matplotlib.figure", "a plot", extra="eval")
    plot = figure.Figure(figsize=_INCHES, dpi=130, facecolor=paper, layout="constrained")
    canvas, axes = backend.FigureCanvasAgg(plot), plot.add_subplot(facecolor=paper)
    for curve in curves:
        if curve.points:
            _draw(axes, curve, ink)
    axes.set_title(fill(title, _TITLE_LETTERS), fontsize=14, loc="left", color=ink)
    axes.set_xlabel(x_label, fontsize=12, color=ink)
    _set_axes(axes, [point for curve in curves for point in curve.points], ticks, bounds)
    axes.tick_params(labelcolor=ink, labelsize=12, color=grid)
    axes.grid(color=grid, linewidth=0.8)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(grid)
    _add_legend(plot, ink)
    return _small_png(canvas.buffer_rgba())


def _add_legend(plot: Any, ink: str) -> None:
    """A legend below the plot, where it hides no point, in as many columns as there is room for."""
    for columns in (3, 2, 1):
        legend = plot.legend(
            loc="outside lower center", ncols=columns, fontsize=11, frameon=False, labelcolor=ink
        )
        plot.canvas.draw()
        if columns == 1 or legend.get_window_extent().width <= plot.bbox.width:
            return
        legend.remove()


def _shortened(name: str) -> str:
    """The end of a name that is too long for the legend: a path's end says most."""
    return name if len(name) <= _LONGEST_NAME else f"…{name[1 - _LONGEST_NAME :]}"


def _draw(axes: Any, curve: Curve, ink: str) -> None:
    positions, means, halves = zip(*curve.points, strict=True)
    if curve.color is None:
        style = {"linestyle": ":", "marker": "x", "alpha": 0.4, "linewidth": 1.0, "markersize": 4}
        if not curve.is_faint:
            style = {"linestyle": "--", "marker": ".", "alpha": 0.8, "linewidth": 1.6}
        axes.plot(
            positions, means, color=ink, label=_shortened(curve.name) or None, zorder=1, **style
        )
        return
    axes.errorbar(
        *(positions, means, halves),
        color=_COLORS[curve.color % len(_COLORS)],
        marker=_MARKERS[curve.color % len(_MARKERS)],
        label=_shortened(curve.name),
        capsize=3,
        linewidth=2,
        markersize=6,
        elinewidth=1.2,
    )


def _set_axes(
    axes: Any, points: Sequence[tuple[float, float, float]], ticks: Sequence[float], bounds: Bounds
) -> None:
    """Limits that show all points; of intervals what lies within the bounds.

    An interval that is wider than most, as of two clips, stretches the axis by no more than the
    points' own range or an interval of the usual width.
    """
    axes.set_xscale("log", base=2)
    if points:
        lowest, highest = min(points)[0] / 1.25, max(points)[0] * 1.25
        axes.set_xlim(lowest, highest)
        shown = [tick for tick in ticks if lowest <= tick <= highest]
        axes.set_xticks(shown, [f"{tick:g}" for tick in shown])
        means = [mean for _, mean, _ in points]
        intervals = sorted(interval for _, _, interval in points if interval > 0)
        usual = intervals[len(intervals) // 2] if intervals else 0.0
        stretch = max(max(means) - min(means), usual) or float("inf")
        bottom = max(min(means) - stretch, min(mean - half for _, mean, half in points))
        top = min(max(means) + stretch, max(mean + half for _, mean, half in points))
        room = _MARGIN * (top - bottom) or 1.0
        low, high = bounds
        limits = bottom - room / 2, top + room / 2
        axes.set_ylim(
            limits[0] if low is None else max(low - room / 4, limits[0]),
            limits[1] if high is None else min(high + room / 4, limits[1]),
        )
    axes.minorticks_off()


def _small_png(pixels: Any) -> bytes:
    """A picture in 64 colors, which lines and letters do with, at a third of the size."""
    from PIL import Image  # comes with matplotlib

    picture = io.BytesIO()
    colors = Image.fromarray(np.asarray(pixels)[..., :3].copy()).quantize(
        64, dither=Image.Dither.NONE
    )
    colors.save(picture, "PNG", optimize=True)
    return picture.getvalue()
