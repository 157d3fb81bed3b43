"""Worker processes that make rows ahead of the training loop.

Owns the processes and their end: they go with the process that made them, however it ends, and a
worker that dies raises an error there instead of leaving it waiting. Rows travel through pipes.
"""

import multiprocessing
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeAlias

import numpy as np

from ...errors import TrainingError
from ...workers import prepare_worker
from .audio_rows import Job, RowFormat, make_rows

# What each row sounds like, or a line about its file, which cannot be read.
RowResults: TypeAlias = list[np.ndarray | str]


class RowWorkers:
    """Processes that make rows; a context manager that ends them.

    Args:
        num_workers: processes, at least 1.
        wanted: the format of all rows.
    """

    def __init__(self, num_workers: int, wanted: RowFormat) -> None:
        self._num_workers, self._wanted = num_workers, wanted
        # Spawned: a fork of a process with threads, as PyTorch's is, may hang.
        self._pool = ProcessPoolExecutor(
            num_workers, multiprocessing.get_context("spawn"), initializer=prepare_worker
        )

    def __enter__(self) -> "RowWorkers":
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def submit(self, jobs: Sequence[Job]) -> list[Future[RowResults]]:
        """Start to make rows; as many shares as there are workers."""
        size = -(-len(jobs) // self._num_workers)
        shares = [jobs[first : first + size] for first in range(0, len(jobs), size)]
        try:
            return [self._pool.submit(make_rows, share, self._wanted) for share in shares]
        except BrokenProcessPool as error:
            raise _dead_worker() from error

    def collect(self, futures: Sequence[Future[RowResults]]) -> RowResults:
        """The rows of a `submit`, in order.

        Raises:
            TrainingError: a worker has died.
        """
        try:
            return [row for future in futures for row in future.result()]
        except BrokenProcessPool as error:
            raise _dead_worker() from error


def _dead_worker() -> TrainingError:
    return TrainingError(
        "a process that decodes training data has died, killed from outside or for want of "
        "memory; set data.workers lower and go on with --resume"
    )
