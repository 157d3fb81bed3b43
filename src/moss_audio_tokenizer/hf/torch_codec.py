"""A PyTorch codec behind the `Codec` protocol: NumPy in, NumPy out."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..codes.codec import ArrayCodec
from ..config import CodecConfig
from ..model.inputs import require_device
from ..streaming.engine import StepEngine
from .modeling import MossAudioTokenizerConfig, MossAudioTokenizerModel


class TorchCodec(ArrayCodec):
    """`codes.StreamingCodec` on a `MossAudioTokenizerModel`."""

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

    def _array(self, values: Tensor) -> np.ndarray:
        return values.cpu().numpy()

    def _engine(self, engine: StepEngine) -> StepEngine:
        return NumpyEngine(engine)


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
        """Advance the streams of some slots, and return their results."""
        return {slot: result.numpy() for slot, result in self._engine.step(chunks).items()}

    def join_results(self, results: Sequence[np.ndarray]) -> np.ndarray:
        """Results of one stream in a row; an empty one if there are none."""
        if len(results) == 1:
            return results[0]
        joined: Tensor = self._engine.join_results([torch.from_numpy(item) for item in results])
        return joined.numpy()
