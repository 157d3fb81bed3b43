"""What programs that move audio and codes ask of a model: the protocols of a codec.

NumPy in, NumPy out, so that any runtime (PyTorch, ONNX, a server) can stand behind them; a
model's own verbs do as `ArrayCodec`. Codecs work through clips chunk by chunk, and `watched` shows
how far they are. Knows nothing of models or files.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Integer

from ..config import CodecConfig
from ..errors import CodesError
from ..streaming import DecoderStream, EncoderStream
from ..streaming.engine import StepEngine


@dataclass(frozen=True)
class CodecInfo:
    """What a codec is, as far as its codes are concerned.

    Attributes:
        identity: 16 hexadecimal digits of the SHA-256 over everything that gives codes their
            meaning (quantizer tensors and rates); equal for models whose codes are
            interchangeable, such as one with a fine-tuned decoder.
        sampling_rate: samples a second and channel.
        num_channels: channels of the audio.
        downsample_rate: samples a frame and channel.
        num_quantizers: layers of the residual quantizer.
        codebook_size: entries of each codebook; codes are 0 .. codebook_size - 1.
    """

    identity: str
    sampling_rate: int
    num_channels: int
    downsample_rate: int
    num_quantizers: int
    codebook_size: int

    @classmethod
    def of(cls, identity: str, config: CodecConfig) -> "CodecInfo":
        """What a codec with this configuration is."""
        return cls(
            identity=identity,
            sampling_rate=config.sampling_rate,
            num_channels=config.number_channels,
            downsample_rate=config.downsample_rate,
            num_quantizers=config.quantizer.num_quantizers,
            codebook_size=config.quantizer.codebook_size,
        )

    @property
    def frame_rate(self) -> float:
        """Frames a second."""
        return self.sampling_rate / self.downsample_rate

    def bitrate(self, num_quantizers: int | None = None) -> float:
        """Nominal bits a second with the first ``num_quantizers`` layers (default: all)."""
        layers = self.num_quantizers if num_quantizers is None else num_quantizers
        return layers * (self.codebook_size - 1).bit_length() * self.frame_rate


@runtime_checkable
class Codec(Protocol):
    """Audio to codes and back, in NumPy arrays."""

    @property
    def info(self) -> CodecInfo:
        """What this codec is."""
        ...

    def encode(
        self,
        audio: Float[np.ndarray, "channels samples"],
        *,
        num_quantizers: int | None = None,
        chunk_duration: float | None = None,
    ) -> Integer[np.ndarray, "num_quantizers frames"]:
        """Codes (int64) of a clip, ceil(samples / downsample_rate) frames."""
        ...

    def decode(
        self,
        codes: Integer[np.ndarray, "num_quantizers frames"],
        *,
        chunk_duration: float | None = None,
    ) -> Float[np.ndarray, "channels samples"]:
        """Audio (float32) of codes, frames * downsample_rate samples."""
        ...

    def encode_batch(
        self, clips: Sequence[Float[np.ndarray, "channels _"]], *, num_quantizers: int | None = None
    ) -> list[Integer[np.ndarray, "num_quantizers _"]]:
        """Codes (int64) of clips of any lengths, up to rounding those of each by itself.

        A codec that does not say how computes them one by one.
        """
        return [self.encode(clip, num_quantizers=num_quantizers) for clip in clips]


@runtime_checkable
class StreamingCodec(Codec, Protocol):
    """A codec that also opens sessions for streams."""

    def encoder_stream(self, max_slots: int = 64, max_chunk_frames: int = 25) -> EncoderStream:
        """Open a session that encodes audio."""
        ...

    def decoder_stream(self, max_slots: int = 64, max_chunk_frames: int = 25) -> DecoderStream:
        """Open a session that decodes codes."""
        ...


def encode_clips(
    codec: Codec,
    clips: Sequence[Float[np.ndarray, "channels _"]],
    num_quantizers: int | None = None,
    together: bool = False,
) -> list[Integer[np.ndarray, "num_quantizers _"]]:
    """Codes of several clips.

    Args:
        codec: what encodes; one without ``encode_batch`` takes them one by one.
        clips: samples of any lengths.
        num_quantizers: layers of codes (default: all).
        together: compute them at once, which is faster; codes then depend on the others by the
            rounding of sums.

    Raises:
        AudioError, CodesError: of any of them.
    """
    if together and hasattr(codec, "encode_batch"):
        return codec.encode_batch(clips, num_quantizers=num_quantizers)
    return [codec.encode(clip, num_quantizers=num_quantizers) for clip in clips]


_report: ContextVar[Callable[[int, int], None] | None] = ContextVar("report", default=None)


@contextmanager
def watched(report: Callable[[int, int], None]) -> Iterator[None]:
    """Have ``report`` called with the frames done and the frames in all, in this thread."""
    token = _report.set(report)
    try:
        yield
    finally:
        _report.reset(token)


def reported(chunks: Iterable[slice], num_frames: int) -> Iterator[slice]:
    """The same chunks of a clip; each is reported as done when the next one is asked for."""
    report = _report.get()
    for chunk in chunks:
        yield chunk
        if report is not None:
            report(chunk.stop, num_frames)


class ArrayCodec:
    """A codec for programs.

    Args:
        model: a model with the verbs of `CodecVerbs`.
        deterministic: compute every clip by itself.
    """

    def __init__(self, model: Any, deterministic: bool = False) -> None:
        self.model = model
        self.deterministic = deterministic
        self._info = CodecInfo.of(model.identity, self.config)

    def _array(self, values: Any) -> np.ndarray:
        """A result of the model as a NumPy array."""
        return values

    def _engine(self, engine: StepEngine) -> StepEngine:
        """An engine of the model whose results are NumPy arrays."""
        return engine

    @property
    def config(self) -> CodecConfig:
        """How the codec is built."""
        return self.model._codec_config()

    @property
    def info(self) -> CodecInfo:
        """What this codec is."""
        return self._info

    def encode(
        self,
        audio: Float[np.ndarray, "channels samples"],
        *,
        num_quantizers: int | None = None,
        chunk_duration: float | None = None,
    ) -> Integer[np.ndarray, "num_quantizers frames"]:
        """Codes (int64) of a clip."""
        options = {"chunk_duration": chunk_duration, "deterministic": self.deterministic}
        encoded = self.model.encode(
            audio[None], num_quantizers=num_quantizers, return_dict=True, **options
        )
        return self._array(encoded.audio_codes[:, 0])

    def encode_batch(
        self, clips: Sequence[Float[np.ndarray, "channels _"]], *, num_quantizers: int | None = None
    ) -> list[Integer[np.ndarray, "num_quantizers _"]]:
        """Codes (int64) of clips that are computed at once, also on a CPU.

        Sums are then rounded in another order than in `encode`, so that a few codes depend on the
        batch.
        """
        return [self._array(row) for row in self.model.encode_together(clips, num_quantizers)]

    def decode(
        self,
        codes: Integer[np.ndarray, "num_quantizers frames"],
        *,
        chunk_duration: float | None = None,
    ) -> Float[np.ndarray, "channels samples"]:
        """Audio (float32) of codes."""
        if np.ndim(codes) != 2:
            raise CodesError(
                f"codes have shape {list(np.shape(codes))}; expected (num_quantizers, frames), the "
                "codes of one clip: decode the clips of a batch one by one, as codes[:, i], or "
                "codes[i] where the batch comes first"
            )
        options = {"chunk_duration": chunk_duration, "deterministic": self.deterministic}
        decoded = self.model.decode(np.asarray(codes), return_dict=True, **options)
        return self._array(decoded.audio[0])

    def encoder_stream(
        self, max_slots: int = 64, max_chunk_frames: int = 25, num_quantizers: int | None = None
    ) -> EncoderStream:
        """Open a session that encodes audio."""
        stream = self.model.encoder_stream(max_slots, max_chunk_frames, num_quantizers)
        return EncoderStream(self._engine(stream.engine), stream.pads_last_frame)

    def decoder_stream(self, max_slots: int = 64, max_chunk_frames: int = 25) -> DecoderStream:
        """Open a session that decodes codes."""
        stream = self.model.decoder_stream(max_slots, max_chunk_frames)
        return DecoderStream(self._engine(stream.engine))
