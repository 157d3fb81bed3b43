"""One self-contained HTML page: clips and what codecs made of them, to play, see and compare.

Owns the page's parts: tables, curves, and a card with player, spectrogram and figures for every
version of a clip. The pictures are from `spectrograms` and `plots`, the numbers from
`metric_registry`. Knows nothing of codecs. The page has no script and loads nothing: sound (FLAC)
and pictures are inside it.
"""

import base64
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from math import isnan
from pathlib import Path

import numpy as np
from jaxtyping import Float

from ..audio import convert_channels, read_audio, resample, save_audio
from ..errors import AudioError
from .html import page
from .metric_registry import DEFAULT_METRICS, METRICS, measure
from .spectrograms import (
    DIFFERENCE_DECIBELS,
    difference_png,
    frequency_height,
    log_mel,
    shared_scale,
    spectrogram_png,
)

_TICKS_KILOHERTZ = (0.5, 1, 2, 4, 8, 16)
_MOST_TICKS_SECONDS = 6
# A cell without a value, which a phone leaves out.
_EMPTY = ' class="empty"'


@dataclass(frozen=True)
class Reconstruction:
    """A clip after a codec.

    Attributes:
        num_quantizers: layers of the quantizer that were decoded.
        kbps: nominal bitrate, in kilobits a second.
        audio: samples, in -1 .. 1, at the rate of the original.
        values: metrics of `metric_registry.DEFAULT_METRICS` by name; measured here when None.
    """

    num_quantizers: int
    kbps: float
    audio: Float[np.ndarray, "channels samples"]
    values: Mapping[str, float] | None = None


@dataclass(frozen=True)
class Version:
    """What a page shows of one version of a clip.

    Attributes:
        name: such as "Original" or "opus:6".
        kbps: bitrate, in kilobits a second.
        audio: samples, in -1 .. 1.
        sampling_rate: samples a second of the audio.
        values: metrics by name; none for the original.
        note: shown below the values.
    """

    name: str
    kbps: float
    audio: Float[np.ndarray, "channels samples"]
    sampling_rate: int
    values: Mapping[str, float] = field(default_factory=dict)
    note: str = ""


@dataclass(frozen=True)
class Table:
    """Cells of text; the first of each row names it.

    Attributes:
        headings: one for each column.
        rows: as many cells each; HTML is escaped.
        caption: below the table.
    """

    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""


@dataclass(frozen=True)
class Curve:
    """A plot twice, for light and for dark pages, as PNG."""

    name: str
    light: bytes
    dark: bytes


def build_report(
    title: str,
    command: str,
    model: str,
    original: Float[np.ndarray, "channels samples"],
    sampling_rate: int,
    reconstructions: Sequence[Reconstruction],
) -> str:
    """The page of one clip as HTML text; reconstructions appear in their order.

    Args:
        title: what was reconstructed, such as the file name.
        command: the command line that made the page.
        model: name and identity of the model.
        original: samples, in -1 .. 1.
        sampling_rate: samples a second of everything.
        reconstructions: what the codec made of it.

    Raises:
        AudioError: a clip without samples, or with samples that are not finite.
        MissingDependencyError: matplotlib or pystoi is not installed.
    """
    if not (original.size and np.isfinite(original).all()):
        raise AudioError(
            f"the original has shape {original.shape}; expected finite samples, at least one"
        )
    versions = [_measured(item, original, sampling_rate) for item in reconstructions]
    names = [name for name in DEFAULT_METRICS if any(name in one.values for one in versions)]
    rows = [(one.name, f"{one.kbps:.3f}", *shown_values(one.values, names)) for one in versions]
    headings = ("quantizers", "kbps", *(METRICS[name].heading for name in names))
    caption = "Measured on the mean of the channels, at 16 kHz. Arrows point to better."
    if any(METRICS[name].spoken for name in names):
        caption += " STOI and pitch error are for speech only."
    return page(
        escape(title),
        "\n".join(
            (
                header(title, [f"{describe(original, sampling_rate)} · model {model}"], command),
                table_html(Table(headings, rows, caption)),
                f"<main>{exhibit_html(original_version(original, sampling_rate), versions)}</main>",
            )
        ),
    )


def _measured(item: Reconstruction, original: np.ndarray, sampling_rate: int) -> Version:
    # A codec answers in whole frames: what it adds past the end is neither shown nor played.
    audio = item.audio[:, : original.shape[1]]
    plural = "" if item.num_quantizers == 1 else "s"
    values = measure(original, audio, sampling_rate) if item.values is None else item.values
    name = f"{item.num_quantizers} quantizer{plural}"
    return Version(name, item.kbps, audio, sampling_rate, values)


