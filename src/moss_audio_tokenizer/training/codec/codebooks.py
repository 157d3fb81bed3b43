"""Codebooks: how they start from data, and how they follow the encoder.

The start, layer by layer: each looks at the principal directions in which the residual of the
layers before it varies most, and its codebook is fitted there by k-means, so that every layer
reduces the error from the first step on. The quantizer compares directions only (cosine), so one of
the code's dimensions is set to a constant far larger than the others' spread: seen from the origin
the data then lie on a nearly flat patch, and the nearest direction is the nearest point.

Codebooks trained by gradient fall behind a fast-learning encoder (docs/experiments.md); a mean
over the last hundred steps follows it. The projections of the quantizer stay as they were fitted.
Source: van den Oord et al. 2017 (arXiv 1711.00937), appendix A.1; entries that are hardly ever
selected move to where data are, after SoundStream (arXiv 2107.03312). Knows nothing of the loop.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ...errors import TrainingError
from ...model.quantizer import LayeredLinear, QuantizerOutput, ResidualQuantizer
from ..distributed import Processes

_FLATNESS = 4.0
_ITERATIONS = 12
# Weight norm ignores this length, but the longer a direction, the slower a step turns it.
_DIRECTION_LENGTH = 10.0
# An entry that is selected less often than this share of the average is dead: an entry for rare
# frames is worth less than one where frames are dense, for later layers correct what is rare.
_DEAD_SHARE = 0.1
# How many entries of a layer are replaced in a step, and the usage that these begin with.
_MOST_REVIVED = 32
_REVIVED_SHARE = 0.3


@torch.no_grad()
def start_from_data(
    quantizer: ResidualQuantizer,
    hidden: Float[Tensor, "samples width"],
    generator: torch.Generator,
) -> list[float]:
    """Initialize every layer in turn from samples of the encoder's output.

    Args:
        quantizer: changed in place; needs the projections of each layer.
        hidden: samples, at least as many as a codebook has entries.
        generator: draws the first centers.

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
    centers = _kmeans(points, quantizer.config.codebook_size, generator)
    flat = _FLATNESS * points.square().sum(1).mean().sqrt().clamp_min(1e-6)
    quantizer.codebooks[layer, :, :-1] = centers
    quantizer.codebooks[layer, :, -1] = flat
    # The constant's row and column keep a direction, with next to no length.
    inwards = torch.cat((directions.T * unit, directions.T[-1:] * 1e-3))
    bias = torch.cat((-(directions.T @ mean) * unit, flat[None]))
    _set_linear(quantizer.in_projs, layer, inwards, bias)
    outwards = torch.cat((directions / unit, directions[:, -1:] * 1e-3), dim=1)
    _set_linear(quantizer.out_projs, layer, outwards, mean - outwards[:, -1] * flat)
    chosen = centers[torch.cdist(points, centers).argmin(1)]
    return residual - mean - chosen @ directions.T / unit


def _principal_directions(centerd: Tensor, count: int) -> Tensor:
    _, vectors = torch.linalg.eigh(centerd.T @ centerd / len(centerd))
    return vectors[:, -count:].flip(1)


