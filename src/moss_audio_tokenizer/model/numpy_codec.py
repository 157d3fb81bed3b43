"""A PyTorch codec behind the `Codec` protocol: NumPy in, NumPy out."""

from pathlib import Path

import numpy as np
from jaxtyping import Float, Integer

from ..codes.codec import CodecInfo
from .hf import MossAudioTokenizerModel


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
        compute_dtype: str = "fp32",
        deterministic: bool = False,
    ) -> "TorchCodec":
        """Load a model folder, a hub id, or "bundled", onto a device.

        Raises:
            CheckpointError, ConfigError: see `MossAudioTokenizerModel.from_pretrained`.
        """
        model = MossAudioTokenizerModel.from_pretrained(path, parts=parts, device_map=device)
        model.set_compute_dtype(compute_dtype)
        return cls(model, deterministic)

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

    def decode(
        self,
        codes: Integer[np.ndarray, "num_quantizers frames"],
        *,
        chunk_duration: float | None = None,
    ) -> Float[np.ndarray, "channels samples"]:
        """Audio (float32) of codes."""
        decoded = self.model.decode(
            np.asarray(codes),
            chunk_duration=chunk_duration,
            deterministic=self.deterministic,
        )
        return decoded.audio[0].cpu().numpy()
