"""What this machine can do at most: bytes read and operations done in a second."""

import time
from collections.abc import Callable

import torch
from torch import Tensor

from ..config.costs import Machine
from ..model.inputs import DTYPES

# So much that on a GPU the call itself, some microseconds, does not count.
_READ_BYTES = {"cpu": 400_000_000, "cuda": 1_600_000_000}
_MATRIX = {"cpu": 1536, "cuda": 8192}


def use_threads(count: int) -> None:
    """Compute with so many threads on a CPU."""
    torch.set_num_threads(count)


def measure_ceilings(device: torch.device, dtype: str) -> Machine:
    """Measure a device for "fp32", "bf16" or "fp16"; takes a few seconds on a CPU."""
    kind = DTYPES[dtype]
    # On a CPU float16 is a way to store weights: the arithmetic is float32's.
    computing = torch.float32 if dtype == "fp16" and device.type == "cpu" else kind
    where = f"{torch.get_num_threads()} threads" if device.type == "cpu" else _gpu_name(device)
    rates = (reading_rate(device), computing_rate(device, computing))
    return Machine(f"{where}, {dtype}", *rates, kind.itemsize)


def _gpu_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)


def reading_rate(device: torch.device) -> float:
    """Bytes a second, from summing what is larger than any cache."""
    num_bytes = _READ_BYTES.get(device.type, _READ_BYTES["cpu"])
    values = torch.ones(num_bytes // 4, device=device)
    return num_bytes / _best_seconds(values.sum, device)


def computing_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Operations a second, from a large square product."""
    size = _MATRIX.get(device.type, 1536)
    left = torch.randn(size, size, device=device).to(dtype)
    return 2 * size**3 / _best_seconds(lambda: left @ left, device)


def _best_seconds(work: Callable[[], Tensor], device: torch.device) -> float:
    """The fastest of 12 runs, or of as many as one second allows: a ceiling, not an average.

    The first run does not count to the second; two are always made.
    """
    best, end = float("inf"), float("inf")
    for run in range(12):
        start = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - start)
        end = time.perf_counter() + 1.0 if run == 0 else end
        if time.perf_counter() > end:
            break
    return best
