"""A codec behind a server, a clip at a time: what `evaluation.golden` verifies.

For servers that speak the protocol of this one, whatever they are written in.
"""

import io

import numpy as np
import soundfile
from jaxtyping import Float, Integer

from ..codes import AudioCodes, CodecInfo
from ..errors import ServerError
from .client import CodecClient

_PCM_STEP = 1 / 32768


class RemoteCodec:
    """See `evaluation.golden.Subject`; whole audio comes as a wav file in 16 bits.

    Args:
        client: of the server.

    Raises:
        ServerError: it does not say what its codec is.
    """

    audio_step = _PCM_STEP

    def __init__(self, client: CodecClient) -> None:
        self._client = client
        model = client.model()
        try:
            self._info = CodecInfo(
                identity=str(model["model"]),
                sampling_rate=int(model["sampling_rate"]),
                num_channels=int(model["num_channels"]),
                downsample_rate=int(model["samples_per_frame"]),
                num_quantizers=int(model["num_quantizers"]),
                codebook_size=int(model["codebook_size"]),
            )
        except (KeyError, TypeError, ValueError) as problem:
            raise ServerError(
                f"/v1/model does not say what the codec is ({problem}); expected model, "
                "sampling_rate, num_channels, samples_per_frame, num_quantizers, codebook_size"
            ) from problem

    @property
    def info(self) -> CodecInfo:
        """What the server says."""
        return self._info

    def encode(
        self, audio: Float[np.ndarray, "channels samples"], num_quantizers: int
    ) -> Integer[np.ndarray, "num_quantizers frames"]:
        """Codes of a wav file in float32."""
        file = io.BytesIO()
        soundfile.write(file, audio.T, self._info.sampling_rate, format="WAV", subtype="FLOAT")
        return self._client.encode(file.getvalue(), num_quantizers).codes

    def decode(
        self, codes: Integer[np.ndarray, "num_quantizers frames"]
    ) -> Float[np.ndarray, "channels samples"]:
        """Audio of a .moss document."""
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
        file = io.BytesIO(self._client.decode(document))
        samples: np.ndarray = soundfile.read(file, dtype="float32", always_2d=True)[0].T
        return samples

    def encode_live(
        self, audio: Float[np.ndarray, "channels samples"]
    ) -> Integer[np.ndarray, "num_quantizers frames"]:
        """Codes of a live stream."""
        with self._client.encode_stream() as stream:
            return np.concatenate(list(stream.run([audio])), axis=1)

    def decode_live(
        self, codes: Integer[np.ndarray, "num_quantizers frames"]
    ) -> Float[np.ndarray, "channels samples"]:
        """Audio of a live stream, in float32."""
        frames = [codes[:, frame : frame + 1] for frame in range(codes.shape[1])]
        with self._client.decode_stream(len(codes)) as stream:
            return np.concatenate(list(stream.run(frames)), axis=1)
