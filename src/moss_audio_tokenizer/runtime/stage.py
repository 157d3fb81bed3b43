"""A Transformer stage ready to run: weights folded and packed, the memory passed in.

Owns a block's arithmetic in as few operations as PyTorch allows. Where keys and values are
kept, and which of them a query sees, is the business of the `Memory` that comes with a call.
"""

from copy import deepcopy
from typing import NamedTuple, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ..model.transformer import Block, Transformer
from .packed_linear import PlainLinear, fast_linear


@runtime_checkable
class Memory(Protocol):
    """What a stage's steps remember: their rotations, and attention to them and the past."""

    def normalise(self, x: Tensor, norm: nn.LayerNorm) -> Tensor:
        """X normalised, in its own type or in that of the products that follow."""
        ...

    def rotate(self, heads: Float[Tensor, "rows steps 3 heads head_dim"]) -> Tensor:
        """Heads with queries and keys turned by their positions; may work in place."""
        ...

    def attend(
        self, layer: int, heads: Float[Tensor, "rows steps 3 heads head_dim"]
    ) -> Float[Tensor, "rows steps width"]:
        """Store the keys and values of one layer, and attend with the queries."""
        ...


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
    """A block's weights for inference; the block itself stays as it is."""
    out_proj = block.attention_scale[:, None] * block.attention.out_proj.weight
    feedforward_out = block.feedforward_scale[:, None] * block.feedforward_out.weight
    return LayerWeights(
        attention_norm=deepcopy(block.attention_norm),
        in_proj=fast_linear(block.attention.in_proj.weight, dtype),
        out_proj=fast_linear(out_proj, dtype),
        feedforward_norm=deepcopy(block.feedforward_norm),
        feedforward_in=fast_linear(block.feedforward_in.weight, dtype),
        feedforward_out=fast_linear(feedforward_out, dtype),
    )


class InferenceStage:
    """`Transformer` for inference: the residual in float32, products in ``dtype``.

    Args:
        stage: the trained stage.
        steps_per_frame: steps that the stage takes for each frame of codes.
        dtype: of weights, keys and values.
    """

    def __init__(self, stage: Transformer, steps_per_frame: int, dtype: torch.dtype) -> None:
        self.steps_per_frame = steps_per_frame
        self.context_steps = stage.context_steps
        self.head_dim = stage.head_dim
        self.max_period = stage.max_period
        self.attention_backend = stage.attention_backend
        self.num_heads = stage.blocks()[0].attention.num_heads
        self.input_proj = _projection(stage.input_proj, dtype)
        self.layers = [fold_block(layer, dtype) for layer in stage.blocks()]
        self.output_proj = _projection(stage.output_proj, dtype)

    def run(
        self, x: Float[Tensor, "rows steps width"], memory: Memory
    ) -> Float[Tensor, "rows steps out_width"]:
        """The stage over the steps that ``memory`` was made for."""
        x = self.input_proj(x).float() if self.input_proj else x.float()
        for index, layer in enumerate(self.layers):
            heads = layer.in_proj(memory.normalise(x, layer.attention_norm))
            heads = memory.rotate(heads.unflatten(-1, (3, self.num_heads, self.head_dim)))
            x = layer.out_proj.add_to(x, memory.attend(index, heads))
            hidden = layer.feedforward_in.gelu(memory.normalise(x, layer.feedforward_norm))
            x = layer.feedforward_out.add_to(x, hidden)
        return self.output_proj(x).float() if self.output_proj else x


def _projection(module: nn.Module, dtype: torch.dtype) -> PlainLinear | None:
    return fast_linear(module.weight, dtype) if isinstance(module, nn.Linear) else None
