"""Folding time into channels and back, and interleaving stereo; shapes only, no weights.

Output channel = input channel * patch size + offset within the patch, as in released checkpoints.
"""

from jaxtyping import Float
from torch import Tensor, nn


def patchify(
    x: Float[Tensor, "batch steps width"], patch_size: int
) -> Float[Tensor, "batch patches patch_width"]:
    """Fold every ``patch_size`` steps into channels."""
    return x.unflatten(1, (-1, patch_size)).transpose(2, 3).flatten(2)


def unpatchify(
    x: Float[Tensor, "batch patches patch_width"], patch_size: int
) -> Float[Tensor, "batch steps width"]:
    """The inverse of `patchify`."""
    return x.unflatten(2, (-1, patch_size)).transpose(2, 3).flatten(1, 2)


def interleave(
    audio: Float[Tensor, "batch channels samples"],
) -> Float[Tensor, "batch stream 1"]:
    """Channels sample by sample into one stream: L0 R0 L1 R1 ..."""
    return audio.transpose(1, 2).flatten(1)[..., None]


def deinterleave(
    stream: Float[Tensor, "batch stream 1"], num_channels: int
) -> Float[Tensor, "batch channels samples"]:
    """The inverse of `interleave`."""
    return stream.squeeze(-1).unflatten(1, (-1, num_channels)).transpose(1, 2)


class Patchify(nn.Module):
    """`patchify` as a stage of the encoder."""

    def __init__(self, patch_size: int) -> None:
        super().__init__()
        self.patch_size = patch_size

    def forward(self, x: Tensor) -> Tensor:
        """Fold steps into channels."""
        return patchify(x, self.patch_size)


class Unpatchify(nn.Module):
    """`unpatchify` as a stage of the decoder."""

    def __init__(self, patch_size: int) -> None:
        super().__init__()
        self.patch_size = patch_size

    def forward(self, x: Tensor) -> Tensor:
        """Unfold channels into steps."""
        return unpatchify(x, self.patch_size)
