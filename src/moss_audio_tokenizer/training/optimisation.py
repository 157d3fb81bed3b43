"""What every optimiser's step is made of, whatever trains: rate, gradients, means, finite numbers.

Owns, too, how several optimisers are one.

Knows nothing of losses or of data.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from ..errors import TrainingError
from .distributed import Processes, whole


class Optimizers:
    """Optimisers of different parameters, to be used as one.

    Attributes:
        param_groups: of all of them.
        state: likewise, by parameter.
    """

    def __init__(self, *parts: torch.optim.Optimizer) -> None:
        self._parts = parts
        self.param_groups: list[dict[str, Any]] = [g for part in parts for g in part.param_groups]
        self.state: defaultdict[Any, Any] = defaultdict(dict)
        for part in parts:
            part.state = self.state

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget all gradients."""
        for part in self._parts:
            part.zero_grad(set_to_none)

    def step(self) -> None:
        """One step of each."""
        for part in self._parts:
            part.step()


# Whatever makes a step.
Optimizing: TypeAlias = torch.optim.Optimizer | Optimizers


def begin_step(optimizer: Optimizing, rate: float) -> None:
    """Forget the gradients of the step before, and take on this step's learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.zero_grad(set_to_none=True)


def clip_gradients(parameters: Iterable[nn.Parameter], clip_norm: float) -> float:
    """Clip the gradients that there are; their norm before, in shares or not."""
    trained = [parameter for parameter in parameters if parameter.grad is not None]
    return float(whole(torch.nn.utils.clip_grad_norm_(trained, clip_norm)))


def means(values: dict[str, Tensor], processes: Processes) -> dict[str, float]:
    """Means over the processes, as numbers; all of them must ask, with the same names."""
    names = sorted(values)
    stacked = torch.stack([values[name].detach().float() for name in names])
    return dict(zip(names, processes.mean(stacked).tolist(), strict=True))


def mean_tokens(counts: Sequence[int], processes: Processes) -> float:
    """Targets of a pass, on average over all passes and processes; never 0, to divide by.

    Args:
        counts: of this process's passes.
        processes: those of the run.
    """
    mean = torch.tensor(sum(counts) / len(counts), device=processes.device)
    return max(1.0 / len(counts), float(processes.mean(mean)))


def require_finite(
    scalars: dict[str, float], names: Sequence[str], step: int, processes: Processes
) -> None:
    """Refuse numbers that would spoil the weights; all processes must ask.

    Args:
        scalars: of a step, the same in all processes.
        names: of this process's rows in its batch.
        step: that is being made, from 1 on.
        processes: those of the run.

    Raises:
        TrainingError: some are not finite; the message names step and rows.
    """
    if all(math.isfinite(value) for value in scalars.values()):
        return
    shown = ", ".join(f"{name} {value:g}" for name, value in scalars.items())
    files = ", ".join(name for rows in processes.gather(list(names)) for name in rows)
    raise TrainingError(
        f"step {step} is not finite ({shown}) on rows of {files}; lower "
        "optimizer.learning_rate, or look at these files, and go on with --resume"
    )
