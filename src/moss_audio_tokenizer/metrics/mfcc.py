"""Statistics of mel cepstra: a baseline for speaker similarity without any model.

Mean and deviation over time of mel cepstra. They depend on the microphone and the words as much as
on the voice, so their cosines compare versions of one experiment, not speakers, and must not be set
beside published similarities.
"""

import numpy as np
from jaxtyping import Float

from ..metrics.spectra import magnitude_blocks, mel_filters

_WINDOW_SECONDS = 0.032
_NUM_MELS = 40
_NUM_CEPSTRA = 20
_FLOOR = 1e-5
# Pauses are left out: frames this far below the loudest say more of the room than of the voice.
_RANGE_LOG10 = 2.0


def mfcc_statistics(
    samples: Float[np.ndarray, "samples"], sampling_rate: int
) -> Float[np.ndarray, "38"]:
    """Means, then deviations, of cepstra 1 to 19 (log10 mel magnitudes); loudness does not count.

    All zero for silence.

    Source: Davis and Mermelstein, "Comparison of parametric representations for monosyllabic
    word recognition", 1980 (the cepstra).
    """
    window = 2 ** round(np.log2(_WINDOW_SECONDS * sampling_rate))
    filters = mel_filters(sampling_rate, window, _NUM_MELS).T
    blocks = magnitude_blocks(np.asarray(samples, np.float64), window, window // 4)
    mel = np.concatenate([block @ filters for block in blocks])
    level = np.log10(np.maximum(mel, _FLOOR))
    if mel.max() <= _FLOOR:  # silence has no voice
        return np.zeros(2 * (_NUM_CEPSTRA - 1))
    loud = level.mean(1) > level.mean(1).max() - _RANGE_LOG10
    # Without the mean over bands, which is loudness.
    cepstra = level[loud] @ _cosines()
    return np.concatenate((cepstra.mean(0), cepstra.std(0)))


def _cosines() -> Float[np.ndarray, "mels cepstra"]:
    """The discrete cosine transform, of type 2 and orthonormal, without its first row."""
    bands = np.pi * (np.arange(_NUM_MELS) + 0.5) / _NUM_MELS
    rows = np.cos(np.outer(bands, np.arange(1, _NUM_CEPSTRA)))
    return rows * np.sqrt(2.0 / _NUM_MELS)
