"""The content of WebSocket messages: PCM, Opus packets, and packed frames of codes.

Converts bytes to arrays and back. Audio is interleaved and little-endian. A frame of codes is
padded with zero bits to whole bytes, so a message can hold any number of frames. A message of Opus
is one packet, without Ogg; the coder is FFmpeg's, through PyAV, and its delay of 6.5 ms is not
removed.
"""

from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import numpy as np
import soxr
from jaxtyping import Float, Integer

from ..codes.codec import CodecInfo
from ..codes.moss_format import pack_codes, packed_size, unpack_codes
from ..errors import AudioError, CodesError, InputError, MissingDependencyError

_PCM_TYPES = {"pcm_s16le": "<i2", "pcm_f32le": "<f4"}
_FULL_SCALE = 32768.0
_OPUS_DECODED_RATE = 48_000
_OPUS_RATES = (8_000, 12_000, 16_000, 24_000, 48_000)
_PACKETS_A_SECOND = 50
_OPUS_BITRATES = (6_000, 510_000)
_LAYOUTS = {1: "mono", 2: "stereo"}
# The largest packet that Opus allows (RFC 6716): three frames of 1275 bytes and their lengths.
_MAX_OPUS_BYTES = 3 * 1275 + 7


def audio_reader(audio_format: str, info: CodecInfo) -> "PcmReader | OpusDecoder":
    """Create the decoder of one stream's audio messages."""
    return OpusDecoder(info) if audio_format == "opus" else PcmReader(audio_format, info)


def audio_writer(audio_format: str, info: CodecInfo, bitrate: int) -> "PcmWriter | OpusEncoder":
    """Create the encoder of one stream's audio messages; the bitrate in bit/s is for Opus only."""
    return OpusEncoder(info, bitrate) if audio_format == "opus" else PcmWriter(audio_format)


class PcmReader:
    """Raw samples, 16-bit integers or 32-bit floats."""

    def __init__(self, audio_format: str, info: CodecInfo) -> None:
        self._type = _sample_type(audio_format)
        self._num_channels = info.num_channels
        self._sample_bytes = self._type.itemsize * info.num_channels

    def parts(self, message: bytes, num_samples: int) -> Iterator[bytes]:
        """Split a message so that each part holds at most so many samples.

        Raises:
            AudioError: The message ends inside a sample.
        """
        self._check_size(message)
        return _split(message, num_samples * self._sample_bytes)

    def read(self, message: bytes) -> Float[np.ndarray, "channels samples"]:
        """Decode a message.

        Raises:
            AudioError: The message ends inside a sample, or a sample is not finite.
        """
        self._check_size(message)
        values = np.frombuffer(message, self._type).reshape(-1, self._num_channels).T
        if not np.isfinite(values).all():
            raise AudioError("a message holds NaN or infinite samples; replace them before sending")
        scale = np.float32(1.0 if self._type.kind == "f" else _FULL_SCALE)
        return np.ascontiguousarray(values, np.float32) / scale

    def rest(self) -> Float[np.ndarray, "channels samples"]:
        """What is still buffered at the end: nothing."""
        return np.zeros((self._num_channels, 0), np.float32)

    def _check_size(self, message: bytes) -> None:
        if len(message) % self._sample_bytes:
            raise AudioError(
                f"a message has {len(message)} bytes; expected a multiple of "
                f"{self._sample_bytes}: whole samples of {self._num_channels} channels"
            )


class PcmWriter:
    """Raw samples, 16-bit integers or 32-bit floats."""

    def __init__(self, audio_format: str) -> None:
        self._type = _sample_type(audio_format)

    def messages(self, audio: Float[np.ndarray, "channels samples"]) -> list[bytes]:
        """Encode one message; integers are rounded and clipped to full scale."""
        if self._type.kind == "i":
            audio = np.clip(np.rint(audio * _FULL_SCALE), -_FULL_SCALE, _FULL_SCALE - 1)
        return [audio.T.astype(self._type).tobytes()]

    def last_messages(self) -> list[bytes]:
        """What is still buffered at the end: nothing."""
        return []


def _sample_type(audio_format: str) -> "np.dtype[np.generic]":
    if audio_format not in _PCM_TYPES:
        expected = ", ".join((*_PCM_TYPES, "opus"))
        raise InputError(f"audio format is {audio_format!r}; expected one of {expected}")
    return np.dtype(_PCM_TYPES[audio_format])


