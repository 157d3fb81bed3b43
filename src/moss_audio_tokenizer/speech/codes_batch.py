"""Codes as input of a speech model: checked."""

from typing import Protocol

import numpy as np
from jaxtyping import Int64, Integer

from ..errors import CodesError


class CodesConfig(Protocol):
    """The codes that a model knows."""

    @property
    def num_quantizers(self) -> int:
        """Number of codebooks."""
        ...

    @property
    def codebook_size(self) -> int:
        """Number of entries of each."""
        ...


def check_codes(
    clip: Integer[np.ndarray, "layers frames"],
    config: CodesConfig,
    num_quantizers: int | None = None,
) -> Int64[np.ndarray, "num_quantizers frames"]:
    """The first codebooks of a clip's codes, checked.

    Args:
        clip: its codes.
        config: configuration of the model that reads them.
        num_quantizers: number of codebooks to keep (default: all that clip and model have).

    Raises:
        CodesError: there are no frames, or codebooks or codes that the model does not have.
    """
    codes = np.asarray(clip)
    if codes.ndim != 2 or not codes.size or not np.issubdtype(codes.dtype, np.integer):
        raise CodesError(
            f"got codes of shape {codes.shape} and type {codes.dtype}; expected whole numbers "
            "(num_quantizers, frames), at least one frame"
        )
    most = min(len(codes), config.num_quantizers)
    layers = most if num_quantizers is None else num_quantizers
    if not 1 <= layers <= most:
        raise CodesError(
            f"num_quantizers is {layers}; expected 1 to {most}, the codebooks that both the "
            "codes and the model have"
        )
    if codes.min() < 0 or codes.max() >= config.codebook_size:
        raise CodesError(
            f"codes lie in {codes.min()} .. {codes.max()}; expected 0 .. {config.codebook_size - 1}"
        )
    return codes[:layers].astype(np.int64)
