"""Speech as bytes: streamed as wav or raw samples, or whole as flac or Opus.

Owns rounding, the header of a wav of unknown length, and the rate of raw samples, which have no
header to say another. Knows no network.
"""

import struct
from collections.abc import Sequence

import numpy as np
import soxr
from jaxtyping import Float

from ..audio import encode_audio
from .wire import PcmWriter

MEDIA_TYPES = {
    "wav": "audio/wav",
    "pcm": "audio/pcm",
    "flac": "audio/flac",
    "opus": "audio/ogg",
}
STREAMED = ("wav", "pcm")
RAW_RATE = 24_000
_UNKNOWN_SIZE = 0xFFFFFFFF
_SAMPLE_BYTES = 2


class StreamedSound:
    """Mono samples to 16-bit ones, piece by piece.

    Args:
        audio_format: "wav", at the rate that samples have, or "pcm", at 24 kHz.
        sampling_rate: of what comes in.
    """

    def __init__(self, audio_format: str, sampling_rate: int) -> None:
        self.media_type = MEDIA_TYPES[audio_format]
        self._sampling_rate = sampling_rate
        is_raw = audio_format == "pcm"
        self.header = b"" if is_raw else _wav_header(sampling_rate)
        self._pcm = PcmWriter("pcm_s16le")
        self._resampler = None
        if is_raw and sampling_rate != RAW_RATE:
            self._resampler = soxr.ResampleStream(sampling_rate, RAW_RATE, 1, dtype="float32")

    def write(self, samples: Float[np.ndarray, " samples"], is_last: bool = False) -> bytes:
        """What these samples complete; with the last, whatever was held back."""
        if self._resampler is not None:
            samples = self._resampler.resample_chunk(samples, last=is_last)
        return b"".join(self._pcm.write(samples[None]))

    def seconds(self, samples: Float[np.ndarray, " samples"]) -> float:
        """How long they sound."""
        return len(samples) / self._sampling_rate

    def finish(self) -> bytes:
        """What is left at the end."""
        return self.write(np.zeros(0, np.float32), is_last=True)


def whole_sound(
    pieces: Sequence[Float[np.ndarray, " _"]], sampling_rate: int, audio_format: str
) -> bytes:
    """A sound file: "flac" or "opus".

    Raises:
        AudioFileError: Opus has no such rate.
    """
    return encode_audio(np.concatenate(pieces), sampling_rate, f".{audio_format}")


def _wav_header(sampling_rate: int) -> bytes:
    """With the sizes that writers to a pipe put there: as much as may come."""
    layout = struct.pack(
        "<IHHIIHH", 16, 1, 1, sampling_rate, sampling_rate * _SAMPLE_BYTES, _SAMPLE_BYTES, 16
    )
    size = struct.pack("<I", _UNKNOWN_SIZE)
    return b"RIFF" + size + b"WAVEfmt " + layout + b"data" + size