def _split(message: bytes, size: int) -> Iterator[bytes]:
    for start in range(0, len(message), size):
        yield message[start : start + size]


class PackedFrames:
    """Packs frames of codes, each into whole bytes.

    Args:
        info: The codec's facts.
        num_quantizers: The number of quantizers in each frame; None for all.

    Raises:
        CodesError: The codec has fewer quantizers.
    """

    def __init__(self, info: CodecInfo, num_quantizers: int | None) -> None:
        wanted = info.num_quantizers if num_quantizers is None else num_quantizers
        if not 1 <= wanted <= info.num_quantizers:
            raise CodesError(
                f"num_quantizers is {wanted}; expected 1 to {info.num_quantizers} for this model"
            )
        self.num_quantizers = wanted
        self._codebook_size = info.codebook_size
        self.bits_per_code = (info.codebook_size - 1).bit_length()
        self._bits = wanted * self.bits_per_code
        self.bytes_per_frame = packed_size(wanted, self.bits_per_code)

    def parts(self, message: bytes, num_frames: int) -> Iterator[bytes]:
        """Split a message so that each part holds at most so many frames.

        Raises:
            CodesError: The message ends inside a frame.
        """
        self._check_size(message)
        return _split(message, num_frames * self.bytes_per_frame)

    def read(self, message: bytes) -> Integer[np.ndarray, "num_quantizers frames"]:
        """Unpack a message.

        Raises:
            CodesError: The message ends inside a frame, or holds an invalid code.
        """
        self._check_size(message)
        rows = np.frombuffer(message, np.uint8).reshape(-1, self.bytes_per_frame)
        bits = np.unpackbits(rows, axis=1)
        packed = np.packbits(bits[:, : self._bits]).tobytes()
        codes = unpack_codes(packed, self.num_quantizers, len(rows), self.bits_per_code)
        if bits[:, self._bits :].any() or (codes.size and codes.max() >= self._codebook_size):
            raise CodesError(
                f"a message holds codes beyond {self._codebook_size - 1}, or bits after the last "
                "code of a frame; is num_quantizers what the frames were packed with?"
            )
        return codes

    def rest(self) -> Integer[np.ndarray, "num_quantizers frames"]:
        """What is still buffered at the end: nothing."""
        return np.zeros((self.num_quantizers, 0), np.int64)

    def write(self, codes: Integer[np.ndarray, "num_quantizers frames"]) -> bytes:
        """Pack the first `num_quantizers` layers of these frames into a message."""
        num_frames = codes.shape[1]
        packed = pack_codes(codes[: self.num_quantizers], self.bits_per_code)
        bits = np.unpackbits(np.frombuffer(packed, np.uint8), count=num_frames * self._bits)
        return np.packbits(bits.reshape(num_frames, self._bits), axis=1).tobytes()

    def messages(self, codes: Integer[np.ndarray, "num_quantizers frames"]) -> list[bytes]:
        """One message of these frames."""
        return [self.write(codes)]

    def last_messages(self) -> list[bytes]:
        """What is still buffered at the end: nothing."""
        return []

    def _check_size(self, message: bytes) -> None:
        if len(message) % self.bytes_per_frame:
            raise CodesError(
                f"a message has {len(message)} bytes; expected a multiple of {self.bytes_per_frame}"
                f", the size of a frame with num_quantizers={self.num_quantizers}"
            )


