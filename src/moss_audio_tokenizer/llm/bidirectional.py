"""A Transformer encoder without causality, for frames that are read and texts that are said.

Each block has attention with rotary positions, a gated depthwise convolution and a feed-forward
layer, each behind a layer norm; the convolution teaches neighborhoods from little data (after
Gulati et al. 2020, Conformer). Knows nothing of codes or texts.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

HEAD_DIM = 64
_ROTARY_BASE = 10_000.0


class EncoderBlock(nn.Module):
    """One block.

    Args:
        width: channels, a multiple of `HEAD_DIM`.
        kernel: size of the convolution, odd.
        dropout: probability of dropout in each branch.
    """

    def __init__(self, width: int, kernel: int, dropout: float) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width)
        self.attention_in = nn.Linear(width, 3 * width)
        self.attention_out = nn.Linear(width, width)
        self.convolution_norm = nn.LayerNorm(width)
        self.convolution_in = nn.Linear(width, 2 * width)
        self.convolution = nn.Conv1d(width, width, kernel, padding=kernel // 2, groups=width)
        self.convolution_out = nn.Linear(width, width)
        self.feedforward_norm = nn.LayerNorm(width)
        self.feedforward_in = nn.Linear(width, 4 * width)
        self.feedforward_out = nn.Linear(4 * width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        x: Float[Tensor, "batch steps width"],
        valid: Bool[Tensor, "batch steps"],
        rotations: tuple[Tensor, Tensor],
    ) -> Float[Tensor, "batch steps width"]:
        """States of all steps; those that are not valid are ignored by the others."""
        x = x + self.dropout(self._attend(self.attention_norm(x), valid, rotations))
        x = x + self.dropout(self._convolve(self.convolution_norm(x), valid))
        inner = self.dropout(F.silu(self.feedforward_in(self.feedforward_norm(x))))
        fed: Tensor = self.dropout(self.feedforward_out(inner))
        return x + fed

    def _attend(self, x: Tensor, valid: Tensor, rotations: tuple[Tensor, Tensor]) -> Tensor:
        batch, steps, width = x.shape
        heads = self.attention_in(x).view(batch, steps, 3, width // HEAD_DIM, HEAD_DIM)
        queries, keys, values = heads.permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(
            _rotated(queries, rotations),
            _rotated(keys, rotations),
            values,
            attn_mask=valid[:, None, None, :].expand(-1, 1, steps, -1),
        )
        return self.attention_out(attended.transpose(1, 2).reshape(batch, steps, width))

    def _convolve(self, x: Tensor, valid: Tensor) -> Tensor:
        gated = F.glu(self.convolution_in(x), -1) * valid[..., None].to(x.dtype)
        mixed = F.silu(self.convolution(gated.transpose(1, 2)).transpose(1, 2))
        return self.convolution_out(mixed)


class BidirectionalEncoder(nn.Module):
    """Blocks over steps that all see each other, and a last layer norm.

    Args:
        width: channels, a multiple of `HEAD_DIM`.
        num_layers: number of blocks.
        kernel: size of the convolutions, odd.
        dropout: probability of dropout.
    """

    def __init__(self, width: int, num_layers: int, kernel: int = 7, dropout: float = 0.1) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(EncoderBlock(width, kernel, dropout) for _ in range(num_layers))
        self.norm = nn.LayerNorm(width)

    def forward(
        self, x: Float[Tensor, "batch steps width"], num_steps: Int[Tensor, "batch"]
    ) -> list[Float[Tensor, "batch steps width"]]:
        """The states behind each block; the last are normalized.

        Args:
            x: steps, right-padded.
            num_steps: number of steps of each row without padding.
        """
        valid = torch.arange(x.shape[1], device=x.device) < num_steps[:, None]
        rotations = rotary_positions(x.shape[1], x.device)
        states = []
        for block in self.blocks:
            x = block(x, valid, rotations)
            states.append(x)
        return [*states[:-1], self.norm(x)]


def rotary_positions(steps: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Cosines and sines of rotary positions, (steps, `HEAD_DIM`) each (Su et al. 2021)."""
    half = HEAD_DIM // 2
    rates = _ROTARY_BASE ** (-torch.arange(half, device=device) / half)
    angles = torch.arange(steps, device=device)[:, None] * rates
    angles = torch.cat((angles, angles), -1)
    return angles.cos(), angles.sin()


def _rotated(heads: Tensor, rotations: tuple[Tensor, Tensor]) -> Tensor:
    cosine, sine = (part.to(heads.dtype) for part in rotations)
    left, right = heads.chunk(2, -1)
    return heads * cosine + torch.cat((-right, left), -1) * sine
