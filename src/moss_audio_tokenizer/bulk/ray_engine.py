"""The Ray engine: actors of a Ray cluster, each of which opens a codec once.

Ray Data streams the tasks to the actors, starts one again that has died, and gives it back the
task that it was at. The only module that imports Ray (the extra ``ray``).
"""

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .. import errors
from ..errors import BulkError, MissingDependencyError, MossAudioError
from .engines import Job, Outcome, Report, failures_of_the_machine

_FAILURE = "failure"


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


def run_on_ray(
    job: Job, names: Sequence[str], workers: int, report: Report, options: RayOptions
) -> None:
    """Do all tasks of a job, in any order; see `run_locally`.

    Raises:
        BulkError: the cluster cannot be reached, or an actor fails for good.
        MissingDependencyError: Ray is not installed.
    """
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
