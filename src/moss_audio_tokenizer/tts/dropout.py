"""Progressive Sequence Dropout: how many layers of codes each training row keeps.

Source: the paper's section 3.3; training.md section 7 for the option.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor


@dataclass(frozen=True)
class SequenceDropout:
    """z ~ Bernoulli(probability), K ~ U{1 .. N - 1}: a row keeps K layers if z, else all N.

    Attributes:
        probability: that a row drops layers.
        include_full: draw K from 1 .. N instead, so that with probability 1 the last layer is
            still trained: as the paper writes it, it never would be.
    """

    probability: float = 1.0
    include_full: bool = True

    def depths(
        self, rows: int, num_quantizers: int, random: torch.Generator
    ) -> Int[Tensor, "rows"]:
        """Layers that each row keeps."""
        most = num_quantizers if self.include_full else max(1, num_quantizers - 1)
        drawn = torch.randint(1, most + 1, (rows,), generator=random)
        dropped = torch.rand(rows, generator=random) < self.probability
        return torch.where(dropped, drawn, num_quantizers)
