"""Log-mel pictures of clips and of differences between them, as PNG, on scales that clips share.

Owns the picture without any writing on it; a page asks here where a frequency lies. One
pixel is one value of the spectrogram.
"""

import io
from functools import lru_cache

import numpy as np
from jaxtyping import Float, UInt8

from ..metrics.signals import hertz_to_mel, magnitude_blocks, mel_filters
from .loading import import_package

RANGE_DECIBELS = 80.0
DIFFERENCE_DECIBELS = 30.0
NUM_MELS = 128
_WINDOW_SECONDS = 0.045
_MOST_COLUMNS = 800
_LOUDER, _QUIETER = (255, 140, 40), (60, 150, 255)


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
    return _png(_indexed((decibels - lowest) / (highest - lowest)), _magma())


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
    return _png(_indexed(0.5 + (version - reference) / (2 * DIFFERENCE_DECIBELS)), _diverging())


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


def _png(indices: UInt8[np.ndarray, "mels columns"], palette: bytes) -> bytes:
    """One pixel for each value, by way of a palette: a quarter of the bytes of full color."""
    from PIL import Image  # comes with matplotlib

    picture, content = Image.fromarray(indices[::-1]), io.BytesIO()
    picture.putpalette(palette)
    picture.save(content, "PNG", optimize=True)
    return content.getvalue()
