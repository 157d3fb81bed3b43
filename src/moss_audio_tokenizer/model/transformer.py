"""Causal pre-norm Transformer blocks, and a stage made of them.

Owns a block's arithmetic (x += s1 * attention(LN(x)); x += s2 * feed-forward(LN(x)));
knows nothing of audio, patches, codes or streams. Rotary positions are interleaved pairs, channels
2j and 2j + 1 (Su et al., "RoFormer", 2021), rotated in float32 and right at any offset.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..config import TransformerStage
from .attention import Window, plan_window, windowed_attention


class Rotation(NamedTuple):
    """Cosine and sine of every step's angles, shared by all layers of a stage."""

    cosine: Float[Tensor, "steps pairs"]
    sine: Float[Tensor, "steps pairs"]


def frequencies_of(
    head_dim: int, max_period: float, device: torch.device
) -> Float[Tensor, " pairs"]:
    """The angle of each pair a step, in float64.

    In float32 an angle would be off by 0.02 rad after an hour at 100 Hz; in float64 it is right to
    1e-7 rad after weeks.
    """
    pair = torch.arange(head_dim // 2, dtype=torch.float64, device=device)
    return max_period ** (-pair / (head_dim // 2))


def rotation_at(
    start: int, num_steps: int, head_dim: int, max_period: float, device: torch.device
) -> Rotation:
    """Rotations of the steps ``start`` .. ``start + num_steps - 1`` of a stream."""
    steps = torch.arange(start, start + num_steps, device=device)
    angle = steps.double()[:, None] * frequencies_of(head_dim, max_period, device)
    return Rotation(angle.cos().float(), angle.sin().float())


def rotate(
    heads: Float[Tensor, "*rows steps head_dim"], rotation: Rotation
) -> Float[Tensor, "*rows steps head_dim"]:
    """Rotate each pair (2j, 2j + 1) by its angle, in float32; the dtype is kept."""
    even, odd = heads.float().unflatten(-1, (-1, 2)).unbind(-1)
    cosine, sine = rotation
    turned = torch.stack((even * cosine - odd * sine, even * sine + odd * cosine), dim=-1)
    return turned.flatten(-2).to(heads.dtype)


class SelfAttention(nn.Module):
    """Multi-head self-attention without biases, rotary positions on queries and keys."""

    def __init__(self, d_model: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.in_proj = nn.Linear(d_model, 3 * d_model, bias=False)
        self.out_proj = nn.Linear(d_model, d_model, bias=False)

    def forward(
        self,
        x: Float[Tensor, "batch steps width"],
        rotation: Rotation,
        window: Window,
        backend: str,
    ) -> Float[Tensor, "batch steps width"]:
        """Attend within the window."""
        heads = self.in_proj(x).unflatten(-1, (3, self.num_heads, -1)).movedim(1, 3)
        query, key = rotate(heads[:, :2], rotation).unbind(1)
        value = heads[:, 2]
        attended = windowed_attention(query, key, value, window, backend)
        return self.out_proj(attended.transpose(1, 2).flatten(2))


class Block(nn.Module):
    """One Transformer layer with learned per-channel scales on both residual branches."""

    def __init__(self, stage: TransformerStage) -> None:
        super().__init__()
        width = stage.d_model
        self.attention_norm = nn.LayerNorm(width, eps=1e-5)
        self.attention = SelfAttention(width, stage.num_heads)
        self.attention_scale = nn.Parameter(torch.full((width,), stage.layer_scale))
        self.feedforward_norm = nn.LayerNorm(width, eps=1e-5)
        self.feedforward_in = nn.Linear(width, stage.dim_feedforward, bias=False)
        self.feedforward_out = nn.Linear(stage.dim_feedforward, width, bias=False)
        self.feedforward_scale = nn.Parameter(torch.full((width,), stage.layer_scale))

    def forward(
        self,
        x: Float[Tensor, "batch steps width"],
        rotation: Rotation,
        window: Window,
        backend: str,
    ) -> Float[Tensor, "batch steps width"]:
        """Both residual branches in turn."""
        attended = self.attention(self.attention_norm(x), rotation, window, backend)
        x = x + self.attention_scale * attended
        hidden = F.gelu(self.feedforward_in(self.feedforward_norm(x)))
        return x + self.feedforward_scale * self.feedforward_out(hidden)


class Transformer(nn.Module):
    """A Transformer stage: projection in, blocks over one window, projection out.

    Attributes:
        attention_backend: how `windowed_attention` computes.
        recomputes: in training, keep no activations of the blocks, but compute them again.
    """

    def __init__(self, stage: TransformerStage, context_steps: int) -> None:
        super().__init__()
        self.context_steps = context_steps
        self.head_dim = stage.d_model // stage.num_heads
        self.max_period = stage.max_period
        self.attention_backend = "sdpa"
        self.recomputes = False
        self.input_proj = _projection(stage.input_dimension, stage.d_model, stage.projects_input)
        self.layers = nn.ModuleList(Block(stage) for _ in range(stage.num_layers))
        self.output_proj = _projection(stage.d_model, stage.output_dimension, stage.projects_output)

    def blocks(self) -> list[Block]:
        """The layers, in order."""
        return [layer for layer in self.layers if isinstance(layer, Block)]

    def forward(
        self, x: Float[Tensor, "batch steps width"]
    ) -> Float[Tensor, "batch steps out_width"]:
        """Run the stage over whole sequences; `runtime.stage` runs it over streams."""
        num_steps = x.shape[1]
        rotation = rotation_at(0, num_steps, self.head_dim, self.max_period, x.device)
        window = plan_window(num_steps, 0, self.context_steps, x.device)
        x = self.input_proj(x)
        for layer in self.layers:
            inputs = (x, rotation, window, self.attention_backend)
            if self.recomputes and torch.is_grad_enabled():
                x = checkpoint(layer, *inputs, use_reentrant=False)
            else:
                x = layer(*inputs)
        return self.output_proj(x)


def _projection(inputs: int, outputs: int, exists: bool) -> nn.Module:
    return nn.Linear(inputs, outputs, bias=False) if exists else nn.Identity()
