"""Opus packets, one per message, as browsers and telephones produce and play them.

Owns the coder's state and the resampling between Opus's 48 kHz and the codec's rate. The coder is
FFmpeg's, through PyAV. Opus delays audio by 6.5 ms; this delay is not removed.
"""

from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import numpy as np
import soxr
from jaxtyping import Float

from ..codes.codec import CodecInfo
from ..errors import AudioError, InputError, MissingDependencyError

_DECODED_RATE = 48_000
_ENCODED_RATES = (8_000, 12_000, 16_000, 24_000, 48_000)
_PACKETS_A_SECOND = 50
_BITRATES = (6_000, 510_000)
_LAYOUTS = {1: "mono", 2: "stereo"}
# The largest packet that Opus allows (RFC 6716): three frames of 1275 bytes and their lengths.
_MAX_PACKET_BYTES = 3 * 1275 + 7


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
        self._coder.sample_rate = _DECODED_RATE
        self._coder.layout = _layout(info)
        self._resampler = soxr.ResampleStream(
            _DECODED_RATE, info.sampling_rate, info.num_channels, dtype="float32"
        )

    def parts(self, message: bytes, num_samples: int) -> Iterator[bytes]:  # noqa: ARG002
        """A packet is one part."""
        yield message

    def read(self, message: bytes) -> Float[np.ndarray, "channels samples"]:
        """Decode a packet.

        Raises:
            AudioError: The message is not an Opus packet.
        """
        if not 1 <= len(message) <= _MAX_PACKET_BYTES:
            raise AudioError(
                f"a message has {len(message)} bytes; expected one Opus packet of 1 to "
                f"{_MAX_PACKET_BYTES} bytes, without Ogg around it"
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

    def finish(self) -> Float[np.ndarray, "channels samples"]:
        """Return what the resampler still holds."""
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
        if info.sampling_rate not in _ENCODED_RATES:
            raise InputError(
                f"Opus cannot hold {info.sampling_rate} samples a second; use pcm_s16le"
            )
        if not _BITRATES[0] <= bitrate <= _BITRATES[1]:
            raise InputError(
                f"bitrate is {bitrate}; expected {_BITRATES[0]} to {_BITRATES[1]} bits a second"
            )
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

    def write(self, audio: Float[np.ndarray, "channels samples"]) -> list[bytes]:
        """Return the packets that these samples complete."""
        self._waiting = np.concatenate([self._waiting, audio], axis=1)
        packets = []
        while self._waiting.shape[1] >= self._size:
            packets += self._packets(self._frame(self._waiting[:, : self._size]))
            self._waiting = self._waiting[:, self._size :]
        return packets

    def finish(self) -> list[bytes]:
        """Return the rest, padded with silence, and what the coder still holds."""
        missing = -self._waiting.shape[1] % self._size
        padded = np.pad(self._waiting, ((0, 0), (0, missing)))
        return [*self.write(padded[:, self._waiting.shape[1] :]), *self._packets(None)]

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
