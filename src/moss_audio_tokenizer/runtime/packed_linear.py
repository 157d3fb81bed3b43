"""Linear layers without bias, with weights packed for the processor.

Owns the choice of the kernel: oneDNN's packed weights on a CPU (each row's result is then the
same, bit for bit, however many rows are computed together), plain PyTorch elsewhere.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


class PlainLinear:
    """y = x W^T in ``dtype``, and the two ways in which a block uses it."""

    def __init__(self, weight: Float[Tensor, "outputs inputs"], dtype: torch.dtype) -> None:
        self.dtype = dtype
        self.weight = weight.to(dtype)

    def __call__(self, x: Tensor) -> Tensor:
        """X W^T."""
        return F.linear(x.to(self.dtype), self.weight)

    def gelu(self, x: Tensor) -> Tensor:
        """GELU(x W^T)."""
        return F.gelu(self(x))

    def add_to(self, residual: Tensor, x: Tensor) -> Tensor:
        """Residual + x W^T, in the residual's precision."""
        return residual + self(x)


class PackedLinear(PlainLinear):
    """oneDNN's layout and fused epilogues, on a CPU."""

    def __init__(self, weight: Float[Tensor, "outputs inputs"], dtype: torch.dtype) -> None:
        self.dtype = dtype
        # Packed for no particular number of rows: the kernel then treats each row alike.
        self.weight = torch.ops.mkldnn._reorder_linear_weight(weight.to(dtype).contiguous(), None)

    def __call__(self, x: Tensor) -> Tensor:
        """X W^T."""
        return _onednn(x.to(self.dtype), self.weight, None, "none", [], "")

    def gelu(self, x: Tensor) -> Tensor:
        """GELU(x W^T), in one kernel."""
        return _onednn(x.to(self.dtype), self.weight, None, "gelu", [], "none")

    def add_to(self, residual: Tensor, x: Tensor) -> Tensor:
        """Residual + x W^T, in one kernel where the types are equal."""
        if self.dtype != residual.dtype:
            return residual + self(x)
        return _onednn_binary(x, residual, self.weight, None, "add")


def _onednn(*arguments: object) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise.default(*arguments)


def _onednn_binary(*arguments: object) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise.binary(*arguments)


def fast_linear(weight: Float[Tensor, "outputs inputs"], dtype: torch.dtype) -> PlainLinear:
    """The fastest linear layer for these weights on their device.

    On a CPU, ``float16`` means weights rounded to it in float32 arithmetic, for CPUs multiply no
    float16.
    """
    weight = weight.detach()
    if weight.device.type != "cpu":
        return PlainLinear(weight, dtype)
    if dtype == torch.float16:
        weight, dtype = weight.to(dtype).float(), torch.float32
    packs = torch.backends.mkldnn.is_available()
    return PackedLinear(weight, dtype) if packs else PlainLinear(weight, dtype)
