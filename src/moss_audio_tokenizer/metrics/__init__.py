"""Pure functions (reference, estimate) -> value of reconstruction quality, in NumPy.

Signals are mono arrays of shape (samples,); the longer of the two is cut to the shorter. What is
undefined (STOI of silence, say) is NaN, which averages can leave out; every docstring says when.
Knows nothing of files, codecs or averages.
"""

from .pitch import buzz_share, gross_pitch_error
from .quality import (
    dac_mel_distance,
    mel_distance,
    pesq_nb,
    pesq_wb,
    sdr,
    si_sdr,
    spectral_convergence,
    stft_distance,
    stoi,
)

__all__ = [
    "buzz_share",
    "dac_mel_distance",
    "gross_pitch_error",
    "mel_distance",
    "pesq_nb",
    "pesq_wb",
    "sdr",
    "si_sdr",
    "spectral_convergence",
    "stft_distance",
    "stoi",
]
