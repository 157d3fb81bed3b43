"""Memory of many streams, each at its own position: ring buffers of keys and values.

Every stream has a slot. A stage's ring holds the attention window and the longest chunk less
one, so that the steps of a chunk can be written before they attend and still see their whole
window. Entries beyond a stream's position are never seen, so a step that fails leaves every
stream as it was, and a reset needs to touch the position alone. Knows the modules' shapes, not
their weights.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ..errors import InputError
from .rotation import rotate_heads, rotations_of
from .stage import InferenceStage, Memory, layer_norm

# Entries of a mask's rows in whose multiples PyTorch's fused attention reads on a GPU.
_ALIGNMENT = 8


@dataclass
class RingKVCache:
    """Where every stream of an encoder or a decoder stands.

    Attributes:
        positions: frames that each slot's stream has seen.
        entries: for each stage the tensors of its rings, slots first.
    """

    positions: Int[Tensor, "slots"]
    entries: list[list[Float[Tensor, "slots ..."]]]

    def reset(self, slots: Sequence[int] | None = None) -> None:
        """Start the streams in ``slots`` (default: all) afresh."""
        self.positions[slice(None) if slots is None else list(slots)] = 0

    def copy_slot(self, source: int, target: int) -> None:
        """Make the stream in slot ``target`` a copy of the one in ``source``."""
        for tensor in self.to_tensors().values():
            tensor[target] = tensor[source]

    def clone(self) -> "RingKVCache":
        """An independent copy."""
        entries = [[tensor.clone() for tensor in stage] for stage in self.entries]
        return RingKVCache(self.positions.clone(), entries)

    def num_bytes(self) -> int:
        """Memory that the state holds; it never grows."""
        return sum(item.numel() * item.element_size() for item in self.to_tensors().values())

    def to_tensors(self) -> dict[str, Tensor]:
        """Named tensors, for a file."""
        named = {
            f"stages.{stage}.{index}": tensor
            for stage, entries in enumerate(self.entries)
            for index, tensor in enumerate(entries)
        }
        return {"positions": self.positions, **named}

    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over what `to_tensors` gave.

        Raises:
            InputError: names, shapes or types are not this state's; nothing is changed then.
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
    """Which streams take part in a step; the same for all stages.

    Attributes:
        slots: of each row.
        starts: frames that each row's stream has seen.
        num_frames: new frames of each row; none for a row that only fills the batch.
        longest: frames to which rows are padded.
        runs: rows and slots of each stretch of neighbouring slots: rings are never gathered.
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
        """Rows for the first slots, all of them: nothing depends on what is where."""
        count = len(num_frames)
        index = torch.arange(count, device=num_frames.device)
        run = (slice(0, count), slice(0, count))
        return cls(index, state.positions[:count].clone(), num_frames, longest, [run])


# (stage, its entries, rows) to the memory of a step.
MakeMemory = Callable[[InferenceStage, Tensor, StepBatch], Memory]


@runtime_checkable
class RingStepper(Protocol):
    """A stage that can step many streams: `RingStage`, or a compiled one."""

    def init_entries(self, num_slots: int, max_chunk_frames: int) -> list[Tensor]:
        """Empty rings, slots first."""
        ...

    def step(
        self,
        x: Float[Tensor, "rows steps width"],
        entries: list[Tensor],
        rows: StepBatch,
    ) -> Float[Tensor, "rows steps out_width"]:
        """The next frames of some streams; ``entries``, this stage's, are written in place."""
        ...


class RingStage:
    """Rings in PyTorch, on any device and in any precision.

    The rings of a stage are one tensor (slots, layers, keys and values, heads, places, head_dim).
    The last place is never seen: what is not to be kept is written there.

    Args:
        stage: with its weights.
        like: an empty tensor of the rings' type, on their device.
        memory_of: makes the memory of a step; by default `RingMemory`.
    """

    def __init__(
        self, stage: InferenceStage, like: Tensor, memory_of: MakeMemory | None = None
    ) -> None:
        self._stage = stage
        self._like = like
        self._memory_of = memory_of or RingMemory

    def init_entries(self, num_slots: int, max_chunk_frames: int) -> list[Tensor]:
        """See `RingStepper.init_entries`."""
        stage = self._stage
        capacity = stage.context_steps + max_chunk_frames * stage.steps_per_frame - 1
        inner = (2, stage.num_heads, capacity + 1, stage.head_dim)
        return [self._like.new_zeros(num_slots, len(stage.layers), *inner)]

    def step(
        self,
        x: Float[Tensor, "rows steps width"],
        entries: list[Tensor],
        rows: StepBatch,
    ) -> Float[Tensor, "rows steps out_width"]:
        """See `RingStepper.step`."""
        return self._stage.run(x, self._memory_of(self._stage, entries[0], rows))


