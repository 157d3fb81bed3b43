"""What this machine can do at most without PyTorch: bytes read and operations done in a second.

Owns measuring with NumPy; `runtime.hardware` does the same in PyTorch, for what runs there.
"""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from .speed import Machine

_READ_BYTES = 400_000_000
_MATRIX = 1024
_RUNS = 8


def measure_machine(num_threads: int) -> Machine:
    """Ceilings in float32 of so many threads, each on one core; takes about a second."""
    with ThreadPoolExecutor(num_threads) as pool:  # NumPy lets go of the interpreter's lock
        parts = np.array_split(np.ones(_READ_BYTES // 4, np.float32), num_threads)
        reading = _READ_BYTES / _best_seconds(lambda: list(pool.map(np.sum, parts)))
    # Products take the threads of NumPy's own library, which are set when that is loaded.
    left = np.random.default_rng(0).standard_normal((_MATRIX, _MATRIX), np.float32)
    computing = 2 * _MATRIX**3 / _best_seconds(lambda: left @ left)
    return Machine(f"{num_threads} threads, fp32 (NumPy's ceilings)", reading, computing, 4)


def _best_seconds(work: Callable[[], object]) -> float:
    """The fastest of several runs: a ceiling is wanted, not an average."""
    best = float("inf")
    for _ in range(_RUNS):
        start = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - start)
    return best
