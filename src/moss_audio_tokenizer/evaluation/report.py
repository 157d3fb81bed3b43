"""One self-contained HTML page: a clip and its reconstructions, to hear, see and compare.

Owns the page; the pictures are from `spectrograms`, the numbers from `measures`. Knows nothing
of codecs. The page has no script and loads nothing: sound and pictures are inside it, about 64 kB
for each second and version at 24 kHz mono.
"""

import base64
import io
import wave
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from math import isnan

import numpy as np
from jaxtyping import Float

from ..errors import AudioError
from .measures import measure
from .page import PAGE
from .spectrograms import frequency_height, log_mel, shared_scale, spectrogram_png

# Heading, unit and digits of each measure, in the order of the columns.
_COLUMNS = {
    "stoi": ("STOI", "", 3),
    "mel_distance": ("Mel distance", "", 3),
    "stft_distance": ("STFT distance", "", 3),
    "si_sdr": ("SI-SDR", " dB", 1),
}
_TICKS_KILOHERTZ = (0.5, 1, 2, 4, 8, 16)
_MOST_TICKS_SECONDS = 6


@dataclass(frozen=True)
class Reconstruction:
    """A clip after a codec.

    Attributes:
        num_quantizers: layers of the quantizer that were decoded.
        kbps: nominal bitrate, in kilobits a second.
        audio: samples, in -1 .. 1, at the rate of the original.
        values: metrics of `measures.DEFAULT_METRICS` by name; measured here when None.
    """

    num_quantizers: int
    kbps: float
    audio: Float[np.ndarray, "channels samples"]
    values: Mapping[str, float] | None = None


@dataclass(frozen=True)
class _Version:
    """What the page shows of one version of the clip; the original has no values."""

    name: str
    kbps: float
    audio: np.ndarray
    num_quantizers: int = 0
    values: Mapping[str, float] = field(default_factory=dict)


def build_report(
    title: str,
    command: str,
    model: str,
    original: Float[np.ndarray, "channels samples"],
    sampling_rate: int,
    reconstructions: Sequence[Reconstruction],
) -> str:
    """The page as HTML text; reconstructions appear in their order.

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
    raw_kbps = sampling_rate * len(original) * 16 / 1000
    everything = [_Version("Original", raw_kbps, original), *versions]
    return PAGE.substitute(
        title=escape(title),
        command=escape(command),
        model=escape(model),
        clip=_describe(original, sampling_rate),
        rows="\n".join(_row(version) for version in versions),
        cards="\n".join(_cards(everything, sampling_rate)),
    )


def _measured(item: Reconstruction, original: np.ndarray, sampling_rate: int) -> _Version:
    # A codec answers in whole frames: what it adds past the end is not to be seen or heard.
    audio = item.audio[:, : original.shape[1]]
    plural = "" if item.num_quantizers == 1 else "s"
    values = item.values
    if values is None:
        values = measure(original, audio, sampling_rate, tuple(_COLUMNS))
    name = f"{item.num_quantizers} quantizer{plural}"
    return _Version(name, item.kbps, audio, item.num_quantizers, values)


def _describe(audio: np.ndarray, sampling_rate: int) -> str:
    channels, samples = audio.shape
    layout = {1: "mono", 2: "stereo"}.get(channels, f"{channels} channels")
    return f"{samples / sampling_rate:.2f} s, {sampling_rate / 1000:g} kHz, {layout}"


def _row(version: _Version) -> str:
    cells = "".join(f"<td>{_number(version, name)}</td>" for name in _COLUMNS)
    head = f'<th scope="row">{version.num_quantizers}</th><td>{version.kbps:.3f}</td>'
    return f"<tr>{head}{cells}</tr>"


def _number(version: _Version, name: str) -> str:
    """A value as print has it; an undefined one is a dash, an infinite one the sign."""
    value = version.values[name]
    if isnan(value):
        return "&ndash;"
    return f"{value:.{_COLUMNS[name][2]}f}".replace("-", "&minus;").replace("inf", "&infin;")


def _cards(versions: Sequence[_Version], sampling_rate: int) -> list[str]:
    levels = [log_mel(version.audio, sampling_rate) for version in versions]
    scale = shared_scale(levels[0])
    pictures = [spectrogram_png(level, scale) for level in levels]
    return [
        _card(version, picture, sampling_rate)
        for version, picture in zip(versions, pictures, strict=True)
    ]


def _card(version: _Version, picture: bytes, sampling_rate: int) -> str:
    return f"""<section class="card">
<h2>{version.name} <small>{version.kbps:.4g} kbps</small></h2>
<figure class="plot">
<img width="960" height="384" alt="Log-mel spectrogram, {version.name.lower()}"
 src="{_data_url("image/png", picture)}">
{_axes(version.audio.shape[1] / sampling_rate, sampling_rate)}
</figure>
<audio controls preload="metadata" aria-label="{version.name}"
 src="{_data_url("audio/wav", _wav(version.audio, sampling_rate))}"></audio>
{_values(version)}
</section>"""


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


def _values(version: _Version) -> str:
    if not version.values:
        return '<p class="note">16-bit samples, as they went into the codec</p>'
    items = "".join(
        f"<div><dt>{heading}</dt><dd>{_number(version, name)}{unit}</dd></div>"
        for name, (heading, unit, _) in _COLUMNS.items()
    )
    return f"<dl>{items}</dl>"


def _data_url(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


def _wav(audio: np.ndarray, sampling_rate: int) -> bytes:
    """A 16-bit WAV file; what exceeds full scale is clipped, as a sound card would."""
    samples = np.clip(np.rint(audio.T * 32768.0), -32768, 32767).astype("<i2")
    content = io.BytesIO()
    with wave.open(content, "wb") as file:
        file.setnchannels(audio.shape[0])
        file.setsampwidth(2)
        file.setframerate(sampling_rate)
        file.writeframes(samples.tobytes())
    return content.getvalue()
