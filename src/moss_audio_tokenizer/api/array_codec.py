"""A model's verbs behind the protocol `codes.StreamingCodec`: NumPy arrays, a clip at a time.

Owns what PyTorch and ONNX share there; a runtime adds how it loads, and how its arrays become
NumPy's.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Integer

from ..codes import CodecInfo
from ..config import CodecConfig
from ..streaming import DecoderStream, EncoderStream
from ..streaming.engine import StepEngine
from .validation import require_one_clip


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
        array: np.ndarray = values
        return array

    def _engine(self, engine: StepEngine) -> StepEngine:
        """An engine of the model whose results are NumPy arrays."""
        return engine

    @property
    def config(self) -> CodecConfig:
        """How the codec is built."""
        config: CodecConfig = self.model._codec_config()
        return config

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
        require_one_clip(np.shape(codes))
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
