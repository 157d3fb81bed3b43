"""Pictures of reports, as PNG: curves with 95% intervals, and log-mel spectrograms.

Curves come for light and for dark pages. A spectrogram is a picture without any writing on it, one
pixel for each value, on a scale that versions of a clip share; a page asks here where a frequency
lies. Knows no codecs.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from textwrap import fill
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from ..metrics.signals import hertz_to_mel, magnitude_blocks, mel_filters
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
# Of spectrograms, and of differences between them.
RANGE_DECIBELS = 80.0
DIFFERENCE_DECIBELS = 30.0
NUM_MELS = 128
_WINDOW_SECONDS = 0.045
_MOST_COLUMNS = 800
_LOUDER, _QUIETER = (255, 140, 40), (60, 150, 255)

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


def log_mel(
    audio: Float[np.ndarray, "channels samples"], sampling_rate: int
) -> Float[np.ndarray, "mels columns"]:
    """Mel power in dB of a clip mixed down to mono, from 0 Hz to Nyquist.

    A long clip is sampled at 800 instants: each column shows the spectrum at its own.
    """
    window = 2 ** round(np.log2(_WINDOW_SECONDS * sampling_rate))
    mono = audio.mean(axis=0, dtype=np.float64)
    hop = max(window // 4, -(-len(mono) // _MOST_COLUMNS))
    filters = mel_filters(sampling_rate, window, NUM_MELS).T
    mel = np.concatenate([block @ filters for block in magnitude_blocks(mono, window, hop)])
    return 20.0 * np.log10(np.maximum(mel, 1e-5)).T


def shared_scale(decibels: Float[np.ndarray, "mels columns"]) -> tuple[float, float]:
    """The limits (dB) that show a clip from its loudest point down by 80 dB."""
    loudest = float(decibels.max())
    return loudest - RANGE_DECIBELS, loudest


def spectrogram_png(
    decibels: Float[np.ndarray, "mels columns"], scale: tuple[float, float]
) -> bytes:
    """A log-mel spectrogram as PNG, a pixel for each value, low frequencies at the bottom.

    Raises:
        MissingDependencyError: matplotlib, whose colors these are, is not installed.
    """
    lowest, highest = scale
    return _in_colors(_indexed((decibels - lowest) / (highest - lowest)), _magma())


def difference_png(
    decibels: Float[np.ndarray, "mels columns"],
    original: Float[np.ndarray, "mels columns"],
    scale: tuple[float, float],
) -> bytes:
    """What a version has more (orange) or less (blue) than the original, to 30 dB; black is none.

    What lies below the scale in either counts as being at its lower end: nobody sees it there.
    """
    columns = min(decibels.shape[1], original.shape[1])
    pair = (np.maximum(level[:, :columns], scale[0]) for level in (decibels, original))
    version, reference = pair
    return _in_colors(
        _indexed(0.5 + (version - reference) / (2 * DIFFERENCE_DECIBELS)), _diverging()
    )


def frequency_height(hertz: float, sampling_rate: int) -> float:
    """Where a frequency lies in a picture: 0 at the lower edge, 1 at the upper."""
    mel, highest = hertz_to_mel(np.array([hertz, sampling_rate / 2]))
    return float(mel / highest)


def _indexed(shares: Float[np.ndarray, "mels columns"]) -> UInt8[np.ndarray, "mels columns"]:
    """Numbers of colors; 0 and below is the first, 1 and above the last."""
    return np.rint(255 * np.clip(shares, 0.0, 1.0)).astype(np.uint8)


@lru_cache(maxsize=1)
def _magma() -> bytes:
    matplotlib = import_package("matplotlib", "a spectrogram", extra="eval")
    return matplotlib.colormaps["magma"](np.arange(256), bytes=True)[:, :3].tobytes()


@lru_cache(maxsize=1)
def _diverging() -> bytes:
    """From blue over black to orange: the middle is dark, as silence is in the other pictures."""
    share = np.linspace(-1.0, 1.0, 256)[:, None]
    colors = np.abs(share) * np.where(share < 0, np.array(_QUIETER), np.array(_LOUDER))
    return np.rint(colors).astype(np.uint8).tobytes()


def _in_colors(indices: UInt8[np.ndarray, "mels columns"], palette: bytes) -> bytes:
    """One pixel for each value, by way of a palette: a quarter of the bytes of full color."""
    from PIL import Image  # comes with matplotlib

    picture, content = Image.fromarray(indices[::-1]), io.BytesIO()
    picture.putpalette(palette)
    picture.save(content, "PNG", optimize=True)
    return content.getvalue()
