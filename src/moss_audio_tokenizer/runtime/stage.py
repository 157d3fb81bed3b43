"""A Transformer stage for inference: folded weights, and attention that is passed in.

Owns a block's arithmetic in as few operations as PyTorch allows. Rotary positions, the KV cache
and the attention mask belong to the `Attention` that comes with a call: `chunk_cache` has the
one for chunks of whole clips, `ring_cache` and `triton_attention` those for steps of streams.
"""

from collections.abc import Callable
from copy import deepcopy
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Complex, Float, Int
from torch import Tensor, nn

from ..model.transformer import Block, Transformer, frequencies_of


class PlainLinear:
    """y = x W^T in ``dtype``, and the two ways in which a block uses it."""

    def __init__(self, weight: Float[Tensor, "outputs inputs"], dtype: torch.dtype) -> None:
        self.dtype = dtype
        self.weight = weight.to(dtype)

    def __call__(self, x: Tensor) -> Tensor:
        """X W^T."""
        return F.linear(x.to(self.dtype), self.weight)

    def gelu(self, x: Tensor) -> Tensor:
        """GELU(x W^T)."""
        return F.gelu(self(x))

    def add_to(self, residual: Tensor, x: Tensor) -> Tensor:
        """Residual + x W^T, in the residual's precision."""
        return residual + self(x)


class PackedLinear(PlainLinear):
    """oneDNN's layout and fused epilogues, on a CPU."""

    def __init__(self, weight: Float[Tensor, "outputs inputs"], dtype: torch.dtype) -> None:
        self.dtype = dtype
        # Packed for no particular number of rows: the kernel then treats each row alike.
        self.weight = torch.ops.mkldnn._reorder_linear_weight(weight.to(dtype).contiguous(), None)

    def __call__(self, x: Tensor) -> Tensor:
        """X W^T."""
        return _onednn(x.to(self.dtype), self.weight, None, "none", [], "")

    def gelu(self, x: Tensor) -> Tensor:
        """GELU(x W^T), in one kernel."""
        return _onednn(x.to(self.dtype), self.weight, None, "gelu", [], "none")

    def add_to(self, residual: Tensor, x: Tensor) -> Tensor:
        """Residual + x W^T, in one kernel where the types are equal."""
        if self.dtype != residual.dtype:
            return residual + self(x)
        return _onednn_binary(x, residual, self.weight, None, "add")


def _onednn(*arguments: object) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise.default(*arguments)


def _onednn_binary(*arguments: object) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise.binary(*arguments)


def fast_linear(weight: Float[Tensor, "outputs inputs"], dtype: torch.dtype) -> PlainLinear:
    """The fastest linear layer for these weights on their device.

    On a CPU, ``float16`` means weights rounded to it in float32 arithmetic, for CPUs multiply no
    float16.
    """
    weight = weight.detach()
    if weight.device.type != "cpu":
        return PlainLinear(weight, dtype)
    if dtype == torch.float16:
        weight, dtype = weight.to(dtype).float(), torch.float32
    packs = torch.backends.mkldnn.is_available()
    return PackedLinear(weight, dtype) if packs else PlainLinear(weight, dtype)


# Causal attention of some steps to themselves and to a KV cache. Takes the index of a layer in its
# stage, and its queries, keys and values (rows, steps, 3, heads, head_dim), which it may overwrite:
# rotates them, stores keys and values in the cache of the layer, gives (rows, steps, width).
Attention = Callable[[int, Tensor], Tensor]
# A layer norm, in the input's type or in that of the products that follow.
Norm = Callable[[Tensor, nn.LayerNorm], Tensor]


def layer_norm(x: Tensor, norm: nn.LayerNorm) -> Tensor:
    """A layer norm as PyTorch computes it."""
    return F.layer_norm(x, norm.normalized_shape, norm.weight, norm.bias, norm.eps)


