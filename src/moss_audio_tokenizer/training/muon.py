"""Muon: steps whose matrices are made nearly orthogonal, for all matrices of a shape at once.

PyTorch's takes one matrix after the other, which on a GPU is a quarter of all that a small codec's
training step launches. Knows nothing of models. Source: Jordan et al. 2024
(kellerjordan.github.io/posts/muon), whose constants these are; the size of a step after
arXiv 2502.16982.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

# Of the quintic that drives all singular values towards 1.
_QUINTIC = (3.4445, -4.7750, 2.0315)
_ITERATIONS = 5
_SMALLEST_NORM = 1e-7
# Makes a step as large as AdamW's usually is, so that one learning rate does for both.
_STEP_RMS = 0.2


class Muon(torch.optim.Optimizer):
    """Decoupled weight decay, Nesterov momentum, and updates with singular values near 1.

    Args:
        matrices: of any shapes; those without a gradient stay as they are.
        lr: learning rate, in the size of AdamW's.
        weight_decay: share of a matrix, times ``lr``, that a step takes off it.
        momentum: of the running mean of gradients.
    """

    def __init__(
        self,
        matrices: Iterable[nn.Parameter],
        lr: float,
        weight_decay: float = 0.0,
        momentum: float = 0.95,
    ) -> None:
        super().__init__(matrices, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """One step of all matrices that have a gradient."""
        if closure is not None:
            raise ValueError("Muon takes no closure")
        for group in self.param_groups:
            of_shape = defaultdict[torch.Size, list[Tensor]](list)
            for matrix in group["params"]:
                if matrix.grad is not None:
                    of_shape[matrix.shape].append(matrix)
            for matrices in of_shape.values():
                self._step_together(matrices, group)

    def _step_together(self, matrices: list[Tensor], group: dict[str, Any]) -> None:
        """A step of matrices of one shape."""
        rate, momentum = group["lr"], group["momentum"]
        gradients = [matrix.grad for matrix in matrices if matrix.grad is not None]
        means = [self._running_mean(matrix) for matrix in matrices]
        torch._foreach_lerp_(means, gradients, 1 - momentum)
        updates = orthogonal(torch.stack(torch._foreach_lerp(gradients, means, momentum)))
        size = rate * _STEP_RMS * max(matrices[0].shape) ** 0.5
        torch._foreach_mul_(matrices, 1 - rate * group["weight_decay"])
        torch._foreach_add_(matrices, list(updates.to(matrices[0].dtype)), alpha=-size)

    def _running_mean(self, matrix: Tensor) -> Tensor:
        state = self.state[matrix]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(matrix)
        mean: Tensor = state["momentum_buffer"]
        return mean


def orthogonal(
    matrices: Float[Tensor, "count rows columns"],
) -> Float[Tensor, "count rows columns"]:
    """U V^T of each matrix U S V^T, nearly, in bfloat16: singular values end around 1."""
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.bfloat16()
    x = x.transpose(1, 2) if tall else x
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp_min(_SMALLEST_NORM)
    a, b, c = _QUINTIC
    for _ in range(_ITERATIONS):
        gram = x @ x.transpose(1, 2)
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.transpose(1, 2) if tall else x
