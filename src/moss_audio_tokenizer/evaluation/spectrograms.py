"""Log-mel pictures of clips, as PNG, on a scale that several clips can share.

Owns the picture without any writing on it: who shows it knows the page's type and colours, and
asks here where a frequency lies.
"""

import io

import numpy as np
from jaxtyping import Float

from ..errors import MissingDependencyError
from ..metrics.spectra import hertz_to_mel, magnitude_blocks, mel_filters

RANGE_DECIBELS = 80.0
_WINDOW_SECONDS = 0.045
_NUM_MELS = 128
_MOST_COLUMNS = 1600
_PICTURE_INCHES = (8.0, 3.2)


def log_mel(
    audio: Float[np.ndarray, "channels samples"], sampling_rate: int
) -> Float[np.ndarray, "mels columns"]:
    """Mel power in dB of a clip mixed down to mono, from 0 Hz to Nyquist.

    A long clip is sampled at 1,600 instants: each column shows the spectrum at its own.
    """
    window = 2 ** round(np.log2(_WINDOW_SECONDS * sampling_rate))
    mono = audio.mean(axis=0, dtype=np.float64)
    hop = max(window // 4, -(-len(mono) // _MOST_COLUMNS))
    filters = mel_filters(sampling_rate, window, _NUM_MELS).T
    mel = np.concatenate([block @ filters for block in magnitude_blocks(mono, window, hop)])
    return 20.0 * np.log10(np.maximum(mel, 1e-5)).T


def shared_scale(decibels: Float[np.ndarray, "mels columns"]) -> tuple[float, float]:
    """The limits (dB) that show a clip from its loudest point down by 80 dB."""
    loudest = float(decibels.max())
    return loudest - RANGE_DECIBELS, loudest


def spectrogram_png(
    decibels: Float[np.ndarray, "mels columns"], scale: tuple[float, float]
) -> bytes:
    """A PNG of 960 x 384 pixels that a log-mel spectrogram fills to its edges.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    # The classes themselves, not pyplot: no global state, no window system, safe in threads.
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingDependencyError(
            "spectrograms need matplotlib: pip install 'moss-audio-tokenizer[eval]'"
        ) from error
    figure = Figure(figsize=_PICTURE_INCHES, dpi=120)
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.set_axis_off()
    lowest, highest = scale
    axes.imshow(decibels, origin="lower", aspect="auto", cmap="magma", vmin=lowest, vmax=highest)
    picture = io.BytesIO()
    FigureCanvasAgg(figure).print_png(picture, metadata={"Software": None})
    return picture.getvalue()


def frequency_height(hertz: float, sampling_rate: int) -> float:
    """Where a frequency lies in a picture: 0 at the lower edge, 1 at the upper."""
    mel, highest = hertz_to_mel(np.array([hertz, sampling_rate / 2]))
    return float(mel / highest)
