"""Rings of keys and values whose attention is one Triton kernel, on a GPU.

Owns when that is possible, and the sizes of the kernel's blocks: by rule, since nothing can be
tried out while a GPU's graph is recorded. The rings themselves are those of `rings.py`, which
says the same in PyTorch and takes over where this does not go.
"""

import math
import subprocess
from types import ModuleType
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .fused_norms import FusedNorm
from .ring_cache import RingMemory, StepBatch
from .rotation import rotations_of
from .stage import InferenceStage, Memory

# Only to compare both ways in one process.
_enabled = True
# More steps than that are work for large products, at which PyTorch's kernels are better.
_MOST_STEPS = 32
# The largest for which a block of keys and values fits into the memory of every such GPU.
_MOST_KEY_BYTES = 512
_LEAST_CAPABILITY = (8, 0)
# Three products of TensorFloat-32 for one of float32: as exact, and 2.6 x as fast on an H100.
_FLOAT32_PRODUCTS = "tf32x3"
# Of a block of keys, and of one of values; of each, the next two are on their way meanwhile.
_BLOCK_BYTES = 8192
_NUM_WARPS = 4
# With the fewest queries in 16 bits, two do as well, and better where there are many keys.
_FEW_QUERIES, _FEW_WARPS = 16, 2
_NUM_STAGES = 3


class Blocks(NamedTuple):
    """How `triton_kernels.attend` divides its work."""

    num_queries: int
    num_keys: int
    num_splits: int


def load_triton_kernels(device: torch.device) -> ModuleType | None:
    """The kernels, or None where Triton or what it needs is missing (as a C compiler may be)."""
    if device.type != "cuda" or torch.version.hip or not _is_new(device):
        return None
    try:
        from . import triton_kernels

        _probe(triton_kernels, device)
    except (ImportError, OSError, RuntimeError, subprocess.SubprocessError):
        return None
    return triton_kernels


def _is_new(device: torch.device) -> bool:
    return torch.cuda.get_device_capability(device) >= _LEAST_CAPABILITY


def _probe(kernels: ModuleType, device: torch.device) -> None:
    """Compile and run the smaller kernel: what Triton lacks shows only then."""
    parts, sums = torch.ones(1, 1, 1, device=device), torch.ones(1, 2, 1, device=device)
    with torch.cuda.device_of(parts):
        kernels.join[(1,)](parts, sums, parts[0], 1, 1, 1, 1)


class FusedRings:
    """Makes the `Memory` of each step, as `RingMemory` does.

    Args:
        kernels: `load_triton_kernels`'.
    """

    def __init__(self, kernels: ModuleType) -> None:
        self._kernels = kernels

    def __call__(
        self,
        stage: InferenceStage,
        entries: Float[Tensor, "slots layers 2 heads _ head_dim"],
        rows: StepBatch,
    ) -> Memory:
        """See `RingMemory`, which takes the long chunks."""
        key_bytes = _power_of_two(stage.head_dim) * entries.element_size()
        long = rows.longest * stage.steps_per_frame > _MOST_STEPS
        if not _enabled or long or key_bytes > _MOST_KEY_BYTES:
            return RingMemory(stage, entries, rows)
        return FusedRingMemory(self._kernels, stage, entries, rows)


