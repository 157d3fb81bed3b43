"""The memory of a training step, by which recipes are compared."""

from collections.abc import Iterable
from contextlib import closing
from statistics import mean
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from .loop import Loop

_STEPS = 8


def step_memory(run: Loop[Any, Any]) -> float:
    """Megabytes that a training step needs, averaged over the first eight steps of a run.

    On a GPU this is the peak of what is allocated: weights, gradients and activations, but not yet
    the state of the optimizer. PyTorch does not count the memory of a CPU: there it is what the
    forward pass keeps for the backward pass, without the weights.

    Args:
        run: a run before its first step, whose weights are not changed. Its passes need no
            preparation (`Loop.before_passes`).
    """
    with closing(run.batches(0)) as batches:
        steps = [run.passes(next(batches)) for _ in range(_STEPS)]
    return mean(max(_bytes_of(run, rows) for rows in passes) for passes in steps) / 1e6


def _bytes_of(run: Loop[Any, Any], rows: Any) -> int:
    """Of one pass; the largest pass of a step is its peak."""
    device, num_targets = run.processes.device, float(run.num_targets(rows))
    if device.type != "cuda":
        kept = _KeptTensors(run.trained_module().parameters())
        with saved_tensors_hooks(kept.add, lambda tensor: tensor):
            run.losses(rows, num_targets)
        return kept.bytes
    torch.cuda.reset_peak_memory_stats(device)
    run.losses(rows, num_targets)["total"].backward()
    run.trained_module().zero_grad()
    return torch.cuda.max_memory_allocated(device)


class _KeptTensors:
    """Counts tensors that are kept for the backward pass, each memory once.

    Args:
        weights: tensors that are not counted.
    """

    def __init__(self, weights: Iterable[Tensor]) -> None:
        self._known = {weight.untyped_storage().data_ptr() for weight in weights}
        self.bytes = 0

    def add(self, tensor: Tensor) -> Tensor:
        """A hook of PyTorch, called with each tensor that is kept."""
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self._known:
            self._known.add(storage.data_ptr())
            self.bytes += storage.nbytes()
        # The tensor itself would keep its own graph alive.
        return tensor.detach()
