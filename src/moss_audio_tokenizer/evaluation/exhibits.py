"""Sounds on a page: a player, a spectrogram and figures for every version of a clip.

Owns the cards; pictures are from `pictures`, numbers from `metric_registry`. Knows nothing of
codecs.
"""

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from html import escape
from math import isnan
from pathlib import Path

import numpy as np
from jaxtyping import Float

from ..audio import convert_channels, read_audio, resample, save_audio
from ..errors import AudioError
from .metric_registry import METRICS
from .pages import Report, Section, Table, data_url
from .pictures import (
    DIFFERENCE_DECIBELS,
    difference_png,
    frequency_height,
    log_mel,
    shared_scale,
    spectrogram_png,
)

_TICKS_KILOHERTZ = (0.5, 1, 2, 4, 8, 16)
_MOST_TICKS_SECONDS = 6


@dataclass(frozen=True)
class Version:
    """What a page shows of one version of a clip.

    Attributes:
        name: such as "Original" or "opus:6".
        audio: samples, in -1 .. 1.
        values: metrics by name; none for the original.
        note: shown below the values.
    """

    name: str
    kbps: float
    audio: Float[np.ndarray, "channels samples"]
    sampling_rate: int
    values: Mapping[str, float] = field(default_factory=dict)
    note: str = ""


def build_report(
    title: str,
    command: str,
    model: str,
    original: Float[np.ndarray, "channels samples"],
    versions: Sequence[Version],
) -> str:
    """The page of one clip as HTML text; versions appear in their order.

    Args:
        title: what was reconstructed, such as the file name.
        command: the command line that made the page.
        model: name and identity of the model.
        original: samples, in -1 .. 1, at the rate of the versions.
        versions: what the codec made of it; what goes past its end is neither shown nor played.

    Raises:
        AudioError: a clip without samples, or with samples that are not finite.
        MissingDependencyError: matplotlib is not installed.
    """
    if not (original.size and np.isfinite(original).all()):
        raise AudioError(
            f"the original has shape {original.shape}; expected finite samples, at least one"
        )
    rate = versions[0].sampling_rate
    versions = [replace(one, audio=one.audio[:, : original.shape[1]]) for one in versions]
    names = [name for name in METRICS if any(name in one.values for one in versions)]
    rows = [
        [one.name, f"{one.kbps:.3f}", *(shown_value(one.values[name], name) for name in names)]
        for one in versions
    ]
    headings = ("version", "kbps", *(METRICS[name].heading for name in names))
    caption = "Measured on the mean of the channels, at 16 kHz. Arrows point to better."
    if any(METRICS[name].spoken for name in names):
        caption += " STOI and pitch error are for speech only."
    exhibit = exhibit_html(original_version(original, rate), versions)
    sections = [Section(table=Table(headings, rows, caption)), Section(html=exhibit)]
    return Report(title, command, f"{describe(original, rate)} · model {model}", sections).html()


def quantizers(count: int) -> str:
    """A number of quantizers in words."""
    return f"{count} quantizer{'' if count == 1 else 's'}"


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


def shown_value(value: float, name: str) -> str:
    """A value as print has it; an undefined one is a dash, an infinite one the sign."""
    if isnan(value):
        return "\N{EN DASH}"
    text = f"{value:.{METRICS[name].digits}f}"
    return text.replace("-", "\N{MINUS SIGN}").replace("inf", "\N{INFINITY}")


def exhibit_html(original: Version, versions: Sequence[Version]) -> str:
    """Cards of a clip: the original, then each version, with pictures on the original's scale."""
    rate, length = original.sampling_rate, original.audio.shape[1]
    reference = log_mel(original.audio, rate)
    scale = shared_scale(reference)
    cards = [_card(original, reference, scale)]
    for version in versions:
        level = log_mel(_at_rate(version, rate, length), rate)
        cards.append(_card(version, level, scale, reference, rate))
    return _cards_html(cards)


def gallery_html(versions: Sequence[Version]) -> str:
    """Cards of sounds that do not belong together in time, each on its own scale; "" for none."""
    levels = [log_mel(version.audio, version.sampling_rate) for version in versions]
    return _cards_html(
        _card(version, level, shared_scale(level))
        for version, level in zip(versions, levels, strict=True)
    )


def _cards_html(cards: Iterable[str]) -> str:
    content = "\n".join(cards)
    return f'<div class="cards">\n{content}\n</div>' if content else ""


def _at_rate(version: Version, rate: int, num_samples: int) -> np.ndarray:
    """A version's audio with as many samples as the original, so that columns fall together."""
    audio = resample(version.audio, version.sampling_rate, rate)
    return np.pad(audio, ((0, 0), (0, max(0, num_samples - audio.shape[1]))))[:, :num_samples]


def _card(
    version: Version,
    level: np.ndarray,
    scale: tuple[float, float],
    reference: np.ndarray | None = None,
    rate: int = 0,
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
{_axes(seconds, rate or version.sampling_rate)}
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


def flac(audio: Float[np.ndarray, "channels samples"], sampling_rate: int) -> bytes:
    """A 16-bit FLAC file; what exceeds full scale is clipped, as a sound card would."""
    with tempfile.TemporaryDirectory(prefix="moss-audio-") as folder:
        path = Path(folder) / "sound.flac"
        save_audio(path, audio, sampling_rate)
        return path.read_bytes()