class RingMemory:
    """`Memory` of one step of many streams through a stage.

    Args:
        stage: whose rings they are.
        entries: the stage's in a `RingKVCache`; written in place.
        rows: the streams.
    """

    def __init__(
        self,
        stage: InferenceStage,
        entries: Float[Tensor, "slots layers 2 heads _ head_dim"],
        rows: StepBatch,
    ) -> None:
        self._entries = entries
        self._capacity = entries.shape[4] - 1
        count = rows.longest * stage.steps_per_frame
        offsets = torch.arange(count, device=entries.device)
        steps = (rows.starts * stage.steps_per_frame)[:, None] + offsets
        kept = offsets < (rows.num_frames * stage.steps_per_frame)[:, None]
        rotations = rotations_of(steps, stage.head_dim, stage.max_period)
        self._rotations = rotations[:, :, None, None]
        self._bias = self._visibility(steps, stage.context_steps)
        self._places = self._places_of(steps, kept, rows.slots)
        self._runs = rows.runs

    def _visibility(self, steps: Int[Tensor, "rows steps"], context: int) -> Tensor:
        """0 where a query sees a place of the ring, minus infinity where not.

        A place holds the newest step of its residue; (query - place) mod capacity is how far
        back that is. Steps of the chunk after the query come out as further back than the
        window, for the ring is longer than it by a chunk.
        """
        places = torch.arange(self._capacity, device=steps.device)
        distance = (steps[:, :, None] - places) % self._capacity
        hidden = distance >= (steps + 1).clamp_max(context)[:, :, None]
        # Rows aligned as a GPU's kernels want them, or every layer would copy the whole first.
        aligned = -(-self._capacity // _ALIGNMENT) * _ALIGNMENT
        bias = self._entries.new_zeros(*steps.shape, aligned)[..., : self._capacity]
        return bias.masked_fill_(hidden, float("-inf"))[:, None]

    def _places_of(
        self, steps: Int[Tensor, "rows steps"], kept: Bool[Tensor, "rows steps"], slots: Tensor
    ) -> Int[Tensor, "_"]:
        """Where the first layer's keys and values go: rows of the entries, seen as a matrix."""
        place = torch.where(kept, steps % self._capacity, self._capacity)
        num_layers, num_rings = self._entries.shape[1], 2 * self._entries.shape[3]
        ring = slots[:, None] * (num_layers * num_rings)
        ring = ring + torch.arange(num_rings, device=steps.device)
        return (ring[:, :, None] * (self._capacity + 1) + place[:, None]).flatten()

    def normalise(self, x: Tensor, norm: nn.LayerNorm) -> Tensor:
        """See `Memory.normalise`."""
        return layer_norm(x, norm)

    def rotate(self, heads: Float[Tensor, "rows steps 3 heads head_dim"]) -> Tensor:
        """See `Memory.rotate`."""
        return rotate_heads(heads, self._rotations)

    def attend(
        self, layer: int, heads: Float[Tensor, "rows steps 3 heads head_dim"]
    ) -> Float[Tensor, "rows steps width"]:
        """See `Memory.attend`."""
        entries, head_dim = self._entries[:, layer], heads.shape[-1]
        heads = heads.to(entries.dtype)
        new = heads[:, :, 1:].permute(0, 2, 3, 1, 4).reshape(-1, head_dim)
        first = layer * entries[0].numel() // head_dim
        self._entries.view(-1, head_dim)[first:].index_copy_(0, self._places, new)
        query = heads[:, :, 0].transpose(1, 2)
        keys, values = entries[:, :, :, : self._capacity].unbind(1)
        parts = [
            F.scaled_dot_product_attention(
                query[rows], keys[slots], values[slots], attn_mask=self._bias[rows]
            )
            for rows, slots in self._runs
        ]
        attended = parts[0] if len(parts) == 1 else torch.cat(parts)
        return attended.transpose(1, 2).flatten(2)


def contiguous_runs(slots: Sequence[int]) -> list[tuple[slice, slice]]:
    """Rows and slots of each stretch of neighbouring slots."""
    starts = [i for i, slot in enumerate(slots) if i == 0 or slot != slots[i - 1] + 1]
    stops = [*starts[1:], len(slots)]
    return [
        (slice(start, stop), slice(slots[start], slots[start] + stop - start))
        for start, stop in zip(starts, stops, strict=True)
    ]