class LayerWeights(NamedTuple):
    """One block, its layer scales folded into the linear layers before them."""

    attention_norm: nn.LayerNorm
    in_proj: PlainLinear
    out_proj: PlainLinear
    feedforward_norm: nn.LayerNorm
    feedforward_in: PlainLinear
    feedforward_out: PlainLinear


def fold_block(block: Block, dtype: torch.dtype) -> LayerWeights:
    """A block's weights for inference, folded in float32; the block itself does not change."""
    out_proj = block.attention_scale.float()[:, None] * block.attention.out_proj.weight.float()
    down = block.feedforward_scale.float()[:, None] * block.feedforward_out.weight.float()
    return LayerWeights(
        attention_norm=deepcopy(block.attention_norm).float(),
        in_proj=fast_linear(block.attention.in_proj.weight, dtype),
        out_proj=fast_linear(out_proj, dtype),
        feedforward_norm=deepcopy(block.feedforward_norm).float(),
        feedforward_in=fast_linear(block.feedforward_in.weight, dtype),
        feedforward_out=fast_linear(down, dtype),
    )


class InferenceStage:
    """`Transformer` for inference: the residual in float32, products in ``dtype``.

    Args:
        stage: the trained stage.
        steps_per_frame: steps that the stage takes for each frame of codes.
        dtype: the type of weights, keys and values.
    """

    def __init__(self, stage: Transformer, steps_per_frame: int, dtype: torch.dtype) -> None:
        self.steps_per_frame = steps_per_frame
        self.context_steps = stage.context_steps
        self.head_dim = stage.head_dim
        device = next(stage.parameters()).device
        self._frequencies = frequencies_of(stage.head_dim, stage.max_period, device)
        self.attention_backend = stage.attention_backend
        self.num_heads = stage.blocks()[0].attention.num_heads
        self.input_proj = _projection(stage.input_proj, dtype)
        self.layers = [fold_block(layer, dtype) for layer in stage.blocks()]
        self.output_proj = _projection(stage.output_proj, dtype)

    def rotations(self, steps: Int[Tensor, "*shape"]) -> Complex[Tensor, "*shape pairs"]:
        """Exp(i angle) of each rotary pair at each step: rotating is one complex product."""
        angle = steps.double()[..., None] * self._frequencies
        return torch.complex(angle.cos().float(), angle.sin().float())

    def run(
        self,
        x: Float[Tensor, "rows steps width"],
        attention: Attention,
        norm: Norm = layer_norm,
    ) -> Float[Tensor, "rows steps out_width"]:
        """The stage over the steps that ``attention`` was made for."""
        x = self.input_proj(x).float() if self.input_proj else x.float()
        for index, layer in enumerate(self.layers):
            heads = layer.in_proj(norm(x, layer.attention_norm))
            heads = heads.unflatten(-1, (3, self.num_heads, self.head_dim))
            x = layer.out_proj.add_to(x, attention(index, heads))
            hidden = layer.feedforward_in.gelu(norm(x, layer.feedforward_norm))
            x = layer.feedforward_out.add_to(x, hidden)
        return self.output_proj(x).float() if self.output_proj else x


def _projection(module: nn.Module, dtype: torch.dtype) -> PlainLinear | None:
    return fast_linear(module.weight, dtype) if isinstance(module, nn.Linear) else None


def rotate_heads(
    heads: Float[Tensor, "rows steps 3 heads head_dim"],
    rotations: Complex[Tensor, "*rows steps 1 1 pairs"],
) -> Float[Tensor, "rows steps 3 heads head_dim"]:
    """Rotate queries and keys in float32 and in place; values and the dtype do not change."""
    rotating = heads[:, :, :2]
    pairs = torch.view_as_complex(rotating.float().unflatten(-1, (-1, 2)))
    pairs.mul_(rotations)
    if heads.dtype != torch.float32:
        rotating.copy_(torch.view_as_real(pairs).flatten(-2))
    return heads
