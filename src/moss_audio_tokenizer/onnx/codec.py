"""An exported model behind the `Codec` protocol: one clip at a time."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, Integer

from ..api.validation import require_one_clip
from ..codes.codec import CodecInfo
from ..config import CodecConfig
from ..streaming import DecoderStream, EncoderStream
from .tokenizer import OnnxAudioTokenizer


class OnnxCodec:
    """`codes.codec.Codec` on an `OnnxAudioTokenizer`."""

    def __init__(self, tokenizer: OnnxAudioTokenizer) -> None:
        self.tokenizer = tokenizer

    @classmethod
    def from_pretrained(
        cls, path: str | Path, device: str = "cpu", num_threads: int | None = None
    ) -> "OnnxCodec":
        """Load an exported folder, or "bundled".

        Raises:
            CheckpointError, ConfigError: see `OnnxAudioTokenizer.from_pretrained`.
        """
        return cls(OnnxAudioTokenizer.from_pretrained(path, device, num_threads))

    @property
    def config(self) -> CodecConfig:
        """What the codec is built like."""
        return self.tokenizer.config

    @property
    def info(self) -> CodecInfo:
        """What this codec is."""
        return self.tokenizer.info

    def encode(
        self,
        audio: Float[np.ndarray, "channels samples"],
        *,
        num_quantizers: int | None = None,
        chunk_duration: float | None = None,
    ) -> Integer[np.ndarray, "num_quantizers frames"]:
        """Codes (int64) of a clip."""
        encoded = self.tokenizer.encode(
            audio[None], num_quantizers=num_quantizers, chunk_duration=chunk_duration
        )
        return encoded.audio_codes[:, 0]

    def encode_batch(
        self, clips: Sequence[Float[np.ndarray, "channels _"]], *, num_quantizers: int | None = None
    ) -> list[Integer[np.ndarray, "num_quantizers _"]]:
        """Codes (int64) of clips at once; see `OnnxAudioTokenizer.encode_together`."""
        return self.tokenizer.encode_together(clips, num_quantizers)

    def decode(
        self,
        codes: Integer[np.ndarray, "num_quantizers frames"],
        *,
        chunk_duration: float | None = None,
    ) -> Float[np.ndarray, "channels samples"]:
        """Audio (float32) of codes."""
        require_one_clip(np.shape(codes))
        return self.tokenizer.decode(codes, chunk_duration=chunk_duration).audio[0]

    def encoder_stream(
        self, max_slots: int = 64, max_chunk_frames: int = 25, num_quantizers: int | None = None
    ) -> EncoderStream:
        """See `OnnxAudioTokenizer.encoder_stream`."""
        return self.tokenizer.encoder_stream(max_slots, max_chunk_frames, num_quantizers)

    def decoder_stream(self, max_slots: int = 64, max_chunk_frames: int = 25) -> DecoderStream:
        """See `OnnxAudioTokenizer.decoder_stream`."""
        return self.tokenizer.decoder_stream(max_slots, max_chunk_frames)
