"""Engines: what runs the named tasks of a job, worker processes of this machine or a Ray cluster.

Owns the protocol of jobs, the workers and their end; a worker that is killed costs the task that it
was at, which is done again. Ray (the extra ``ray``) is imported only to use a cluster: Ray Data
streams the tasks to actors, each of which opens a codec once, and starts an actor that died again.
"""

import json
import logging
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from .. import errors
from ..errors import BulkError, InputError, MissingDependencyError, MossAudioError
from ..files import is_machine_failure
from ..workers import prepare_worker

ENGINES = ("local", "ray")
# Pools in a row that die without having finished anything: it is not chance then.
_MOST_FRUITLESS_POOLS = 3
_POLL_SECONDS = 0.5
_FAILURE = "failure"

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


@dataclass(frozen=True)
class RayOptions:
    """Where and on what actors run.

    Attributes:
        address: address of a cluster; "auto" for the one that this machine is part of, "" for a
            new one on this machine.
        cpus: CPUs of each actor.
        gpus: GPUs of each actor; a fraction lets several share one.
    """

    address: str = ""
    cpus: float = 1.0
    gpus: float = 0.0


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


def check_engine(engine: str) -> None:
    """Check the name of an engine.

    Raises:
        InputError: there is no such engine.
    """
    if engine not in ENGINES:
        raise InputError(f"got engine {engine!r}; expected {', '.join(ENGINES)}")


def run_job(
    job: Job,
    names: Sequence[str],
    engine: str,
    workers: int,
    report: Report,
    ray_options: RayOptions | None = None,
    tick: Tick | None = None,
) -> None:
    """Do all tasks of a job, in any order.

    Args:
        job: the job.
        names: names of the tasks.
        engine: one of `ENGINES`.
        workers: number of processes or, with Ray, the most actors.
        report: called with every outcome.
        ray_options: the cluster and resources of the actors.
        tick: called from time to time with the clips done in unfinished tasks; not with Ray.

    Raises:
        BulkError: workers die again and again, or the cluster cannot be reached.
        MissingDependencyError: Ray is not installed.
    """
    if not names:
        return
    if engine == "ray":
        _run_on_ray(job, names, workers, report, ray_options or RayOptions())
    else:
        _run_locally(job, names, workers, report, tick)


def _run_locally(
    job: Job, names: Sequence[str], workers: int, report: Report, tick: Tick | None
) -> None:
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


def _run_on_ray(
    job: Job, names: Sequence[str], workers: int, report: Report, options: RayOptions
) -> None:
    ray = _library()
    ours = not ray.is_initialized()
    if ours:
        _connect(ray, options)
    try:
        tasks = ray.data.from_items(
            [{"name": name} for name in names], override_num_blocks=len(names)
        )
        outcomes = tasks.map_batches(
            _Actor,
            fn_constructor_args=(job,),
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(min_size=1, max_size=workers),
            num_cpus=options.cpus,
            num_gpus=options.gpus or None,
        )
        for row in outcomes.iter_rows():
            report(_outcome(row))
    except ray.exceptions.RayError as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise BulkError(
            f"an actor of Ray failed ({lines[-1].strip()}); continue with --resume"
        ) from error
    finally:
        if ours:
            ray.shutdown()


class _Actor:
    """A worker of Ray: called with rows, one at a time."""

    def __init__(self, job: Job) -> None:
        self._job, self._opened = job, None

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[str]]:
        return {"outcome": [json.dumps(self._attempt(str(name))) for name in batch["name"]]}

    def _attempt(self, name: str) -> Outcome:
        # Of an exception Ray would bring back the text alone.
        try:
            with failures_of_the_machine():
                if self._opened is None:
                    self._opened = self._job.open()
                return self._job.do(self._opened, name)
        except MossAudioError as error:
            return {_FAILURE: type(error).__name__, "message": str(error)}


def _library() -> Any:
    try:
        import ray
        import ray.data
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            f"--engine ray needs {error.name}, which is not installed; "
            "pip install 'moss-audio-tokenizer[ray]', or choose --engine local"
        ) from error
    return ray


def _connect(ray: Any, options: RayOptions) -> None:
    keys: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if options.address:
        keys["address"] = options.address
    else:
        keys["include_dashboard"] = False
    try:
        ray.init(**keys)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise BulkError(
            f"no Ray cluster at {options.address!r} ({error}); start one, or leave out "
            "--ray-address"
        ) from error
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False


def _outcome(row: dict[str, Any]) -> Outcome:
    """What an actor came to, or the error that it ran into."""
    outcome: Outcome = json.loads(row["outcome"])
    if _FAILURE in outcome:
        raise getattr(errors, outcome[_FAILURE], BulkError)(outcome["message"])
    return outcome