def original_version(audio: Float[np.ndarray, "channels samples"], sampling_rate: int) -> Version:
    """The original as the first version of a clip."""
    kbps = sampling_rate * len(audio) * 16 / 1000
    note = "16-bit samples, as they went into the codec"
    return Version("Original", kbps, audio, sampling_rate, note=note)


def beginning(path: Path, seconds: int) -> tuple[Float[np.ndarray, "1 samples"], int]:
    """The first seconds of a file in mono, and its rate."""
    samples, rate = read_audio(path)
    return convert_channels(samples[:, : seconds * rate], 1), rate


def describe(audio: Float[np.ndarray, "channels samples"], sampling_rate: int) -> str:
    """Length, rate and channels of a clip, for people."""
    channels, samples = audio.shape
    layout = {1: "mono", 2: "stereo"}.get(channels, f"{channels} channels")
    return f"{samples / sampling_rate:.2f} s, {sampling_rate / 1000:g} kHz, {layout}"


def header(title: str, lines: Sequence[str], command: str = "") -> str:
    """The head of a page; everything is escaped here."""
    paragraphs = "\n".join(f"<p>{escape(line)}</p>" for line in lines)
    code = f"\n<code>{escape(command)}</code>" if command else ""
    return f"<header>\n<h1>{escape(title)}</h1>\n{paragraphs}{code}\n</header>"


def table_html(table: Table) -> str:
    """A table that fits the page: on a phone each row is a block. Everything is escaped here."""
    heads = "".join(f'<th scope="col">{escape(text)}</th>' for text in table.headings)
    rows = "\n".join(_row(row, table.headings) for row in table.rows)
    note = f'\n<p class="note">{escape(table.caption)}</p>' if table.caption else ""
    return (
        '<div class="card table">\n<div class="scroll">\n'
        f"<table>\n<thead><tr>{heads}</tr></thead>\n<tbody>\n{rows}\n</tbody>\n</table>\n"
        f"</div>{note}\n</div>"
    )


def _row(cells: Sequence[str], headings: Sequence[str]) -> str:
    """Cells that know their headings; an interval stands smaller below its mean."""
    values = "".join(
        f'<td data-label="{escape(heading)}"{_EMPTY if cell == "-" else ""}>{_value(cell)}</td>'
        for cell, heading in zip(cells[1:], headings[1:], strict=True)
    )
    name, remark, note = cells[0].partition(" (")
    first = f"{escape(name)} <small>{escape(remark + note)}</small>" if note else escape(name)
    return f'<tr><th scope="row">{first}</th>{values}</tr>'


def _value(cell: str) -> str:
    mean, sign, interval = cell.partition(" \u00b1 ")
    shown = f"{escape(mean)}<small>{sign}{escape(interval)}</small>" if sign else escape(mean)
    return f"<span>{shown}</span>"


def notes_html(title: str, lines: Sequence[str]) -> str:
    """A list of remarks below a heading; everything is escaped here."""
    items = "\n".join(f"<li>{escape(line)}</li>" for line in lines)
    return f"<h2>{escape(title)}</h2>\n<ul>\n{items}\n</ul>"


def curves_html(curves: Sequence[Curve]) -> str:
    """Plots side by side; the browser picks the one that suits the page."""
    figures = "\n".join(
        f'<figure class="card" style="margin:0"><picture>'
        f'<source media="(prefers-color-scheme: dark)" srcset="{data_url("image/png", one.dark)}">'
        f'<img alt="{escape(one.name)}" src="{data_url("image/png", one.light)}">'
        f"</picture></figure>"
        for one in curves
    )
    return f'<div class="curves">\n{figures}\n</div>'


def shown_values(values: Mapping[str, float], names: Sequence[str] = DEFAULT_METRICS) -> list[str]:
    """Values as people read them."""
    return [shown_value(values.get(name, float("nan")), name) for name in names]


def shown_value(value: float, name: str) -> str:
    """A value as print has it; an undefined one is a dash, an infinite one the sign."""
    if isnan(value):
        return "\N{EN DASH}"
    text = f"{value:.{METRICS[name].digits}f}"
    return text.replace("-", "\N{MINUS SIGN}").replace("inf", "\N{INFINITY}")


def exhibit_html(original: Version, versions: Sequence[Version]) -> str:
    """Cards of a clip: the original, then each version, with pictures on the original's scale."""
    rate = original.sampling_rate
    reference = log_mel(original.audio, rate)
    scale = shared_scale(reference)
    cards = [_card(original, reference, None, scale, rate)]
    for version in versions:
        level = log_mel(_at_rate(version, rate, original.audio.shape[1]), rate)
        cards.append(_card(version, level, reference, scale, rate))
    return '<div class="cards">\n' + "\n".join(cards) + "\n</div>"


