"""Log-mel pictures for the boards of a run, as arrays."""

import numpy as np
from jaxtyping import Float, UInt8
from matplotlib import colormaps

from ..metrics.spectra import magnitude_blocks, mel_filters

_WINDOW = 1024
_NUM_MELS = 96
_RANGE_DECIBELS = 80.0


def compared(
    reference: Float[np.ndarray, "samples"], estimate: Float[np.ndarray, "samples"], rate: int
) -> UInt8[np.ndarray, "height columns 3"]:
    """The log-mel spectrogram of a recording above that of its estimate, on one scale."""
    pictures = [_decibels(audio, rate) for audio in (reference, estimate)]
    top = pictures[0].max()
    levels = [np.clip((p - top) / _RANGE_DECIBELS + 1, 0, 1)[::-1] for p in pictures]
    line = np.ones((2, levels[0].shape[1]))
    coloured = colormaps["magma"](np.concatenate((levels[0], line, levels[1])))
    picture: np.ndarray = (coloured[..., :3] * 255).astype(np.uint8)
    return picture


def _decibels(audio: np.ndarray, rate: int) -> Float[np.ndarray, "mels columns"]:
    filters = mel_filters(rate, _WINDOW, _NUM_MELS).T
    blocks = [b @ filters for b in magnitude_blocks(audio, _WINDOW, _WINDOW // 4)]
    decibels: np.ndarray = 20 * np.log10(np.maximum(np.concatenate(blocks), 1e-5)).T
    return decibels
