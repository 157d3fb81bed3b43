"""Ring KV caches of many streams, each at its own position, and attention to them in PyTorch.

Every stream has a slot. A stage's ring holds the attention window and the longest chunk less
one, so that the steps of a chunk can be written before they attend and still see their whole
window. Entries beyond a stream's position are masked, so a step that fails leaves every stream
as it was, and a reset changes the position alone. Knows the modules' shapes, not their weights.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..errors import InputError
from .stage import InferenceStage, rotate_heads

# Elements to which PyTorch's fused attention wants the rows of a mask aligned on a GPU.
_ALIGNMENT = 8


@dataclass
class RingKVCache:
    """Positions and ring KV caches of all streams of an encoder or a decoder.

    Attributes:
        positions: frames that each slot's stream has processed.
        rings: for each stage a tensor (slots, layers, keys and values, heads, entries, head_dim);
            the last entry is never read: what is not to be stored is written there.
    """

    positions: Int[Tensor, "slots"]
    rings: list[Float[Tensor, "slots ..."]]

    def reset(self, slots: Sequence[int] | None = None) -> None:
        """Restart the streams in ``slots`` (default: all)."""
        self.positions[slice(None) if slots is None else list(slots)] = 0

    def copy_slot(self, source: int, target: int) -> None:
        """Make the stream in slot ``target`` a copy of the one in ``source``."""
        for tensor in self.to_tensors().values():
            tensor[target] = tensor[source]

    def clone(self) -> "RingKVCache":
        """Return an independent copy."""
        return RingKVCache(self.positions.clone(), [ring.clone() for ring in self.rings])

    def num_bytes(self) -> int:
        """Memory that the state takes; it never grows."""
        return sum(item.numel() * item.element_size() for item in self.to_tensors().values())

    def to_tensors(self) -> dict[str, Tensor]:
        """Named tensors, for a file."""
        named = {f"stages.{stage}.0": ring for stage, ring in enumerate(self.rings)}
        return {"positions": self.positions, **named}

    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Copy what `to_tensors` returned.

        Raises:
            InputError: names, shapes or types differ from this state's; nothing is changed then.
        """
        own = self.to_tensors()
        if describe_tensors(tensors) != describe_tensors(own):
            raise InputError(
                "the saved streams are of another model, precision, number of slots or chunk "
                "length; restore them into a session made in the same way"
            )
        for name, tensor in own.items():
            tensor.copy_(tensors[name])


def describe_tensors(tensors: Mapping[str, Tensor]) -> dict[str, tuple[object, ...]]:
    """Names, shapes and types."""
    return {name: (*tensor.shape, tensor.dtype) for name, tensor in tensors.items()}


@dataclass(frozen=True)
class StepBatch:
    """Which streams take part in a step, and with how many frames; the same for all stages.

    Attributes:
        slots: the slot of each row.
        starts: frames that each row's stream has processed.
        num_frames: new frames of each row; 0 for a row that only pads the batch.
        longest: frames to which rows are padded.
        runs: rows and slots of each run of neighboring slots: rings are never gathered.
    """

    slots: Int[Tensor, "rows"]
    starts: Int[Tensor, "rows"]
    num_frames: Int[Tensor, "rows"]
    longest: int
    runs: list[tuple[slice, slice]]

    @classmethod
    def of(cls, state: RingKVCache, slots: Sequence[int], num_frames: Sequence[int]) -> "StepBatch":
        """Rows for ascending ``slots``."""
        device = state.positions.device
        index = torch.tensor(slots, device=device)
        frames = torch.tensor(num_frames, device=device)
        return cls(index, state.positions[index], frames, max(num_frames), contiguous_runs(slots))

    @classmethod
    def fixed(
        cls, state: RingKVCache, num_frames: Int[Tensor, "rows"], longest: int
    ) -> "StepBatch":
        """Rows for the first slots, all of them: shapes alone decide what is computed."""
        count = len(num_frames)
        index = torch.arange(count, device=num_frames.device)
        run = (slice(0, count), slice(0, count))
        return cls(index, state.positions[:count].clone(), num_frames, longest, [run])

    def advance(self, state: RingKVCache) -> None:
        """Move the streams' positions past the new frames."""
        state.positions[self.slots] = self.starts + self.num_frames

    def steps_of(self, stage: InferenceStage) -> Int[Tensor, "rows steps"]:
        """Positions of a stage's new steps."""
        offsets = torch.arange(self.longest * stage.steps_per_frame, device=self.starts.device)
        return (self.starts * stage.steps_per_frame)[:, None] + offsets