class FusedRingMemory:
    """`Memory` of one step of many streams through a stage: a layer's is one kernel.

    Args:
        kernels: `load_triton_kernels`'.
        stage: whose rings they are.
        entries: the stage's in a `RingKVCache`; written in place.
        rows: the streams.
    """

    def __init__(
        self,
        kernels: ModuleType,
        stage: InferenceStage,
        entries: Float[Tensor, "slots layers 2 heads _ head_dim"],
        rows: StepBatch,
    ) -> None:
        self._kernels, self._stage, self._entries, self._rows = kernels, stage, entries, rows
        self._norm = FusedNorm(kernels, entries.dtype)
        self._capacity = entries.shape[4] - 1
        self._num_steps = rows.longest * stage.steps_per_frame
        offsets = torch.arange(self._num_steps, device=entries.device)
        steps = (rows.starts * stage.steps_per_frame)[:, None] + offsets
        turns = rotations_of(steps, stage.head_dim, stage.max_period)
        self._turns = torch.view_as_real(turns)
        self._padded_dim = max(16, _power_of_two(stage.head_dim))
        self._blocks = plan_blocks(
            num_steps=self._num_steps,
            num_keys=min(stage.context_steps, self._capacity),
            key_bytes=self._padded_dim * entries.element_size(),
            num_rings=len(rows.slots) * stage.num_heads,
            num_processors=_num_processors(entries.device),
        )

    def normalise(self, x: Tensor, norm: nn.LayerNorm) -> Tensor:
        """See `Memory.normalise`; a kernel of its own, whose start counts less in a graph."""
        return self._norm(x, norm)

    def rotate(self, heads: Float[Tensor, "rows steps 3 heads head_dim"]) -> Tensor:
        """As they are: they turn in the kernel."""
        return heads

    def attend(
        self, layer: int, heads: Float[Tensor, "rows steps 3 heads head_dim"]
    ) -> Float[Tensor, "rows steps width"]:
        """See `Memory.attend`; ``heads`` are not turned yet."""
        blocks, shape = self._blocks, heads[:, :, 0].shape
        out = self._entries.new_empty(shape)
        parts, sums = out, out
        if blocks.num_splits > 1:
            parts = out.new_empty(blocks.num_splits, *shape, dtype=torch.float32)
            sums = parts.new_empty(blocks.num_splits, 2, *shape[:-1])
        # Triton launches on the current device, whatever the tensors'.
        with torch.cuda.device_of(out):
            self._launch(heads.contiguous(), self._entries[:, layer], parts, sums)
            if blocks.num_splits > 1:
                self._join(parts, sums, out)
        return out.flatten(2)

    def _launch(self, heads: Tensor, entries: Tensor, out: Tensor, sums: Tensor) -> None:
        stage, rows, blocks = self._stage, self._rows, self._blocks
        num_rows = len(heads)
        query_blocks = -(-self._num_steps // blocks.num_queries)
        grid = (num_rows * stage.num_heads, query_blocks, blocks.num_splits)
        self._kernels.attend[grid](
            *(heads, self._turns, entries, rows.slots, rows.starts, rows.num_frames, out, sums),
            scale=math.log2(math.e) / math.sqrt(stage.head_dim),
            num_rows=num_rows,
            num_steps=self._num_steps,
            num_heads=stage.num_heads,
            steps_per_frame=stage.steps_per_frame,
            context=stage.context_steps,
            capacity=self._capacity,
            slot_stride=entries.stride(0),
            head_dim=stage.head_dim,
            padded_dim=self._padded_dim,
            **blocks._asdict(),
            precision=_FLOAT32_PRODUCTS,
            num_warps=self._num_warps(),
            num_stages=_NUM_STAGES,
        )

    def _num_warps(self) -> int:
        few = self._blocks.num_queries <= _FEW_QUERIES and self._entries.element_size() == 2
        return _FEW_WARPS if few else _NUM_WARPS

    def _join(self, parts: Tensor, sums: Tensor, out: Tensor) -> None:
        count, head_dim = out[..., 0].numel(), self._stage.head_dim
        splits = self._blocks.num_splits
        self._kernels.join[(count,)](parts, sums, out, count, head_dim, self._padded_dim, splits)


def plan_blocks(
    num_steps: int, num_keys: int, key_bytes: int, num_rings: int, num_processors: int
) -> Blocks:
    """Sizes of blocks, all powers of two.

    Args:
        num_steps: queries of a row.
        num_keys: of a full window.
        key_bytes: of one key.
        num_rings: rows times heads.
        num_processors: of the GPU; a small grid is split until each has two programs.
    """
    keys = min(max(16, _BLOCK_BYTES // key_bytes), 128)  # products take 16 rows at least
    queries = min(max(16, _power_of_two(num_steps)), keys, 64)  # more would not fit in registers
    programs = num_rings * -(-num_steps // queries)
    most = max(1, num_keys // (2 * keys))  # two blocks of keys in each part
    splits = 1
    while 2 * splits <= most and programs * splits < 2 * num_processors:
        splits *= 2
    return Blocks(queries, keys, splits)


def _num_processors(device: torch.device) -> int:
    if device.type != "cuda":
        return 1
    return torch.cuda.get_device_properties(device).multi_processor_count


def _power_of_two(count: int) -> int:
    return 1 << (count - 1).bit_length()
