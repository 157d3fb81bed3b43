"""A PyTorch codec behind the `Codec` protocol: NumPy in, NumPy out."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Integer
from torch import Tensor

from ..api.validation import require_one_clip
from ..codes.codec import CodecInfo
from ..config import CodecConfig
from ..model.devices import require_device
from ..streaming import DecoderStream, EncoderStream
from .modeling import MossAudioTokenizerConfig, MossAudioTokenizerModel


class TorchCodec:
    """`codes.codec.Codec` on a `MossAudioTokenizerModel`."""

    def __init__(self, model: MossAudioTokenizerModel, deterministic: bool = False) -> None:
        self.model = model
        self.deterministic = deterministic
        config = model.config.codec
        self._info = CodecInfo(
            identity=model.identity,
            sampling_rate=config.sampling_rate,
            num_channels=config.number_channels,
            downsample_rate=config.downsample_rate,
            num_quantizers=config.quantizer.num_quantizers,
            codebook_size=config.quantizer.codebook_size,
        )

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path,
        parts: str = "all",
        device: str = "cpu",
        compute_dtype: str | None = "fp32",
        deterministic: bool = False,
        attention: str | None = None,
    ) -> "TorchCodec":
        """Load a model folder, a hub id, or "bundled", onto a device.

        Args:
            path: where the model is.
            parts: "all", "encoder" or "decoder"; the quantizer comes with each.
            device: where it computes.
            compute_dtype: "fp32", "bf16" or "fp16"; None for what its config.json says.
            deterministic: compute every clip by itself.
            attention: "sdpa", "flash_attention_2" or "flex_attention"; None for what its
                config.json says.

        Raises:
            CheckpointError, ConfigError: the model cannot be loaded, or there is no such device,
                dtype or attention implementation.
        """
        model = MossAudioTokenizerModel.from_pretrained(path, parts=parts, device_map=device)
        if compute_dtype is not None:
            model.set_compute_dtype(compute_dtype)
        if attention is not None:
            model.set_attention_implementation(attention)
        return cls(model, deterministic)

    @classmethod
    def untrained(
        cls, config: CodecConfig, device: str = "cpu", compute_dtype: str = "fp32"
    ) -> "TorchCodec":
        """A codec with fresh weights, to measure with.

        Raises:
            ConfigError: no such device or dtype.
        """
        with require_device(device):  # a GPU draws billions of weights in a moment, a CPU does not
            model = MossAudioTokenizerModel(MossAudioTokenizerConfig.from_codec_config(config))
        model.set_compute_dtype(compute_dtype)
        return cls(model)

    @property
    def config(self) -> CodecConfig:
        """What the codec is built like."""
        return self.model.config.codec

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
        encoded = self.model.encode(
            audio[None],
            num_quantizers=num_quantizers,
            chunk_duration=chunk_duration,
            deterministic=self.deterministic,
        )
        return encoded.audio_codes[:, 0].cpu().numpy()

    def encode_batch(
        self, clips: Sequence[Float[np.ndarray, "channels _"]], *, num_quantizers: int | None = None
    ) -> list[Integer[np.ndarray, "num_quantizers _"]]:
        """Codes (int64) of clips that are computed at once, also on a CPU.

        Sums are then rounded another way than in `encode`, so that a few codes depend on the
        batch.
        """
        encoded = self.model.encode_together(clips, num_quantizers)
        return [codes.cpu().numpy() for codes in encoded]

    def decode(
        self,
        codes: Integer[np.ndarray, "num_quantizers frames"],
        *,
        chunk_duration: float | None = None,
    ) -> Float[np.ndarray, "channels samples"]:
        """Audio (float32) of codes."""
        require_one_clip(np.shape(codes))
        decoded = self.model.decode(
            np.asarray(codes),
            chunk_duration=chunk_duration,
            deterministic=self.deterministic,
        )
        return decoded.audio[0].cpu().numpy()

    def encoder_stream(
        self, max_slots: int = 64, max_chunk_frames: int = 25, num_quantizers: int | None = None
    ) -> EncoderStream:
        """`MossAudioTokenizerModel.encoder_stream` with NumPy arrays."""
        stream = self.model.encoder_stream(max_slots, max_chunk_frames, num_quantizers)
        return EncoderStream(NumpyEngine(stream.engine))

    def decoder_stream(self, max_slots: int = 64, max_chunk_frames: int = 25) -> DecoderStream:
        """`MossAudioTokenizerModel.decoder_stream` with NumPy arrays."""
        return DecoderStream(
            NumpyEngine(self.model.decoder_stream(max_slots, max_chunk_frames).engine)
        )


class NumpyEngine:
    """A PyTorch engine whose results are NumPy arrays; what comes in may be either.

    Args:
        engine: `engines.TorchEngine`, which does everything else.
    """

    def __init__(self, engine: Any) -> None:
        self._engine = engine
        engine.results_device = torch.device("cpu")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def step(self, chunks: Mapping[int, Tensor]) -> dict[int, np.ndarray]:
        """See `StepEngine.step`."""
        return {slot: result.numpy() for slot, result in self._engine.step(chunks).items()}

    def join_results(self, results: Sequence[np.ndarray]) -> np.ndarray:
        """See `StepEngine.join_results`."""
        if len(results) == 1:
            return results[0]
        joined: Tensor = self._engine.join_results([torch.from_numpy(item) for item in results])
        return joined.numpy()
