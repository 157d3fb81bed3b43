"""Explicit state of a stream: the keys and values that later steps still see.

Typed, made by the modules' ``init_state``, passed in as an argument, advanced by the
forward that owns it; no module holds a stream. Knows nothing of how attention works.
"""

from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass
class LayerCache:
    """The last ``capacity`` keys and values of one attention layer, oldest first.

    Attributes:
        capacity: entries that a later step can still see: the attention window less one.
        keys: rotated keys, or None before the first step.
        values: values, or None before the first step.
    """

    capacity: int
    keys: Float[Tensor, "batch heads past head_dim"] | None = None
    values: Float[Tensor, "batch heads past head_dim"] | None = None

    def extend(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Past and new entries together, of which the last ``capacity`` are kept."""
        if self.keys is not None and self.values is not None:
            keys = torch.cat((self.keys, keys), dim=2)
            values = torch.cat((self.values, values), dim=2)
        # Cloned, so that the cache holds its window alone and not the whole piece's memory.
        self.keys = _tail(keys, self.capacity)
        self.values = _tail(values, self.capacity)
        return keys, values


def _tail(entries: Tensor, capacity: int) -> Tensor:
    return entries[:, :, max(0, entries.shape[2] - capacity) :].clone()


@dataclass
class StageState:
    """Where a stage stands in its stream.

    Attributes:
        layers: one cache for each attention layer.
        position: steps that came before; every row of the batch stands at the same step.
    """

    layers: list[LayerCache]
    position: int = 0

    @property
    def num_past(self) -> int:
        """Entries that each layer's cache holds."""
        return min(self.position, self.layers[0].capacity)


@dataclass
class StackState:
    """State of an encoder or a decoder: one `StageState` for each of its Transformer stages."""

    stages: list[StageState] = field(default_factory=list)
