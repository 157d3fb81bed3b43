"""Where the weights of a graph come from: files of a checkpoint, or arrays in memory.

The writers see one interface; `checkpoint.stored_weights` has the files behind it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from ..config import CodecConfig


class WeightTensor(Protocol):
    """A weight: its values, and the type and shape that they are stored in."""

    @property
    def dtype(self) -> str:
        """The name that safetensors has for the type, such as "F16"."""
        ...

    @property
    def shape(self) -> tuple[int, ...]:
        """The sizes of its axes."""
        ...

    def read(self) -> np.ndarray:
        """The values."""
        ...


class Weights(Protocol):
    """The weights of a codec, by their v1 names."""

    @property
    def config(self) -> CodecConfig:
        """What the codec is built like."""
        ...

    def __contains__(self, name: Any) -> bool: ...

    def tensor(self, name: str) -> WeightTensor:
        """A weight by its v1 name."""
        ...


@dataclass(frozen=True)
class ArrayTensor:
    """A weight in memory, in float32."""

    values: np.ndarray
    dtype: str = "F32"

    @property
    def shape(self) -> tuple[int, ...]:
        """The sizes of its axes."""
        return self.values.shape

    def read(self) -> np.ndarray:
        """The values, not copied."""
        return self.values


class ArrayWeights:
    """Weights in memory; a graph gets copies of them.

    Args:
        config: of the codec.
        arrays: float32 arrays by their v1 names; those of one direction are enough for its graph.
    """

    def __init__(self, config: CodecConfig, arrays: Mapping[str, np.ndarray]) -> None:
        self.config = config
        self._arrays = arrays

    def __contains__(self, name: Any) -> bool:
        return name in self._arrays

    def tensor(self, name: str) -> ArrayTensor:
        """A weight by its v1 name."""
        return ArrayTensor(self._arrays[name])

    def num_bytes(self) -> int:
        """Memory of all weights."""
        return sum(array.nbytes for array in self._arrays.values())
