"""Adversarial losses, as pure functions of the discriminators' maps.

Least squares or hinge, and the distance of the maps. Sums over discriminators, as the paper
writes them; means over each map. Source: training.md section 3.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def discriminator_loss(
    real: Sequence[Sequence[Tensor]], fake: Sequence[Sequence[Tensor]], kind: str = "lsgan"
) -> Float[Tensor, ""]:
    """What the discriminators minimise: real maps towards 1, fake ones towards 0 (hinge: -1).

    Args:
        real: maps of recordings, the judgement last.
        fake: maps of detached reconstructions.
        kind: "lsgan" or "hinge".
    """
    pairs = [(r[-1], f[-1]) for r, f in zip(real, fake, strict=True)]
    if kind == "hinge":
        return _sum([F.relu(1 - r).mean() + F.relu(1 + f).mean() for r, f in pairs])
    return _sum([(1 - r).square().mean() + f.square().mean() for r, f in pairs])


def generator_loss(fake: Sequence[Sequence[Tensor]], kind: str = "lsgan") -> Float[Tensor, ""]:
    """What the decoder minimises: its maps towards those of recordings."""
    if kind == "hinge":
        return _sum([-maps[-1].mean() for maps in fake])
    return _sum([(1 - maps[-1]).square().mean() for maps in fake])


def feature_loss(
    real: Sequence[Sequence[Tensor]], fake: Sequence[Sequence[Tensor]]
) -> Float[Tensor, ""]:
    """Distance of all maps but the judgements; the real ones are targets."""
    return _sum(
        [
            F.l1_loss(f, r.detach())
            for reals, fakes in zip(real, fake, strict=True)
            for r, f in zip(reals[:-1], fakes[:-1], strict=True)
        ]
    )


def _sum(losses: list[Tensor]) -> Float[Tensor, ""]:
    return torch.stack(losses).sum()
