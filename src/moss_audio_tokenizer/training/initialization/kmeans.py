"""A start for the quantizer from data: greedy principal directions and k-means.

Owns the arithmetic; knows nothing of the loop. Each layer looks at the directions in which
what the layers before it left varies most, and its codebook is fitted there, so that every
layer reduces the error from the first step on, where random weights would have to find out.

The rlfq quantizer compares directions only. One of the code's dimensions is therefore set
to a constant far larger than the others' spread: seen from the origin the data then lie on a
nearly flat patch, and the nearest direction is the nearest point.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ...errors import TrainingError
from ...model.quantizer import LayeredLinear, ResidualQuantizer

_FLATNESS = 4.0
_ITERATIONS = 12
# Weight norm ignores this length, but the longer a direction, the slower a step turns it.
_DIRECTION_LENGTH = 10.0


@torch.no_grad()
def start_from_data(
    quantizer: ResidualQuantizer,
    hidden: Float[Tensor, "samples width"],
    generator: torch.Generator,
) -> list[float]:
    """Initialise every layer in turn from samples of the encoder's output.

    Args:
        quantizer: changed in place; needs the projections of each layer.
        hidden: samples, at least as many as a codebook has rows.
        generator: draws the first centres.

    Returns:
        The share of the hidden states' energy left after each layer.
    """
    if quantizer.in_projs is None:
        raise TrainingError("a quantizer without projections cannot start from data")
    residual = quantizer.input_proj(hidden.float())
    total = residual.square().mean()
    # One unit for all layers: with a unit of its own, a deep layer would magnify every step that
    # the encoder and the layers before it take, and training would diverge.
    unit = 1 / (residual - residual.mean(0)).norm(dim=1).square().mean().sqrt().clamp_min(1e-6)
    left = []
    for layer in range(quantizer.config.num_quantizers):
        residual = _start_layer(quantizer, layer, residual, unit, generator)
        left.append(float(residual.square().mean() / total))
    return left


def _start_layer(
    quantizer: ResidualQuantizer,
    layer: int,
    residual: Tensor,
    unit: Tensor,
    generator: torch.Generator,
) -> Tensor:
    code_dim = quantizer.config.codebook_dim
    mean = residual.mean(0)
    directions = _principal_directions(residual - mean, code_dim - 1)
    points = (residual - mean) @ directions * unit
    centres = _kmeans(points, quantizer.config.codebook_size, generator)
    flat = _FLATNESS * points.square().sum(1).mean().sqrt().clamp_min(1e-6)
    quantizer.codebooks[layer, :, :-1] = centres
    quantizer.codebooks[layer, :, -1] = flat
    # The constant's row and column keep a direction, with next to no length.
    inwards = torch.cat((directions.T * unit, directions.T[-1:] * 1e-3))
    bias = torch.cat((-(directions.T @ mean) * unit, flat[None]))
    _set_linear(quantizer.in_projs, layer, inwards, bias)
    outwards = torch.cat((directions / unit, directions[:, -1:] * 1e-3), dim=1)
    _set_linear(quantizer.out_projs, layer, outwards, mean - outwards[:, -1] * flat)
    chosen = centres[torch.cdist(points, centres).argmin(1)]
    return residual - mean - chosen @ directions.T / unit


def _principal_directions(centred: Tensor, count: int) -> Tensor:
    _, vectors = torch.linalg.eigh(centred.T @ centred / len(centred))
    return vectors[:, -count:].flip(1)


def _kmeans(points: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Lloyd's iterations from random points; an empty centre moves to a random point."""
    centres = points[torch.randperm(len(points), generator=generator)[:count]].clone()
    for _ in range(_ITERATIONS):
        owner = torch.cdist(points, centres).argmin(1)
        sizes = torch.bincount(owner, minlength=count)
        sums = torch.zeros_like(centres).index_add_(0, owner, points)
        centres = sums / sizes.clamp_min(1)[:, None]
        empty = (sizes == 0).nonzero().squeeze(1)
        fresh = torch.randint(len(points), (len(empty),), generator=generator)
        centres[empty] = points[fresh]
    return centres


def _set_linear(linear: LayeredLinear | None, layer: int, weight: Tensor, bias: Tensor) -> None:
    if linear is None:
        return
    linear.direction[layer] = F.normalize(weight, dim=-1) * _DIRECTION_LENGTH
    linear.gain[layer] = weight.norm(dim=-1)
    linear.bias[layer] = bias
