"""Encodes, decodes and measures clips, in one process or in several, with the same results.

Owns the work on one clip and its spreading over processes; what is left of a clip is
`clip_results.py`'s, the output folder `run.py`'s. Everything is measured in mono at 16 kHz, after
`metrics.signals` has taken the delay away.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, replace
from math import isfinite, nan
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from ..audio import load_audio, resample
from ..errors import EvaluationError, MissingDependencyError, MossAudioError
from ..manifest import ManifestEntry
from ..metrics.signals import MEASURED_RATE, find_delay, without_delay
from ..workers import prepare_worker
from .clip_results import Row, content_of, save_codes, save_decoded_audio, save_reference
from .codecs import CodedClip, EvaluatedCodec, Opener
from .metric_registry import measure_mono, metrics_of, missing_packages
from .scoring_models import ScoringModelNames, ScoringModels

# Libraries that would each start a thread for every core, in each of several processes.
_THREAD_VARIABLES = tuple(
    f"{library}_NUM_THREADS" for library in ("OMP", "MKL", "OPENBLAS", "NUMBA")
)


@dataclass(frozen=True)
class Task:
    """One clip through one codec, which is given by its index in `Work`."""

    clip: ManifestEntry
    codec: int
    save_audio: bool = False


@dataclass(frozen=True)
class Work:
    """Settings of every worker process; audio and codes of clips go to the folder."""

    openers: tuple[Opener, ...]
    metrics: tuple[str, ...]
    scoring_models: ScoringModelNames
    folder: Path


class Worker:
    """Does tasks one after the other; a codec that is not open yet is opened at its first task.

    Raises:
        CheckpointError, InputError: a scoring model cannot be loaded.
    """

    def __init__(self, work: Work, codecs: Sequence[EvaluatedCodec] = ()) -> None:
        self._work, self._codecs = work, dict(enumerate(codecs))
        self._scoring_models = ScoringModels(work.scoring_models)

    def rows(self, task: Task) -> list[Row]:
        """A row for every number of quantizers; a clip that fails costs its own rows only.

        Raises:
            MissingDependencyError: every clip would fail the same way.
        """
        if task.codec not in self._codecs:
            self._codecs[task.codec] = self._work.openers[task.codec]()
        codec = self._codecs[task.codec]
        try:
            return self._measure(task, codec)
        except MissingDependencyError:
            raise
        except Exception as error:  # of any kind: a codec under test may raise what it likes
            message = str(error) if isinstance(error, MossAudioError) else repr(error)
            return _failed_rows(task, codec, message)

    def _measure(self, task: Task, codec: EvaluatedCodec) -> list[Row]:
        clip, folder = task.clip, self._work.folder
        content = content_of(clip.path)
        sound = load_audio(clip.path, codec.sampling_rate, codec.num_channels)
        original = load_audio(clip.path, MEASURED_RATE, 1)[0].astype(np.float64)
        if task.save_audio:
            save_reference(folder, clip)
        coded_clips = codec.code(sound)
        rows = []
        for coded in coded_clips:
            estimate = _at_measured_rate(coded.audio, codec.sampling_rate)
            delay = find_delay(original, estimate)
            estimate = without_delay(estimate, delay, len(original))
            row = self._row(task, codec, coded, delay, original, estimate)
            rows.append(replace(row, content=content))
            if task.save_audio:
                save_decoded_audio(folder, clip, codec, coded, delay, sound.shape[1])
        if coded_clips[-1].codes is not None:
            save_codes(folder, clip, codec, coded_clips[-1].codes)
        return rows

    def _row(
        self,
        task: Task,
        codec: EvaluatedCodec,
        coded_clip: CodedClip,
        delay: int,
        original: np.ndarray,
        estimate: np.ndarray,
    ) -> Row:
        clip = task.clip
        values = self._values(clip.domain, original, estimate)
        row = Row(
            path=clip.name,
            domain=clip.domain,
            model=codec.name,
            num_quantizers=coded_clip.num_quantizers,
            kbps=coded_clip.nominal_kbps,
            language=clip.language,
            identity=codec.identity,
            actual_kbps=round(coded_clip.num_bits / len(original) * MEASURED_RATE / 1000, 4),
            delay_ms=round(delay / MEASURED_RATE * 1000, 3),
        )
        if clip.domain != "speech":
            return replace(row, metrics=_finite(values))
        scores = self._scoring_models.score(original, estimate, clip.text, clip.language)
        row = replace(
            row,
            metrics=_finite(values | scores.values),
            scoring_models=self._work.scoring_models.by_metric,
        )
        found = scores.transcript
        if found is None:
            return row
        words = found.num_words, found.num_characters
        return replace(
            row, num_words=words[0], num_characters=words[1], transcript=found.read, text=clip.text
        )

    def _values(self, domain: str, original: np.ndarray, estimate: np.ndarray) -> dict[str, float]:
        names = metrics_of(domain, self._work.metrics)
        missing = missing_packages(names)
        measured = measure_mono(original, estimate, [one for one in names if one not in missing])
        return {name: measured.get(name, nan) for name in names}


def _finite(values: Mapping[str, float]) -> dict[str, float]:
    """JSON has no infinity: a resumed run must find the value that it wrote."""
    return {name: value if isfinite(value) else nan for name, value in values.items()}


def _at_measured_rate(audio: np.ndarray, sampling_rate: int) -> np.ndarray:
    mono = audio.mean(axis=0, dtype=np.float64)[None].astype(np.float32)
    return resample(mono, sampling_rate, MEASURED_RATE)[0].astype(np.float64)


def _failed_rows(task: Task, codec: EvaluatedCodec, error: str) -> list[Row]:
    """A row with the error for every number of quantizers of the codec."""
    clip = task.clip
    whose = clip.domain, clip.language, codec.identity
    return [Row(clip.name, codec.name, count, error, *whose) for count in codec.quantizer_counts]


_worker: Worker | None = None


def _begin(work: Work) -> None:
    """In a process of its own: what its tasks share."""
    global _worker
    prepare_worker()
    _worker = Worker(work)


def _do(task: Task) -> list[Row]:
    if _worker is None:
        raise RuntimeError("a task came before the work was set")
    return _worker.rows(task)


def run_tasks(
    work: Work, tasks: Sequence[Task], jobs: int, worker: Worker | None
) -> Iterator[list[Row]]:
    """Do all tasks, by the worker or in other processes; the rows of each, as it ends.

    The rows do not depend on ``jobs``, their order does.

    Raises:
        EvaluationError: a process died, of memory perhaps.
        MissingDependencyError: a program or a package is not installed.
    """
    if worker is not None:
        yield from map(worker.rows, tasks)
        return
    # Fresh processes: copies of one that has loaded PyTorch can hang in its threads.
    context = get_context("spawn")
    jobs = min(jobs, max(1, len(tasks)))
    with (
        _one_thread_each(),
        ProcessPoolExecutor(jobs, context, initializer=_begin, initargs=(work,)) as pool,
    ):
        futures = [pool.submit(_do, task) for task in tasks]
        try:
            for future in as_completed(futures):
                yield future.result()
        except BrokenProcessPool as error:
            raise EvaluationError(
                "a process of the evaluation died, of memory perhaps; run the same command "
                "again, with fewer --jobs: finished clips are not measured again"
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """For processes started inside: one thread of each numerical library."""
    before = {name: os.environ.get(name) for name in _THREAD_VARIABLES}
    os.environ.update(dict.fromkeys(_THREAD_VARIABLES, "1"))
    try:
        yield
    finally:
        for name in _THREAD_VARIABLES:
            del os.environ[name]
        os.environ.update({name: value for name, value in before.items() if value is not None})
