"""Attention for whole clips, chunk by chunk: a sliding KV cache, and the chunk's own steps.

All rows of a batch are at the same position. Keys and values are contiguous, so that attention
can be cut into blocks; for steps of a few frames ring caches (`ring_cache.py`) are cheaper.

On a CPU a block of queries is two products and a softmax. For inference nothing need be kept
for gradients: a block's scores are made, masked and normalized in one memory, and only its
edges are masked (docs/benchmarks.md has the measurement).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from ..model.attention import Window, plan_window, windowed_attention
from .stage import InferenceStage, rotate_heads

# Queries a block: so that a block's scores of a few heads stay in the processor's cache.
_BLOCK = 96


@dataclass
class SlidingKVCache:
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
        """Return cached and new entries together, and keep the last ``capacity`` of them."""
        if self.keys is not None and self.values is not None:
            keys = torch.cat((self.keys, keys), dim=2)
            values = torch.cat((self.values, values), dim=2)
        # Cloned, so that the cache holds its window alone and not the whole chunk's memory.
        self.keys = _tail(keys, self.capacity)
        self.values = _tail(values, self.capacity)
        return keys, values


def _tail(entries: Tensor, capacity: int) -> Tensor:
    return entries[:, :, max(0, entries.shape[2] - capacity) :].clone()


@dataclass
class ChunkState:
    """The KV caches of one stage, and its position.

    Attributes:
        layers: one cache for each attention layer.
        position: steps that came before; every row of the batch is at the same step.
    """

    layers: list[SlidingKVCache]
    position: int = 0

    @classmethod
    def of(cls, stage: InferenceStage) -> "ChunkState":
        """The state before the first chunk."""
        return cls([SlidingKVCache(stage.context_steps - 1) for _ in stage.layers])

    @property
    def num_past(self) -> int:
        """Entries that each layer's cache holds."""
        return min(self.position, self.layers[0].capacity)


class ChunkAttention:
    """`Attention` of the next ``num_steps`` steps of a stage.

    Args:
        stage: the stage that will be run.
        num_steps: steps of the chunk.
        device: where the chunk is.
        state: KV caches of earlier chunks; its position advances. None: one chunk is all.
    """

    def __init__(
        self,
        stage: InferenceStage,
        num_steps: int,
        device: torch.device,
        state: ChunkState | None = None,
    ) -> None:
        position, num_past = (0, 0) if state is None else (state.position, state.num_past)
        steps = torch.arange(position, position + num_steps, device=device)
        self._rotations = stage.rotations(steps)[:, None, None]
        self._backend = stage.attention_backend
        self._caches = None if state is None else state.layers
        # While every query sees all steps before it, PyTorch's causal attention is as fast.
        slides = num_past > 0 or num_steps > stage.context_steps
        self._window: BandedWindow | Window
        if slides and device.type == "cpu" and self._backend == "sdpa":
            self._window = BandedWindow(num_steps, num_past, stage.context_steps)
        else:
            self._window = plan_window(num_steps, num_past, stage.context_steps, device)
        if state is not None:
            state.position += num_steps

    def __call__(
        self, layer: int, heads: Float[Tensor, "rows steps 3 heads head_dim"]
    ) -> Float[Tensor, "rows steps width"]:
        """Rotate, extend the cache, attend within the window."""
        query, key, value = rotate_heads(heads, self._rotations).transpose(1, 3).unbind(2)
        if self._caches is not None:
            key, value = self._caches[layer].extend(key, value)
        if isinstance(self._window, BandedWindow):
            return self._window.attend(query, key, value)
        attended = windowed_attention(query, key, value, self._window, self._backend)
        return attended.transpose(1, 2).flatten(2)


class BandBlock(NamedTuple):
    """A block of queries, the keys that any of them sees, and the masks of both edges.

    Attributes:
        queries: the steps of the queries.
        keys: the steps of the keys.
        too_old: 0, or minus infinity where one of the first keys has left a query's window.
        future: the same for the last keys, where they follow the query.
    """

    queries: slice
    keys: slice
    too_old: Float[Tensor, "queries first"]
    future: Float[Tensor, "queries last"]


class BandedWindow:
    """Windowed attention in blocks of queries, on a CPU; shared by a stage's layers.

    Args:
        num_queries: new steps.
        num_past: steps before them that the cache holds.
        context: keys that a query sees, its own included.
    """

    def __init__(self, num_queries: int, num_past: int, context: int) -> None:
        self._num_queries, self._num_past, self._context = num_queries, num_past, context

    @cached_property
    def blocks(self) -> list[BandBlock]:
        """The queries in order."""
        return list(self._cut())

    def _cut(self) -> Iterator[BandBlock]:
        edges: dict[tuple[int, int], tuple[Tensor, Tensor]] = {}
        for start in range(0, self._num_queries, _BLOCK):
            stop = min(start + _BLOCK, self._num_queries)
            # The first key that the block's first query sees; negative: before the first key.
            oldest = self._num_past + start - self._context + 1
            shape = stop - start, min(oldest, 0)
            if shape not in edges:
                edges[shape] = _edges(*shape)
            keys = slice(max(0, oldest), self._num_past + stop)
            yield BandBlock(slice(start, stop), keys, *edges[shape])

    def attend(
        self,
        query: Float[Tensor, "batch heads queries head_dim"],
        key: Float[Tensor, "batch heads keys head_dim"],
        value: Float[Tensor, "batch heads keys head_dim"],
    ) -> Float[Tensor, "batch queries width"]:
        """Attention; scores in float32, whatever the type of the values."""
        batch, heads, steps, size = query.shape
        query, key = query.float().flatten(0, 1) * size**-0.5, key.float().flatten(0, 1)
        value = value.flatten(0, 1)
        out = value.new_empty(batch, steps, heads, size)
        for block in self.blocks:
            weights = _weights(query[:, block.queries], key[:, block.keys], block)
            attended = torch.bmm(weights.to(value.dtype), value[:, block.keys])
            out[:, block.queries] = attended.unflatten(0, (batch, heads)).transpose(1, 2)
        return out.flatten(2)


def _edges(queries: int, offset: int) -> tuple[Tensor, Tensor]:
    """The masks of the first and of the last keys of a block of so many queries."""
    own = torch.arange(queries)[:, None]
    first = torch.arange(max(0, queries - 1 + offset))
    return _masked(first < own + offset), _masked(torch.arange(queries) > own)


def _masked(where: Tensor) -> Tensor:
    return torch.zeros(where.shape).masked_fill_(where, -torch.inf)


def _weights(query: Tensor, key: Tensor, block: BandBlock) -> Tensor:
    scores = torch.bmm(query, key.transpose(1, 2))
    scores[:, :, : block.too_old.shape[1]] += block.too_old
    scores[:, :, scores.shape[2] - block.future.shape[1] :] += block.future
    return torch.softmax(scores, -1, out=scores)
