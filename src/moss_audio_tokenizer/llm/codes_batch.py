"""Codes as input of a language model: checked, and padded to a batch."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64, Integer
from torch import Tensor

from ..errors import CodesError


class CodesConfig(Protocol):
    """The codes that a model knows."""

    num_quantizers: int
    codebook_size: int


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


def pad_in_front(
    rows: Sequence[Float[Tensor, "_ width"]],
) -> tuple[Float[Tensor, "batch steps width"], Int64[Tensor, "batch steps"]]:
    """Left-padded rows, and their attention mask."""
    longest = max(map(len, rows))
    missing = [longest - len(row) for row in rows]
    padded = [F.pad(row, (0, 0, count, 0)) for row, count in zip(rows, missing, strict=True)]
    first = torch.tensor(missing, device=rows[0].device)
    mask = torch.arange(longest, device=rows[0].device) >= first[:, None]
    return torch.stack(padded), mask.long()
