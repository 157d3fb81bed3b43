"""Pure functions (reference, estimate) -> value of reconstruction quality, in NumPy.

Signals are mono arrays of shape (samples,); the longer of the two is cut to the shorter. What is
undefined (STOI of silence, say) is NaN, which averages can leave out; every docstring says when.
Knows nothing of files, codecs or averages. Source: training.md section 9.
"""

from .distances import dac_mel_distance, mel_distance, si_sdr, stft_distance
from .listening import pesq_nb, pesq_wb, stoi
from .pitch import gross_pitch_error

__all__ = [
    "dac_mel_distance",
    "gross_pitch_error",
    "mel_distance",
    "pesq_nb",
    "pesq_wb",
    "si_sdr",
    "stft_distance",
    "stoi",
]
