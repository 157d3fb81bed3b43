"""Rotary positions as complex numbers: turning a pair is one multiplication.

The angles are `rope.py`'s; its `rotate` says the same in real numbers, for training.
"""

import torch
from jaxtyping import Complex, Float, Int
from torch import Tensor

from ..model.rope import angles_of


def rotations_of(
    steps: Int[Tensor, "*shape"], head_dim: int, max_period: float
) -> Complex[Tensor, "*shape pairs"]:
    """exp(i angle) of each pair at each step."""
    angle = angles_of(steps, head_dim, max_period)
    return torch.complex(angle.cos().float(), angle.sin().float())


def rotate_heads(
    heads: Float[Tensor, "rows steps 3 heads head_dim"],
    rotations: Complex[Tensor, "*rows steps 1 1 pairs"],
) -> Float[Tensor, "rows steps 3 heads head_dim"]:
    """Turn queries and keys, in float32 and in place; the values and the dtype stay."""
    turning = heads[:, :, :2]
    pairs = torch.view_as_complex(turning.float().unflatten(-1, (-1, 2)))
    pairs.mul_(rotations)
    if heads.dtype != torch.float32:
        turning.copy_(torch.view_as_real(pairs).flatten(-2))
    return heads
