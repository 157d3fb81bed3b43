"""Attention within a window on a CPU: two products and a softmax for each block of queries.

For inference only, where nothing need be kept for gradients: a block's scores are made, masked
and normalised in one memory, and only its edges are masked (docs/benchmarks.md says what that
gains). Owns the plan of blocks and their arithmetic.
"""

from collections.abc import Iterator
from functools import cached_property
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

# Queries a block: so that a block's scores of a few heads stay in the processor's cache.
_BLOCK = 96


class BandBlock(NamedTuple):
    """A stretch of queries, the keys that any of them sees, and what the edges hide.

    Attributes:
        queries: their steps.
        keys: theirs.
        too_old: 0, or minus infinity where one of the first keys has left a query's window.
        to_come: the same for the last keys, where they follow the query.
    """

    queries: slice
    keys: slice
    too_old: Float[Tensor, "queries first"]
    to_come: Float[Tensor, "queries last"]


class Band:
    """How new steps see the steps before and one another; shared by a stage's layers.

    Args:
        num_queries: new steps.
        num_past: steps before that are still kept.
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
            # The first key that the block's first query sees, were there keys before all.
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
        """Attention; scores in float32, whatever the values are."""
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
    """What the first and the last keys of a block hide.

    Args:
        queries: of the block.
        offset: 0, or below it by how much the window of the first query reaches before all keys.
    """
    own = torch.arange(queries)[:, None]
    first = torch.arange(max(0, queries - 1 + offset))
    return _hidden(first < own + offset), _hidden(torch.arange(queries) > own)


def _hidden(where: Tensor) -> Tensor:
    return torch.zeros(where.shape).masked_fill_(where, -torch.inf)


def _weights(query: Tensor, key: Tensor, block: BandBlock) -> Tensor:
    scores = torch.bmm(query, key.transpose(1, 2))
    scores[:, :, : block.too_old.shape[1]] += block.too_old
    scores[:, :, scores.shape[2] - block.to_come.shape[1] :] += block.to_come
    return torch.softmax(scores, -1, out=scores)
