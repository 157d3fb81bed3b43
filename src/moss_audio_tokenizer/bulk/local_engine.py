"""The local engine: worker processes of this machine, each of which opens a codec once.

Owns the processes and their end; a worker that is killed costs the piece that it was at, which is
done again.
"""

import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from ..errors import BulkError
from ..workers import prepare_worker
from .jobs import Job, Outcome, Report

# Pools in a row that die without having finished anything: it is not chance then.
_MOST_FRUITLESS_POOLS = 3

_worker: dict[str, Any] = {}


def run_locally(job: Job, names: Sequence[str], workers: int, report: Report) -> None:
    """Do all pieces, in any order.

    Args:
        job: what to do.
        names: the pieces.
        workers: processes.
        report: called with every outcome.

    Raises:
        BulkError: workers die again and again.
    """
    left, fruitless = list(names), 0
    while left:
        done = _run_pool(job, left, workers, report)
        fruitless = 0 if done else fruitless + 1
        if fruitless == _MOST_FRUITLESS_POOLS:
            raise BulkError(
                f"worker processes have died {fruitless} times, killed from outside or for want "
                "of memory; go on with --resume and fewer --workers or a smaller --batch-seconds"
            )
        left = [name for name in left if name not in done]


def _run_pool(job: Job, names: Sequence[str], workers: int, report: Report) -> set[str]:
    """The pieces that were done before a worker died, or all."""
    # Spawned: a fork of a process with threads may hang.
    context = multiprocessing.get_context("spawn")
    done: set[str] = set()
    count, others = max(1, min(workers, len(names))), set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(count, context, initializer=_open, initargs=(job,))
    try:
        futures = {pool.submit(_do, name): name for name in names}
        for future in as_completed(futures):
            outcome = future.result()
            done.add(futures[future])
            report(outcome)
    except BrokenProcessPool:
        pass  # what is left is counted by the caller
    except BaseException:
        # What they are at is not worth waiting for: it can be done again.
        for process in set(multiprocessing.active_children()) - others:
            process.kill()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
    return done


def _open(job: Job) -> None:
    prepare_worker()
    _worker["job"] = job


def _do(name: str) -> Outcome:
    # Opened here and not when the process starts: an error would not reach the parent from there.
    job: Job = _worker["job"]
    if "opened" not in _worker:
        _worker["opened"] = job.open()
    return job.do(_worker["opened"], name)
