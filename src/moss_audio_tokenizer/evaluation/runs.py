"""A run: clips through contenders into a folder of results, which can be gone on with.

Owns what is done already and what is left; the work on a clip is `runner.py`'s, what is written
at the end `results.py`'s. A row counts as done when its contender, its clip's content and text and
its scorers are still the same, nothing failed, and every metric that is asked for now is there.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import isnan
from pathlib import Path

from ..errors import EvaluationError, InputError
from ..files import lock_file
from ..manifest import ManifestEntry
from .contenders import Contender, Opener
from .kept import audio_folder, slug, without_changed
from .measures import METRICS, missing_packages
from .rows import Key, Row, append_rows, read_rows, write_rows
from .runner import Opened, Task, Work, metrics_of, run_tasks
from .scorers import ScorerNames, Scorers

RESULTS = "results.jsonl"
_LOCK = "run.lock"


@dataclass(frozen=True)
class Entrant:
    """What a run knows of a contender once it has been opened.

    Attributes:
        name, identity, depths, sampling_rate, codebook_size: see `Contender`.
    """

    name: str
    identity: str
    depths: tuple[int | None, ...]
    sampling_rate: int
    codebook_size: int


@dataclass(frozen=True)
class Plan:
    """What is to be measured.

    Attributes:
        clips: of a manifest.
        openers: make the contenders.
        metrics: names of what is measured.
        scorers: models that score.
        jobs: processes.
        num_examples: clips whose audio is kept, to listen to.
    """

    clips: Sequence[ManifestEntry]
    openers: Sequence[Opener]
    metrics: Sequence[str]
    scorers: ScorerNames = field(default_factory=ScorerNames)
    jobs: int = 1
    num_examples: int = 4


@dataclass(frozen=True)
class Outcome:
    """What a run found.

    Attributes:
        rows: of all clips, contenders and depths, in that order.
        entrants: in the order in which they were given.
        examples: places in the manifest of the clips whose audio was kept.
        notes: what the reader should know, such as a metric that could not be measured.
    """

    rows: list[Row]
    entrants: list[Entrant]
    examples: list[int]
    notes: list[str]


def run(plan: Plan, folder: Path, on_progress: Callable[[int, int], None]) -> Outcome:
    """Measure what is not measured yet, into ``folder / results.jsonl``.

    Args:
        plan: what to measure.
        folder: of the results; made once every contender is open.
        on_progress: called with the number of tasks done and of all, at the start too.

    Raises:
        EvaluationError: the folder holds results that cannot be read, another run has it, or a
            process died.
        InputError: two contenders or two clips of one name, or no such function of the user's.
        MissingDependencyError: a program or package is not installed.
    """
    opened = Opened([opener() for opener in plan.openers], Scorers(plan.scorers))
    entrants = [_entrant(one) for one in opened.contenders]
    _check_names([slug(one.name) for one in entrants], "codec")
    _check_names([clip.name for clip in plan.clips], "clip")
    alone = opened if plan.jobs <= 1 else None
    del opened  # other processes have their own
    folder.mkdir(parents=True, exist_ok=True)
    with _held(folder):
        return _run(plan, folder, entrants, alone, on_progress)


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """One run at a time: two would overwrite each other's rows. The lock ends with the process."""
    lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            lock_file(lock)
        except OSError as error:
            raise EvaluationError(
                f"{str(folder)!r} is in use by another run; wait for its end or name another -o"
            ) from error
        yield
    finally:
        os.close(lock)


def _run(
    plan: Plan,
    folder: Path,
    entrants: list[Entrant],
    opened: Opened | None,
    on_progress: Callable[[int, int], None],
) -> Outcome:
    examples = choose_examples(plan.clips, plan.num_examples)
    results = folder / RESULTS
    rows = without_changed(folder, plan.clips, read_rows(results))
    tasks = _tasks(plan, entrants, examples)
    left = [task for task in tasks if not _is_done(task, entrants, rows, plan, folder)]
    write_rows(results, rows.values())  # without a last line that broke off
    done = _Keeper(results, rows, len(tasks), len(tasks) - len(left), on_progress)
    work = Work(tuple(plan.openers), tuple(plan.metrics), plan.scorers, folder)
    run_tasks(work, left, plan.jobs, done.keep, opened)
    ordered = [rows[key] for task in tasks for key in _keys(task, entrants)]
    # Rows of other clips and models, from another run into this folder, stay at the end.
    write_rows(results, {row.key: row for row in (*ordered, *rows.values())}.values())
    return Outcome(ordered, entrants, examples, _notes(plan.metrics))


