"""A running mean of weights (EMA), which is often better than any of the weights themselves."""

import torch
from torch import Tensor, nn

from ..distributed import spread_like, whole


class MovingMean:
    """mean += (1 - decay) * (weights - mean), after every step.

    Args:
        module: whose weights; the mean starts as they are.
        decay: close to 1 means a long memory.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self._module = module
        self._decay = decay
        self._means = {name: p.detach().clone() for name, p in module.named_parameters()}

    @torch.no_grad()
    def update(self) -> None:
        """Take in the weights as they are now."""
        weights = [parameter.detach() for parameter in self._module.parameters()]
        torch._foreach_lerp_(list(self._means.values()), weights, 1 - self._decay)

    @torch.no_grad()
    def restart(self, prefix: str = "") -> None:
        """Begin anew with the weights as they are, of names that begin so: they were set."""
        for name, parameter in self._module.named_parameters():
            if name.startswith(prefix):
                self._means[name].copy_(parameter)

    def whole_state(self) -> dict[str, Tensor]:
        """The means by name, whole, on the CPU; all processes must ask."""
        return {name: whole(mean).cpu() for name, mean in self._means.items()}

    def load(self, state: dict[str, Tensor]) -> None:
        """Go on from a saved state."""
        for name, parameter in self._module.named_parameters():
            self._means[name] = spread_like(state[name], parameter.detach())