def gallery_html(versions: Sequence[Version]) -> str:
    """Cards of sounds that do not belong together in time: each with its own picture and scale."""
    levels = [log_mel(version.audio, version.sampling_rate) for version in versions]
    cards = [
        _card(version, level, None, shared_scale(level), version.sampling_rate)
        for version, level in zip(versions, levels, strict=True)
    ]
    return '<div class="cards">\n' + "\n".join(cards) + "\n</div>"


def _at_rate(version: Version, rate: int, num_samples: int) -> np.ndarray:
    """A version's audio with as many samples as the original, so that columns fall together."""
    audio = resample(version.audio, version.sampling_rate, rate)
    return np.pad(audio, ((0, 0), (0, max(0, num_samples - audio.shape[1]))))[:, :num_samples]


def _card(
    version: Version,
    level: np.ndarray,
    reference: np.ndarray | None,
    scale: tuple[float, float],
    rate: int,
) -> str:
    name = escape(version.name)
    picture = data_url("image/png", spectrogram_png(level, scale))
    sound = data_url("audio/flac", flac(version.audio, version.sampling_rate))
    seconds = version.audio.shape[1] / version.sampling_rate
    return f"""<section class="card">
<h3>{name} <small>{version.kbps:.4g} kbps</small></h3>
<audio controls preload="metadata" aria-label="{name}" src="{sound}"></audio>
<figure class="plot"><div class="axes">
<img width="960" height="384" alt="Log-mel spectrogram, {name.lower()}" src="{picture}">
{_axes(seconds, rate)}
</div></figure>
{_difference(version, level, reference, scale)}
{_values(version)}
</section>"""


def _difference(
    version: Version, level: np.ndarray, reference: np.ndarray | None, scale: tuple[float, float]
) -> str:
    if reference is None:
        return ""
    picture = data_url("image/png", difference_png(level, reference, scale))
    return f"""<figure class="plot difference">
<figcaption>Difference from the original: orange is more, blue is less, to \
{DIFFERENCE_DECIBELS:g} dB</figcaption>
<img width="960" height="192" alt="Difference spectrogram, {escape(version.name).lower()}"
 src="{picture}">
</figure>"""


def _axes(seconds: float, sampling_rate: int) -> str:
    """Labels as text of the page, so that they stay readable when a phone shrinks the picture."""
    kilohertz = "".join(
        f'<span style="bottom:{100 * frequency_height(1000 * tick, sampling_rate):.2f}%">'
        f"{tick:g}</span>"
        for tick in _TICKS_KILOHERTZ
        if tick <= sampling_rate / 2000
    )
    ticks = "".join(
        f'<span style="left:{100 * tick / seconds:.2f}%">{tick:g}</span>'
        for tick in _second_ticks(seconds)
    )
    return (
        f'<div class="kilohertz" aria-hidden="true"><span class="unit">kHz</span>{kilohertz}</div>'
        f'<div class="seconds" aria-hidden="true">{ticks}<span class="unit">seconds</span></div>'
    )


def _second_ticks(seconds: float) -> list[float]:
    """Round numbers from 0, at most six steps, and none so near the end that it would stick out."""
    power = 10.0 ** np.floor(np.log10(seconds / _MOST_TICKS_SECONDS))
    step = next(s for s in (1, 2, 5, 10) if s * power >= seconds / _MOST_TICKS_SECONDS) * power
    return [float(tick) for tick in np.arange(0.0, 0.98 * seconds, step).round(9)]


def _values(version: Version) -> str:
    note = f'<p class="note">{escape(version.note)}</p>' if version.note else ""
    if not version.values:
        return note
    items = "".join(
        f"<div><dt>{escape(METRICS[name].heading)}</dt><dd>{shown_value(value, name)}</dd></div>"
        for name, value in version.values.items()
    )
    return f"<dl>{items}</dl>{note}"


def data_url(kind: str, content: bytes) -> str:
    """Content inside the page."""
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


def flac(audio: Float[np.ndarray, "channels samples"], sampling_rate: int) -> bytes:
    """A 16-bit FLAC file; what exceeds full scale is clipped, as a sound card would."""
    with tempfile.TemporaryDirectory(prefix="moss-audio-") as folder:
        path = Path(folder) / "sound.flac"
        save_audio(path, audio, sampling_rate)
        return path.read_bytes()
