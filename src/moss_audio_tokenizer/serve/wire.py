"""What WebSocket messages hold: PCM, packets of Opus, and packed frames of codes.

Bytes in, arrays out, and back. Audio is interleaved and little-endian; a frame of codes is padded
with zero bits to whole bytes, so that a message can hold any number of frames.
"""

from typing import Protocol

import numpy as np
from jaxtyping import Float, Integer

from ..codes.codec import CodecInfo
from ..codes.packing import pack_codes, packed_size, unpack_codes
from ..errors import AudioError, CodesError, InputError

_PCM_TYPES = {"pcm_s16le": "<i2", "pcm_f32le": "<f4"}
AUDIO_FORMATS = (*_PCM_TYPES, "opus")
_FULL_SCALE = 32768.0


class AudioReader(Protocol):
    """Messages of one stream to samples at the codec's rate."""

    def read(self, message: bytes) -> Float[np.ndarray, "channels samples"]:
        """The samples of a message; there may be none yet."""
        ...

    def finish(self) -> Float[np.ndarray, "channels samples"]:
        """What is left at the end."""
        ...


class AudioWriter(Protocol):
    """Samples of one stream to messages."""

    def write(self, audio: Float[np.ndarray, "channels samples"]) -> list[bytes]:
        """The messages that these samples complete."""
        ...

    def finish(self) -> list[bytes]:
        """What is left at the end."""
        ...


def audio_reader(audio_format: str, info: CodecInfo) -> AudioReader:
    """A reader for one stream.

    Raises:
        InputError: no such format.
        MissingDependencyError: Opus needs a package that is not installed.
    """
    if audio_format == "opus":
        from .opus import OpusReader

        return OpusReader(info)
    return PcmReader(audio_format, info)


def audio_writer(audio_format: str, info: CodecInfo, bitrate: int) -> AudioWriter:
    """A writer for one stream; see `audio_reader`. The bitrate is Opus's, in bits a second."""
    if audio_format == "opus":
        from .opus import OpusWriter

        return OpusWriter(info, bitrate)
    return PcmWriter(audio_format)


class PcmReader:
    """Raw samples, 16-bit integers or 32-bit floats."""

    def __init__(self, audio_format: str, info: CodecInfo) -> None:
        self._type = _sample_type(audio_format)
        self._num_channels = info.num_channels

    def read(self, message: bytes) -> Float[np.ndarray, "channels samples"]:
        """The samples of a message.

        Raises:
            AudioError: it is cut inside a sample, or not finite.
        """
        unit = self._type.itemsize * self._num_channels
        if len(message) % unit:
            raise AudioError(
                f"a message has {len(message)} bytes; expected a multiple of {unit}: whole samples "
                f"of {self._num_channels} channels"
            )
        values = np.frombuffer(message, self._type).reshape(-1, self._num_channels).T
        if not np.isfinite(values).all():
            raise AudioError("a message holds NaN or infinite samples; replace them before sending")
        scale = np.float32(1.0 if self._type.kind == "f" else _FULL_SCALE)
        return np.ascontiguousarray(values, np.float32) / scale

    def finish(self) -> Float[np.ndarray, "channels samples"]:
        """Nothing waits."""
        return np.zeros((self._num_channels, 0), np.float32)


class PcmWriter:
    """Raw samples, 16-bit integers or 32-bit floats."""

    def __init__(self, audio_format: str) -> None:
        self._type = _sample_type(audio_format)

    def write(self, audio: Float[np.ndarray, "channels samples"]) -> list[bytes]:
        """One message; integers are rounded, and clipped to full scale."""
        if self._type.kind == "i":
            audio = np.clip(np.rint(audio * _FULL_SCALE), -_FULL_SCALE, _FULL_SCALE - 1)
        return [audio.T.astype(self._type).tobytes()]

    def finish(self) -> list[bytes]:
        """Nothing waits."""
        return []


def _sample_type(audio_format: str) -> "np.dtype[np.generic]":
    if audio_format not in _PCM_TYPES:
        raise InputError(
            f"audio format is {audio_format!r}; expected one of {', '.join(AUDIO_FORMATS)}"
        )
    return np.dtype(_PCM_TYPES[audio_format])


class PackedFrames:
    """Frames of codes, each in whole bytes.

    Args:
        info: the codec's.
        num_quantizers: layers of every frame.

    Raises:
        CodesError: the codec has fewer.
    """

    def __init__(self, info: CodecInfo, num_quantizers: int | None) -> None:
        layers = info.num_quantizers if num_quantizers is None else num_quantizers
        if not 1 <= layers <= info.num_quantizers:
            raise CodesError(
                f"num_quantizers is {layers}; expected 1 to {info.num_quantizers} for this model"
            )
        self.num_quantizers = layers
        self._codebook_size = info.codebook_size
        self.bits_per_code = (info.codebook_size - 1).bit_length()
        self._bits = layers * self.bits_per_code
        self.bytes_per_frame = packed_size(layers, self.bits_per_code)

    def read(self, message: bytes) -> Integer[np.ndarray, "num_quantizers frames"]:
        """The codes of a message.

        Raises:
            CodesError: it is cut inside a frame, or holds what is no code.
        """
        if len(message) % self.bytes_per_frame:
            raise CodesError(
                f"a message has {len(message)} bytes; expected a multiple of {self.bytes_per_frame}"
                f", the size of a frame of {self.num_quantizers} layers"
            )
        rows = np.frombuffer(message, np.uint8).reshape(-1, self.bytes_per_frame)
        bits = np.unpackbits(rows, axis=1)
        packed = np.packbits(bits[:, : self._bits]).tobytes()
        codes = unpack_codes(packed, self.num_quantizers, len(rows), self.bits_per_code)
        if bits[:, self._bits :].any() or (codes.size and codes.max() >= self._codebook_size):
            raise CodesError(
                f"a message holds codes beyond {self._codebook_size - 1}, or bits behind the last "
                "code of a frame; is num_quantizers what the frames were packed with?"
            )
        return codes

    def write(self, codes: Integer[np.ndarray, "layers frames"]) -> bytes:
        """A message of the first layers of these frames."""
        num_frames = codes.shape[1]
        stream = np.frombuffer(
            pack_codes(codes[: self.num_quantizers], self.bits_per_code), np.uint8
        )
        bits = np.unpackbits(stream, count=num_frames * self._bits)
        return np.packbits(bits.reshape(num_frames, self._bits), axis=1).tobytes()