def _kmeans(points: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Lloyd's iterations from random points; an empty center moves to a random point."""
    centers = points[torch.randperm(len(points), generator=generator)[:count]].clone()
    for _ in range(_ITERATIONS):
        owner = torch.cdist(points, centers).argmin(1)
        sizes = torch.bincount(owner, minlength=count)
        sums = torch.zeros_like(centers).index_add_(0, owner, points)
        centers = sums / sizes.clamp_min(1)[:, None]
        empty = (sizes == 0).nonzero().squeeze(1)
        fresh = torch.randint(len(points), (len(empty),), generator=generator)
        centers[empty] = points[fresh]
    return centers


def _set_linear(linear: LayeredLinear | None, layer: int, weight: Tensor, bias: Tensor) -> None:
    if linear is None:
        return
    linear.direction[layer] = F.normalize(weight, dim=-1) * _DIRECTION_LENGTH
    linear.gain[layer] = weight.norm(dim=-1)
    linear.bias[layer] = bias


class EmaCodebooks:
    """Each codebook entry an exponential moving average of the vectors that select it.

    Args:
        quantizer: the quantizer whose codebooks are changed in place.
        decay: the decay of the average in each step; close to 1 means a long memory.
        seed: the seed of the vectors that replace dead entries, together with the step.

    Attributes:
        shares: (num_quantizers, codebook_size): how often each entry is selected, a moving average
            relative to equal use; with the codebooks the only state that outlives a step.
    """

    def __init__(self, quantizer: ResidualQuantizer, decay: float, seed: int = 0) -> None:
        self._quantizer, self._decay, self._seed = quantizer, decay, seed
        self._follows = True
        self.shares = quantizer.codebooks.new_ones(quantizer.codebooks.shape[:2])
        self._clear()

    def take_over(self, follows: bool) -> None:
        """Take codebooks and projections of the layers from the optimizer, for the steps to come.

        Args:
            follows: whether the codebooks follow the encoder; otherwise they stay as they are.
        """
        self._follows = follows
        quantizer = self._quantizer
        quantizer.codebooks.requires_grad = False
        for projections in (quantizer.in_projs, quantizer.out_projs):
            if projections is not None:
                projections.requires_grad_(requires_grad=False)

    def restart(self) -> None:
        """Start over, after the codebooks were set from outside."""
        self.shares.fill_(1.0)
        self._clear()

    def _clear(self) -> None:
        self._counts = torch.zeros_like(self.shares)
        self._sums = torch.zeros_like(self._quantizer.codebooks)
        self._points: list[Tensor] = []

    @torch.no_grad()
    def note(
        self, output: QuantizerOutput, active: Tensor, valid: Float[Tensor, "batch frames"] | None
    ) -> None:
        """Accumulate inputs and selected entries of the active layers in a pass."""
        if not self._follows:
            return
        layers, _, frames = output.codes.shape
        used = active > torch.arange(layers, device=active.device)[:, None]
        weight = used[..., None].expand(-1, -1, frames).float()
        if valid is not None:
            weight = weight * valid
        codes, weight = output.codes.flatten(1), weight.flatten(1)
        views = output.views.flatten(1, 2)
        self._counts.scatter_add_(1, codes, weight)
        places = codes[..., None].expand_as(views)
        self._sums.scatter_add_(1, places, views * weight[..., None])
        self._points.append(views if valid is None else views[:, valid.flatten() > 0])

    @torch.no_grad()
    def update(self, processes: Processes, step: int) -> None:
        """Move the entries, after all passes of a step. Collective: every rank must call this.

        Args:
            processes: the processes of the run.
            step: the step that was made.
        """
        if not self._points:
            return
        counts, sums = processes.sum(self._counts), processes.sum(self._sums)
        total = counts.sum(1, keepdim=True)
        even = (total / counts.shape[1]).clamp_min(1e-9)
        fresh = torch.where(total > 0, counts / even, self.shares)
        self.shares.lerp_(fresh, 1 - self._decay)
        books = self._quantizer.codebooks
        # The mean of all vectors that selected an entry so far, weighted by age, without their sum.
        rate = (1 - self._decay) * fresh / self.shares.clamp_min(1e-9)
        means = sums / counts.clamp_min(1e-9)[..., None]
        chosen = counts > 0
        books.copy_(torch.where(chosen[..., None], books.lerp(means, rate[..., None]), books))
        self._revive(processes, step)
        self._clear()

    def _revive(self, processes: Processes, step: int) -> None:
        """Replace some entries that are hardly ever selected by vectors of this step."""
        if not (self.shares < _DEAD_SHARE).any():  # in no process, for all have the same
            return
        found = processes.gather(torch.cat(self._points, 1).cpu())
        points = torch.cat(found, 1).to(self.shares.device)
        if not points.shape[1]:
            return
        random = torch.Generator().manual_seed(self._seed * 1_000_003 + step)
        picked = torch.stack(
            [
                torch.randperm(points.shape[1], generator=random)[:_MOST_REVIVED]
                for _ in range(len(points))
            ]
        ).to(points.device)
        # All layers at once, without waiting for the GPU.
        dead = self.shares < _DEAD_SHARE
        number = dead.cumsum(1) - 1
        revived = dead & (number < picked.shape[1])
        places = picked.gather(1, number.clamp(0, picked.shape[1] - 1))
        fresh = points.gather(1, places[..., None].expand(-1, -1, points.shape[2]))
        books = self._quantizer.codebooks
        books.copy_(torch.where(revived[..., None], fresh, books))
        self.shares.masked_fill_(revived, _REVIVED_SHARE)
