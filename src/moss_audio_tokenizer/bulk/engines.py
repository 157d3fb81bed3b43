"""Engines: what runs the named tasks of a job, here by worker processes of this machine.

Owns the protocol of jobs, the processes and their end; a worker that is killed costs the task that
it was at, which is done again. `ray_engine` runs the same jobs on a cluster.
"""

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any, Protocol, TypeAlias

from ..errors import BulkError, MossAudioError
from ..files import is_machine_failure
from ..workers import prepare_worker

# Pools in a row that die without having finished anything: it is not chance then.
_MOST_FRUITLESS_POOLS = 3
_POLL_SECONDS = 0.5

# The result of a task, as plain values.
Outcome: TypeAlias = dict[str, Any]
Report: TypeAlias = Callable[[Outcome], None]
# Called with the clips that were done in tasks that are not finished yet.
Tick: TypeAlias = Callable[[int], None]

_worker: dict[str, Any] = {}


class Job(Protocol):
    """Work on a data set; it travels to the workers, and what `open` returns stays there."""

    def open(self) -> Any:
        """What `do` works with: a codec."""
        ...

    def do(self, opened: Any, name: str) -> Outcome:
        """Do one task; doing it again gives the same result."""
        ...


def count_clips(number: int) -> None:
    """Say, from inside a task, that so many more of its clips are done."""
    if (counter := _worker.get("counter")) is not None:
        with counter.get_lock():
            counter.value += number


@contextmanager
def failures_of_the_machine() -> Iterator[None]:
    """Make a full disk and the like a BulkError, whose kind survives the way between processes.

    Raises:
        BulkError: the machine failed, and not what the user gave.
    """
    try:
        yield
    except MossAudioError as error:
        if is_machine_failure(error):
            raise BulkError(str(error)) from error
        raise


def run_locally(
    job: Job, names: Sequence[str], workers: int, report: Report, tick: Tick | None = None
) -> None:
    """Do all tasks of a job, in any order.

    Args:
        job: the job.
        names: names of the tasks.
        workers: number of processes.
        report: called with every outcome.
        tick: called from time to time with the clips done in unfinished tasks.

    Raises:
        BulkError: workers die again and again.
    """
    left, fruitless = list(names), 0
    while left:
        done = _run_pool(job, left, workers, report, tick)
        fruitless = 0 if done else fruitless + 1
        if fruitless == _MOST_FRUITLESS_POOLS:
            raise BulkError(
                f"worker processes have died {fruitless} times, killed from outside or for want "
                "of memory; continue with --resume and fewer --workers or a smaller --batch-seconds"
            )
        left = [name for name in left if name not in done]


def _run_pool(
    job: Job, names: Sequence[str], workers: int, report: Report, tick: Tick | None
) -> set[str]:
    """The tasks that were done before a worker died, or all."""
    # Spawned: a fork of a process with threads may hang.
    context = multiprocessing.get_context("spawn")
    done: set[str] = set()
    count, others = max(1, min(workers, len(names))), set(multiprocessing.active_children())
    counter = context.Value("q", 0)
    pool = ProcessPoolExecutor(count, context, initializer=_open, initargs=(job, counter))
    try:
        futures = {pool.submit(_do, name): name for name in names}
        left, finished_clips = set(futures), 0
        while left:
            completed, left = wait(left, _POLL_SECONDS, FIRST_COMPLETED)
            for future in completed:
                outcome = future.result()
                finished_clips += outcome.get("counted", 0)
                done.add(futures[future])
                report(outcome)
            if tick is not None:
                tick(counter.value - finished_clips)
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


def _open(job: Job, counter: Any) -> None:
    prepare_worker()
    _worker.update(job=job, counter=counter)


def _do(name: str) -> Outcome:
    # Opened here and not when the process starts: an error would not reach the parent from there.
    job: Job = _worker["job"]
    with failures_of_the_machine():
        if "opened" not in _worker:
            _worker["opened"] = job.open()
        return job.do(_worker["opened"], name)