class OpusDecoder:
    """Decodes packets to samples at the codec's rate.

    Raises:
        InputError: Opus does not support the codec's number of channels.
        MissingDependencyError: PyAV is not installed.
    """

    def __init__(self, info: CodecInfo) -> None:
        self._av = _load_av()
        self._num_channels = info.num_channels
        self._coder = self._av.CodecContext.create("opus", "r")
        self._coder.sample_rate = _OPUS_DECODED_RATE
        self._coder.layout = _layout(info)
        self._resampler = soxr.ResampleStream(
            _OPUS_DECODED_RATE, info.sampling_rate, info.num_channels, dtype="float32"
        )

    def parts(self, message: bytes, num_samples: int) -> Iterator[bytes]:  # noqa: ARG002
        """A packet is one part."""
        yield message

    def read(self, message: bytes) -> Float[np.ndarray, "channels samples"]:
        """Decode a packet.

        Raises:
            AudioError: The message is not an Opus packet.
        """
        if not 1 <= len(message) <= _MAX_OPUS_BYTES:
            raise AudioError(
                f"a message has {len(message)} bytes; expected one Opus packet of 1 to "
                f"{_MAX_OPUS_BYTES} bytes, without Ogg around it"
            )
        try:
            frames = self._coder.decode(self._av.Packet(message))
        except (self._av.FFmpegError, ValueError) as problem:
            raise AudioError(
                "a message is not an Opus packet; send packets without Ogg"
            ) from problem
        decoded = [frame.to_ndarray().astype(np.float32) for frame in frames]
        if not decoded:
            return np.zeros((self._num_channels, 0), np.float32)
        return self._resampled(np.concatenate(decoded, axis=1), is_last=False)

    def rest(self) -> Float[np.ndarray, "channels samples"]:
        """What the resampler still holds at the end."""
        return self._resampled(np.zeros((self._num_channels, 0), np.float32), is_last=True)

    def _resampled(self, audio: np.ndarray, is_last: bool) -> np.ndarray:
        rows = np.ascontiguousarray(audio.T)
        samples = self._resampler.resample_chunk(rows, last=is_last)
        return np.ascontiguousarray(samples.reshape(-1, self._num_channels).T)


class OpusEncoder:
    """Encodes samples to packets of 20 ms.

    Raises:
        InputError: Opus does not support the rate, the channels or the bitrate.
        MissingDependencyError: PyAV is not installed.
    """

    def __init__(self, info: CodecInfo, bitrate: int) -> None:
        self._av = _load_av()
        if info.sampling_rate not in _OPUS_RATES:
            raise InputError(
                f"Opus cannot hold {info.sampling_rate} samples a second; use pcm_s16le"
            )
        least, most = _OPUS_BITRATES
        if not least <= bitrate <= most:
            raise InputError(f"bitrate is {bitrate}; expected {least} to {most} bits a second")
        self._info = info
        self._size = info.sampling_rate // _PACKETS_A_SECOND
        self._waiting = np.zeros((info.num_channels, 0), np.float32)
        self._num_sent = 0
        self._coder = self._encoder(bitrate)

    def _encoder(self, bitrate: int) -> Any:
        coder = self._av.CodecContext.create("libopus", "w")
        coder.sample_rate = self._info.sampling_rate
        coder.layout = _layout(self._info)
        coder.format = "flt"
        coder.bit_rate = bitrate
        coder.time_base = Fraction(1, self._info.sampling_rate)
        coder.options = {"frame_duration": "20", "application": "audio"}
        return coder

    def messages(self, audio: Float[np.ndarray, "channels samples"]) -> list[bytes]:
        """The packets that these samples complete."""
        self._waiting = np.concatenate([self._waiting, audio], axis=1)
        packets = []
        while self._waiting.shape[1] >= self._size:
            packets += self._packets(self._frame(self._waiting[:, : self._size]))
            self._waiting = self._waiting[:, self._size :]
        return packets

    def last_messages(self) -> list[bytes]:
        """The rest, padded with silence, and what the coder still holds."""
        num_channels, waiting = self._waiting.shape
        silence = np.zeros((num_channels, -waiting % self._size), np.float32)
        return [*self.messages(silence), *self._packets(None)]

    def _frame(self, samples: np.ndarray) -> Any:
        interleaved = np.ascontiguousarray(samples.T).reshape(1, -1)
        frame = self._av.AudioFrame.from_ndarray(
            interleaved, format="flt", layout=_layout(self._info)
        )
        frame.sample_rate = self._info.sampling_rate
        frame.pts = self._num_sent
        self._num_sent += samples.shape[1]
        return frame

    def _packets(self, frame: Any) -> list[bytes]:
        return [bytes(packet) for packet in self._coder.encode(frame)]


def _load_av() -> Any:
    try:
        import av
    except ModuleNotFoundError as problem:
        raise MissingDependencyError(
            "streams of Opus need av, which is not installed; "
            "pip install 'moss-audio-tokenizer[serve]', or stream pcm_s16le"
        ) from problem
    return av


def _layout(info: CodecInfo) -> str:
    if info.num_channels not in _LAYOUTS:
        raise InputError(f"Opus cannot hold {info.num_channels} channels; use pcm_s16le")
    return _LAYOUTS[info.num_channels]
