"""Attention to ring KV caches as one Triton kernel, and layer norm as another, on a GPU.

Owns the choice between Triton and PyTorch (`ring_cache.py`), and the sizes of the kernel's
blocks: by rule, since nothing can be tried out while a CUDA graph is recorded.
"""

import math
import subprocess
from types import ModuleType
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .ring_cache import RingAttention, StepBatch, next_power_of_two
from .stage import Attention, InferenceStage, Norm, layer_norm

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


def ring_attention(
    kernels: ModuleType | None,
    stage: InferenceStage,
    ring: Float[Tensor, "slots layers 2 heads _ head_dim"],
    batch: StepBatch,
) -> tuple[Attention, Norm]:
    """The attention and the layer norm for one step of streams through a stage.

    Args:
        kernels: what `load_triton_kernels` returned.
        stage: the stage that will be run.
        ring: the stage's ring; written in place.
        batch: the streams that take part.
    """
    key_bytes = next_power_of_two(stage.head_dim) * ring.element_size()
    is_long = batch.longest * stage.steps_per_frame > _MOST_STEPS
    if kernels is None or is_long or key_bytes > _MOST_KEY_BYTES:
        return RingAttention(stage, ring, batch), layer_norm
    return TritonRingAttention(kernels, stage, ring, batch), TritonNorm(kernels, ring.dtype)


class TritonNorm:
    """Layer norm and the change of type after it as one kernel.

    Of a few rows both are so short that starting them is most of what they cost.

    Args:
        kernels: what `load_triton_kernels` returned.
        dtype: the type of the results.
    """

    def __init__(self, kernels: ModuleType, dtype: torch.dtype) -> None:
        self._kernels = kernels
        self._dtype = dtype

    def __call__(
        self, x: Float[Tensor, "rows steps width"], norm: nn.LayerNorm
    ) -> Float[Tensor, "rows steps width"]:
        """X, normalized."""
        width = x.shape[-1]
        out = torch.empty(x.shape, dtype=self._dtype, device=x.device)
        with torch.cuda.device_of(out):
            self._kernels.normalize[(x.shape[0] * x.shape[1],)](
                *(x.contiguous(), norm.weight, norm.bias, out, norm.eps),
                width=width,
                padded_width=next_power_of_two(width),
            )
        return out


class TritonRingAttention:
    """`Attention` of one step of many streams through a stage: one kernel for each layer.

    Args:
        kernels: what `load_triton_kernels` returned.
        stage: the stage that will be run.
        ring: the stage's ring; written in place.
        batch: the streams that take part.
    """

    def __init__(
        self,
        kernels: ModuleType,
        stage: InferenceStage,
        ring: Float[Tensor, "slots layers 2 heads _ head_dim"],
        batch: StepBatch,
    ) -> None:
        self._kernels, self._stage, self._ring, self._batch = kernels, stage, ring, batch
        self._capacity = ring.shape[4] - 1
        self._num_steps = batch.longest * stage.steps_per_frame
        rotations = stage.rotations(batch.steps_of(stage))
        self._rotations = torch.view_as_real(rotations)
        self._padded_dim = max(16, next_power_of_two(stage.head_dim))
        self._blocks = plan_blocks(
            num_steps=self._num_steps,
            num_keys=min(stage.context_steps, self._capacity),
            key_bytes=self._padded_dim * ring.element_size(),
            num_rings=len(batch.slots) * stage.num_heads,
            num_processors=_num_processors(ring.device),
        )

    def __call__(
        self, layer: int, heads: Float[Tensor, "rows steps 3 heads head_dim"]
    ) -> Float[Tensor, "rows steps width"]:
        """Rotate, write keys and values into the ring, attend to the ring: all in the kernel."""
        blocks, shape = self._blocks, heads[:, :, 0].shape
        out = self._ring.new_empty(shape)
        parts, sums = out, out
        if blocks.num_splits > 1:
            parts = out.new_empty(blocks.num_splits, *shape, dtype=torch.float32)
            sums = parts.new_empty(blocks.num_splits, 2, *shape[:-1])
        # Triton launches on the current device, whatever the tensors'.
        with torch.cuda.device_of(out):
            self._launch(heads.contiguous(), self._ring[:, layer], parts, sums)
            if blocks.num_splits > 1:
                self._join(parts, sums, out)
        return out.flatten(2)

    def _launch(self, heads: Tensor, ring: Tensor, out: Tensor, sums: Tensor) -> None:
        stage, batch, blocks = self._stage, self._batch, self._blocks
        num_rows = len(heads)
        query_blocks = -(-self._num_steps // blocks.num_queries)
        grid = (num_rows * stage.num_heads, query_blocks, blocks.num_splits)
        self._kernels.attend[grid](
            *(heads, self._rotations, ring, batch.slots, batch.starts, batch.num_frames, out, sums),
            scale=math.log2(math.e) / math.sqrt(stage.head_dim),
            num_rows=num_rows,
            num_steps=self._num_steps,
            num_heads=stage.num_heads,
            steps_per_frame=stage.steps_per_frame,
            context=stage.context_steps,
            capacity=self._capacity,
            slot_stride=ring.stride(0),
            head_dim=stage.head_dim,
            padded_dim=self._padded_dim,
            **blocks._asdict(),
            precision=_FLOAT32_PRODUCTS,
            num_warps=self._num_warps(),
            num_stages=_NUM_STAGES,
        )

    def _num_warps(self) -> int:
        few = self._blocks.num_queries <= _FEW_QUERIES and self._ring.element_size() == 2
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
    queries = min(
        max(16, next_power_of_two(num_steps)), keys, 64
    )  # more would not fit in registers
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
