"""Layer norm and the change of type after it as one Triton kernel, on a GPU.

Of a few rows both are so short that starting them is most of what they cost.
"""

from types import ModuleType

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .stage import layer_norm

# Only to compare both ways in one process.
_enabled = True


class FusedNorm:
    """Says what `stage.layer_norm` says, in the type of the products that follow.

    Args:
        kernels: `fused_rings.load_triton_kernels`'.
        dtype: of the results.
    """

    def __init__(self, kernels: ModuleType, dtype: torch.dtype) -> None:
        self._kernels = kernels
        self._dtype = dtype

    def __call__(
        self, x: Float[Tensor, "rows steps width"], norm: nn.LayerNorm
    ) -> Float[Tensor, "rows steps width"]:
        """X, normalised."""
        if not _enabled:
            return layer_norm(x, norm)
        width = x.shape[-1]
        out = torch.empty(x.shape, dtype=self._dtype, device=x.device)
        with torch.cuda.device_of(out):
            self._kernels.normalise[(x.shape[0] * x.shape[1],)](
                *(x.contiguous(), norm.weight, norm.bias, out, norm.eps),
                width=width,
                padded_width=1 << (width - 1).bit_length(),
            )
        return out