def _entrant(one: Contender) -> Entrant:
    return Entrant(one.name, one.identity, one.depths, one.sampling_rate, one.codebook_size)


def _check_names(names: Sequence[str], kind: str) -> None:
    twice = [name for name in dict.fromkeys(names) if names.count(name) > 1]
    if twice:
        raise InputError(f"{kind} {twice[0]!r} is given twice; expected each once")


def choose_examples(clips: Sequence[ManifestEntry], count: int) -> list[int]:
    """Places of clips to listen to: taken in turns from the domains, speech first, evenly."""
    domains: dict[str, list[int]] = {}
    for place, clip in enumerate(clips):
        domains.setdefault(clip.domain, []).append(place)
    shares = dict.fromkeys(sorted(domains, key=lambda name: name != "speech"), 0)
    for _ in range(min(count, len(clips))):
        open_ones = [name for name in shares if shares[name] < len(domains[name])]
        shares[min(open_ones, key=shares.__getitem__)] += 1
    return sorted(
        places[index * len(places) // shares[name]]
        for name, places in domains.items()
        for index in range(shares[name])
    )


def _tasks(plan: Plan, entrants: Sequence[Entrant], examples: Sequence[int]) -> list[Task]:
    return [
        Task(clip, index, place in examples)
        for place, clip in enumerate(plan.clips)
        for index in range(len(entrants))
    ]


def _keys(task: Task, entrants: Sequence[Entrant]) -> list[Key]:
    entrant = entrants[task.contender]
    return [(task.clip.name, entrant.name, depth) for depth in entrant.depths]


def _is_done(
    task: Task,
    entrants: Sequence[Entrant],
    rows: dict[Key, Row],
    plan: Plan,
    folder: Path,
) -> bool:
    entrant = entrants[task.contender]
    names = metrics_of(task.clip.domain, (*plan.metrics, *plan.scorers.metrics))
    for key in _keys(task, entrants):
        row = rows.get(key)
        if row is None or row.error or row.identity != entrant.identity:
            return False
        if row.text not in (None, task.clip.text):
            return False
        if not all(_is_measured(row, name, plan.scorers) for name in names):
            return False
        # What has gone cannot be heard again, but its numbers stand.
        if (
            task.hear
            and task.clip.path.is_file()
            and not _is_kept(folder, task, slug(entrant.name, key[2]))
        ):
            return False
    return True


def _is_kept(folder: Path, task: Task, version: str) -> bool:
    place = audio_folder(folder, task.clip)
    return all((place / f"{name}.flac").is_file() for name in (version, "reference"))


def _is_measured(row: Row, name: str, scorers: ScorerNames) -> bool:
    """A metric whose package was missing may have been made up for since; so may its model."""
    if row.scorers.get(name) != scorers.by_metric.get(name):
        return False
    optional = METRICS[name].package and not missing_packages([name])
    return name in row.metrics and not (optional and isnan(row.metrics[name]))


class _Keeper:
    """Takes rows as they come: into the file, into the memory, into the progress."""

    def __init__(
        self,
        path: Path,
        rows: dict[Key, Row],
        num_tasks: int,
        num_done: int,
        on_progress: Callable[[int, int], None],
    ) -> None:
        self._path, self._rows, self._on_progress = path, rows, on_progress
        self._num_tasks, self._num_done = num_tasks, num_done
        on_progress(num_done, num_tasks)

    def keep(self, fresh: list[Row]) -> None:
        append_rows(self._path, fresh)
        self._rows.update((row.key, row) for row in fresh)
        self._num_done += 1
        self._on_progress(self._num_done, self._num_tasks)


def _notes(metrics: Sequence[str]) -> list[str]:
    return [
        f"{METRICS[name].title} was not measured: the package {package} is not installed "
        f"(pip install {package}; it needs a C compiler)"
        for name, package in missing_packages(metrics).items()
    ]


def default_jobs() -> int:
    """As many processes as there are cores for this one."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else (os.cpu_count() or 1)


def check_folder(folder: Path) -> None:
    """Refuse a folder that holds something, but no results of such a run.

    Raises:
        EvaluationError: see above.
    """
    others = [path for path in folder.iterdir() if path.name != _LOCK] if folder.is_dir() else []
    if others and not (folder / RESULTS).is_file():
        raise EvaluationError(
            f"{str(folder)!r} holds files, but no {RESULTS}; "
            "name a new folder, or one to go on with"
        )
