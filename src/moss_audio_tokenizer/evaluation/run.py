"""A run: clips through codecs into a folder of results; an interrupted run can be resumed.

Owns which tasks are done and which are left; the work on a clip is `clip_workers.py`'s, the files
at the end are `codec_report.py`'s. A row counts as done when its codec, its clip's content and text
and its scoring models are unchanged, nothing failed, and every metric that is asked for is there.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from math import isnan
from pathlib import Path

from ..errors import InputError
from ..manifest import ManifestEntry
from .clip_results import Row, row_from_json, slug, version_file, without_changed
from .clip_workers import Task, Work, Worker, run_tasks
from .codecs import Opener
from .metric_registry import METRICS, metrics_of, missing_packages
from .results_file import Key, ResultsFile
from .scoring_models import ScoringModelNames


@dataclass(frozen=True)
class EvaluatedCodecInfo:
    """What a run records of an `EvaluatedCodec`."""

    name: str
    identity: str
    quantizer_counts: tuple[int | None, ...]
    sampling_rate: int
    codebook_size: int


@dataclass(frozen=True)
class Plan:
    """What is to be measured, and how.

    Attributes:
        openers: make the codecs.
        metrics: names of what is measured.
        jobs: processes.
        num_examples: clips whose audio is stored, to listen to.
    """

    clips: Sequence[ManifestEntry]
    openers: Sequence[Opener]
    metrics: Sequence[str]
    scoring_models: ScoringModelNames = field(default_factory=ScoringModelNames)
    jobs: int = 1
    num_examples: int = 4


@dataclass(frozen=True)
class Outcome:
    """What a run found.

    Attributes:
        rows: of all clips, codecs and quantizer_counts, in that order.
        codecs: in the order in which they were given.
        examples: indices in the manifest of the clips whose audio was stored.
        notes: what the reader should know, such as a metric that could not be measured.
    """

    rows: list[Row]
    codecs: list[EvaluatedCodecInfo]
    examples: list[int]
    notes: list[str]


def run_evaluation(plan: Plan, folder: Path, on_progress: Callable[[int, int], None]) -> Outcome:
    """Measure what is not measured yet, into ``folder / results.jsonl``.

    Args:
        plan: what to measure.
        folder: of the results; made once every codec is open.
        on_progress: called with the number of tasks done and of all, at the start too.

    Raises:
        EvaluationError: the folder holds results that cannot be read, another run has it, or a
            process died.
        InputError: two codecs or two clips of one name, or no such function of the user's.
        MissingDependencyError: a program or package is not installed.
    """
    opened = [opener() for opener in plan.openers]
    work = Work(tuple(plan.openers), tuple(plan.metrics), plan.scoring_models, folder)
    worker: Worker | None = Worker(work, opened)
    facts = [one.name for one in fields(EvaluatedCodecInfo)]
    codecs = [EvaluatedCodecInfo(*(getattr(one, name) for name in facts)) for one in opened]
    _check_names([slug(one.name) for one in codecs], "codec")
    _check_names([clip.name for clip in plan.clips], "clip")
    if plan.jobs > 1:
        del opened
        worker = None  # other processes have their own
    results = ResultsFile(folder, row_from_json)
    with results.locked():
        return _run_locked(plan, results, codecs, work, worker, on_progress)


def _run_locked(
    plan: Plan,
    results: ResultsFile[Row],
    codecs: list[EvaluatedCodecInfo],
    work: Work,
    worker: Worker | None,
    on_progress: Callable[[int, int], None],
) -> Outcome:
    examples = choose_examples(plan.clips, plan.num_examples)
    folder = results.folder
    rows = without_changed(folder, plan.clips, results.read())
    tasks = [
        Task(clip, index, number in examples)
        for number, clip in enumerate(plan.clips)
        for index in range(len(codecs))
    ]
    left = [task for task in tasks if not _is_done(task, codecs, rows, plan, folder)]
    results.write(rows.values())  # without a last line that broke off
    num_done = len(tasks) - len(left)
    on_progress(num_done, len(tasks))
    for number, fresh in enumerate(run_tasks(work, left, plan.jobs, worker), num_done + 1):
        results.append(fresh)
        rows.update((row.key, row) for row in fresh)
        on_progress(number, len(tasks))
    ordered = [rows[key] for task in tasks for key in _keys(task, codecs)]
    # Rows of other clips and models, from another run into this folder, stay at the end.
    results.write([*ordered, *rows.values()])
    return Outcome(ordered, codecs, examples, _notes(plan.metrics))


def _check_names(names: Sequence[str], kind: str) -> None:
    twice = [name for name in dict.fromkeys(names) if names.count(name) > 1]
    if twice:
        raise InputError(f"{kind} {twice[0]!r} is given twice; expected each once")


def choose_examples(clips: Sequence[ManifestEntry], count: int) -> list[int]:
    """Indices of clips to listen to: taken in turns from the domains, speech first, evenly."""
    domains: dict[str, list[int]] = {}
    for index, clip in enumerate(clips):
        domains.setdefault(clip.domain, []).append(index)
    shares = dict.fromkeys(sorted(domains, key=lambda name: name != "speech"), 0)
    for _ in range(min(count, len(clips))):
        open_ones = [name for name in shares if shares[name] < len(domains[name])]
        shares[min(open_ones, key=shares.__getitem__)] += 1
    return sorted(
        indices[index * len(indices) // shares[name]]
        for name, indices in domains.items()
        for index in range(shares[name])
    )


def _keys(task: Task, codecs: Sequence[EvaluatedCodecInfo]) -> list[Key]:
    codec = codecs[task.codec]
    return [(task.clip.name, codec.name, count) for count in codec.quantizer_counts]


def _is_done(
    task: Task,
    codecs: Sequence[EvaluatedCodecInfo],
    rows: dict[Key, Row],
    plan: Plan,
    folder: Path,
) -> bool:
    found = [rows.get(key) for key in _keys(task, codecs)]
    names = metrics_of(task.clip.domain, (*plan.metrics, *plan.scoring_models.by_metric))
    return all(
        row is not None
        and not row.error
        and row.identity == codecs[task.codec].identity
        and row.text in (None, task.clip.text)
        and all(_is_measured(row, name, plan.scoring_models) for name in names)
        and _is_stored(row, task, folder)
        for row in found
    )


def _is_stored(row: Row, task: Task, folder: Path) -> bool:
    # A deleted clip cannot be decoded again, but its figures are still valid.
    if not task.save_audio or not task.clip.path.is_file():
        return True
    version = slug(row.model, row.num_quantizers)
    return all(version_file(folder, task.clip, one).is_file() for one in (version, "reference"))


def _is_measured(row: Row, name: str, scoring_models: ScoringModelNames) -> bool:
    """A metric whose package was missing may have been made up for since; so may its model."""
    if row.scoring_models.get(name) != scoring_models.by_metric.get(name):
        return False
    optional = METRICS[name].package and not missing_packages([name])
    return name in row.metrics and not (optional and isnan(row.metrics[name]))


def _notes(metrics: Sequence[str]) -> list[str]:
    return [
        f"{METRICS[name].title} was not measured: the package {package} is not installed "
        f"(pip install {package}; it needs a C compiler)"
        for name, package in missing_packages(metrics).items()
    ]


def check_folder(folder: Path) -> None:
    """Raise EvaluationError for a folder that holds something, but no results of such a run."""
    ResultsFile(folder, row_from_json).check()
