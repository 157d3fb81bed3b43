"""A codec behind a server, one clip at a time, for `evaluation.golden` to verify.

Works with any server of the same protocol.
"""

import io
from collections.abc import Iterable, Iterator

import numpy as np
import soundfile
from jaxtyping import Float, Integer

from ..codes import AudioCodes, CodecInfo
from ..errors import ServerError
from .client import CodecClient, codec_info

# Chunk lengths of a live stream in frames: shorter than, equal to, and longer than a frame.
_CHUNK_FRAMES = (0.37, 1.0, 2.3)


class RemoteCodec:
    """The codec of a server; decoded whole files are 16-bit wav.

    Args:
        client: A client of the server.

    Raises:
        ServerError: The server does not describe its codec.
    """

    audio_step = 1 / 32768

    def __init__(self, client: CodecClient) -> None:
        self._client = client
        self._info = codec_info(client.model(), "/v1/model")

    @property
    def info(self) -> CodecInfo:
        """The codec's facts, as the server describes them."""
        return self._info

    def encode(
        self, audio: Float[np.ndarray, "channels samples"], num_quantizers: int
    ) -> Integer[np.ndarray, "num_quantizers frames"]:
        """Encode a clip, sent as a float32 wav file."""
        file = io.BytesIO()
        soundfile.write(file, audio.T, self._info.sampling_rate, format="WAV", subtype="FLOAT")
        found = self._client.encode(file.getvalue(), num_quantizers)
        self._check_rate(found.sampling_rate, "codes")
        return found.codes

    def decode(
        self, codes: Integer[np.ndarray, "num_quantizers frames"]
    ) -> Float[np.ndarray, "channels samples"]:
        """Decode codes, sent as a .moss document."""
        info = self._info
        document = AudioCodes(
            codes,
            info.sampling_rate,
            codes.shape[1] * info.downsample_rate,
            downsample_rate=info.downsample_rate,
            num_channels=info.num_channels,
            codebook_size=info.codebook_size,
            model=info.identity,
        )
        try:
            samples, rate = soundfile.read(
                io.BytesIO(self._client.decode(document)), dtype="float32", always_2d=True
            )
        except soundfile.SoundFileError as problem:
            raise ServerError(f"/v1/decode did not answer with a wav file ({problem})") from problem
        self._check_rate(rate, "audio")
        found: np.ndarray = samples.T
        return found

    def encode_live(
        self, audio: Float[np.ndarray, "channels samples"]
    ) -> Integer[np.ndarray, "num_quantizers frames"]:
        """Encode a clip by a live stream of uneven chunks."""
        step = self._info.downsample_rate
        frames = -(-audio.shape[1] // step)
        nothing = np.zeros((self._info.num_quantizers, 0), np.int64)
        with self._client.encode_stream() as stream:
            return _joined(stream.run(_chunks(audio, step)), nothing, frames)

    def decode_live(
        self, codes: Integer[np.ndarray, "num_quantizers frames"]
    ) -> Float[np.ndarray, "channels samples"]:
        """Decode codes by a live stream, to float32."""
        frames = [codes[:, frame : frame + 1] for frame in range(codes.shape[1])]
        nothing = np.zeros((self._info.num_channels, 0), np.float32)
        samples = codes.shape[1] * self._info.downsample_rate
        with self._client.decode_stream(len(codes)) as stream:
            return _joined(stream.run(frames), nothing, samples)

    def _check_rate(self, rate: int, what: str) -> None:
        if rate != self._info.sampling_rate:
            raise ServerError(
                f"the server's {what} are at {rate} Hz; expected {self._info.sampling_rate}, as "
                "/v1/model says"
            )


def _chunks(audio: np.ndarray, step: int) -> Iterator[np.ndarray]:
    start = number = 0
    while start < audio.shape[1]:
        stop = start + max(1, round(_CHUNK_FRAMES[number % len(_CHUNK_FRAMES)] * step))
        yield audio[:, start:stop]
        start, number = stop, number + 1


def _joined(parts: Iterable[np.ndarray], nothing: np.ndarray, expected: int) -> np.ndarray:
    """Join the results of a stream; stops at a stream that gives too much."""
    found = [nothing]
    for part in parts:
        found.append(part)
        if sum(each.shape[1] for each in found) > expected:
            raise ServerError(f"the stream gave more than the {expected} entries that are due")
    return np.concatenate(found, axis=1)
