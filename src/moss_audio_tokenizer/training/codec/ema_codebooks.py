"""Exponential moving averages: of the codec's weights, and codebooks that follow the encoder.

Codebooks trained by gradient fall behind a fast-learning encoder (docs/experiments.md); a mean
over the last hundred steps follows it. The projections of the quantizer stay as they were fitted.
Source: van den Oord et al. 2017 (arXiv 1711.00937), appendix A.1; entries that are hardly ever
selected move to where data are, after SoundStream (arXiv 2107.03312). Knows nothing of the loop.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ...model.quantizer import QuantizerOutput, ResidualQuantizer
from ..distributed import Processes, spread_like, whole

# An entry that is selected less often than this share of the average is dead: an entry for rare
# frames is worth less than one where frames are dense, for later layers correct what is rare.
_DEAD_SHARE = 0.1
# How many entries of a layer are replaced in a step, and the usage that these begin with.
_MOST_REVIVED = 32
_REVIVED_SHARE = 0.3


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


class WeightAverage:
    """Exponential moving average: mean += (1 - decay) * (weights - mean), after every step.

    Args:
        module: the module whose weights are averaged; the average starts with their values.
        decay: the decay in each step; close to 1 means a long memory.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self._module = module
        self._decay = decay
        self._means = {name: p.detach().clone() for name, p in module.named_parameters()}

    @torch.no_grad()
    def update(self) -> None:
        """Add the current weights to the average."""
        weights = [parameter.detach() for parameter in self._module.parameters()]
        torch._foreach_lerp_(list(self._means.values()), weights, 1 - self._decay)

    @torch.no_grad()
    def restart(self, prefix: str = "") -> None:
        """Start over with the current weights of all names with a prefix, after they were set."""
        for name, parameter in self._module.named_parameters():
            if name.startswith(prefix):
                self._means[name].copy_(parameter)

    def whole_state(self) -> dict[str, Tensor]:
        """The averages by name on the CPU. Collective: every rank must call this."""
        return {name: whole(mean).cpu() for name, mean in self._means.items()}

    def load(self, state: dict[str, Tensor]) -> None:
        """Continue from a saved state."""
        for name, parameter in self._module.named_parameters():
            self._means[name] = spread_like(state[name], parameter.detach())