def init_ring(
    stage: InferenceStage,
    num_slots: int,
    max_chunk_frames: int,
    dtype: torch.dtype,
    device: torch.device,
) -> Float[Tensor, "slots layers 2 heads entries head_dim"]:
    """An empty ring for the streams of a stage."""
    capacity = stage.context_steps + max_chunk_frames * stage.steps_per_frame - 1
    shape = (num_slots, len(stage.layers), 2, stage.num_heads, capacity + 1, stage.head_dim)
    return torch.zeros(shape, dtype=dtype, device=device)


class RingAttention:
    """`Attention` of one step of many streams through a stage, on any device.

    Args:
        stage: the stage that will be run.
        ring: the stage's ring; written in place.
        batch: the streams that take part.
    """

    def __init__(
        self,
        stage: InferenceStage,
        ring: Float[Tensor, "slots layers 2 heads _ head_dim"],
        batch: StepBatch,
    ) -> None:
        self._ring = ring
        self._capacity = ring.shape[4] - 1
        steps = batch.steps_of(stage)
        offsets = torch.arange(steps.shape[1], device=ring.device)
        stored = offsets < (batch.num_frames * stage.steps_per_frame)[:, None]
        self._rotations = stage.rotations(steps)[:, :, None, None]
        self._mask = self._visible(steps, stage.context_steps)
        self._rows = self._written_rows(steps, stored, batch.slots)
        self._runs = batch.runs

    def _visible(self, steps: Int[Tensor, "rows steps"], context: int) -> Tensor:
        """0 where a query sees an entry of the ring, minus infinity where not.

        Entry e holds the newest step that is e modulo the capacity; (query - e) modulo the
        capacity is how far back that step is. Steps of the chunk after the query come out as
        further back than the window, since the ring is longer than it by a chunk.
        """
        entries = torch.arange(self._capacity, device=steps.device)
        distance = (steps[:, :, None] - entries) % self._capacity
        hidden = distance >= (steps + 1).clamp_max(context)[:, :, None]
        # Aligned as a GPU's kernels want it, or every layer would copy the whole mask first.
        aligned = -(-self._capacity // _ALIGNMENT) * _ALIGNMENT
        mask = self._ring.new_zeros(*steps.shape, aligned)[..., : self._capacity]
        return mask.masked_fill_(hidden, float("-inf"))[:, None]

    def _written_rows(
        self, steps: Int[Tensor, "rows steps"], stored: Bool[Tensor, "rows steps"], slots: Tensor
    ) -> Int[Tensor, "_"]:
        """Where the first layer's keys and values go: rows of the ring, viewed as a matrix."""
        entry = torch.where(stored, steps % self._capacity, self._capacity)
        num_layers, num_vectors = self._ring.shape[1], 2 * self._ring.shape[3]
        first = slots[:, None] * (num_layers * num_vectors)
        first = first + torch.arange(num_vectors, device=steps.device)
        return (first[:, :, None] * (self._capacity + 1) + entry[:, None]).flatten()

    def __call__(
        self, layer: int, heads: Float[Tensor, "rows steps 3 heads head_dim"]
    ) -> Float[Tensor, "rows steps width"]:
        """Rotate, write keys and values into the ring, attend to the ring."""
        ring, head_dim = self._ring[:, layer], heads.shape[-1]
        heads = rotate_heads(heads, self._rotations).to(ring.dtype)
        new = heads[:, :, 1:].permute(0, 2, 3, 1, 4).reshape(-1, head_dim)
        first = layer * ring[0].numel() // head_dim
        self._ring.view(-1, head_dim)[first:].index_copy_(0, self._rows, new)
        query = heads[:, :, 0].transpose(1, 2)
        keys, values = ring[:, :, :, : self._capacity].unbind(1)
        parts = [
            F.scaled_dot_product_attention(
                query[rows], keys[slots], values[slots], attn_mask=self._mask[rows]
            )
            for rows, slots in self._runs
        ]
        attended = parts[0] if len(parts) == 1 else torch.cat(parts)
        return attended.transpose(1, 2).flatten(2)


def contiguous_runs(slots: Sequence[int]) -> list[tuple[slice, slice]]:
    """Rows and slots of each run of neighboring slots."""
    starts = [i for i, slot in enumerate(slots) if i == 0 or slot != slots[i - 1] + 1]
    stops = [*starts[1:], len(slots)]
    return [
        (slice(start, stop), slice(slots[start], slots[start] + stop - start))
        for start, stop in zip(starts, stops, strict=True)
    ]


def next_power_of_two(count: int) -> int:
    """The smallest power of two that is at least ``count``."""
    return 1 << (count - 1).bit_length()
