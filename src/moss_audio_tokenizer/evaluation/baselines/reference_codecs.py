"""Codecs that mark the ends of a scale: the clip itself, and the clip without its top."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from ...errors import InputError
from ..codecs import CodedClip

_BITS = 16


class Original:
    """The clip as metrics save_audio it, at 16 kHz: every metric's best value, and what PCM costs.

    Raises:
        InputError: a value after the name.
    """

    identity = "original at 16 kHz"
    sampling_rate = 16_000
    num_channels = 1
    quantizer_counts: tuple[int | None, ...] = (None,)
    codebook_size = 0

    def __init__(self, name: str, value: str = "") -> None:
        if value:
            raise InputError(f"--codec {name!r}: got {value!r}; 'original' takes no value")
        self.name = name

    def code(self, audio: Float[np.ndarray, "channels samples"]) -> Sequence[CodedClip]:
        """The clip itself, at the bitrate of 16-bit samples."""
        return [CodedClip(None, self.sampling_rate * _BITS / 1000, audio.size * _BITS, audio)]


class LowPass(Original):
    """The clip at 48 kHz without what lies above a frequency: an anchor of listening tests."""

    sampling_rate = 48_000

    def __init__(self, name: str, hertz: int) -> None:
        super().__init__(name)
        self.identity = f"lowpass {hertz}"
        self._hertz = hertz

    def code(self, audio: Float[np.ndarray, "channels samples"]) -> Sequence[CodedClip]:
        """The clip after the low-pass filter, at the bitrate of 16-bit samples."""
        passed = low_pass(audio, self.sampling_rate, self._hertz)
        bits = audio.size * _BITS
        return [CodedClip(None, self.sampling_rate * _BITS / 1000, bits, passed)]


def low_pass(
    audio: Float[np.ndarray, "channels samples"], sampling_rate: int, hertz: float
) -> Float[np.ndarray, "channels samples"]:
    """Everything above a frequency taken away, without delay; a raised cosine 10% wide."""
    frequencies = np.fft.rfftfreq(2 * audio.shape[1], 1 / sampling_rate)
    # Twice the length, so that the end does not wrap around into the start.
    spectrum = np.fft.rfft(audio, 2 * audio.shape[1])
    fall = np.clip((frequencies / hertz - 1.0) / 0.1 + 0.5, 0.0, 1.0)
    shape = 0.5 + 0.5 * np.cos(np.pi * fall)
    passed: np.ndarray = np.fft.irfft(spectrum * shape)[:, : audio.shape[1]]
    return passed.astype(np.float32)
