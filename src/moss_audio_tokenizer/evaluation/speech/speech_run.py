"""A run of speech models: batches of texts into rows; an interrupted run resumes.

Owns which batches are done and which are left. A row counts as done when everything that it was
made from is unchanged, nothing failed, and its speech is still stored. A batch is done as a whole
or repeated as a whole, so that a resumed run computes the same numbers in the same order.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..results_file import ResultsFile
from .speech_rows import SpeechKey, SpeechRow, speech_row_from_json

_DIGITS = 16

OnProgress = Callable[[int, int], None]


@dataclass(frozen=True)
class Batch:
    """Texts that go through one system together, at one number of quantizers.

    Attributes:
        origins: what each row is made from, as a digest, by the row's key.
        rows: computes the rows.
    """

    origins: Mapping[SpeechKey, str]
    rows: Callable[[], list[SpeechRow]]


def results_file(folder: Path) -> ResultsFile[SpeechRow]:
    """The results of a run of speech models."""
    return ResultsFile(folder, speech_row_from_json)


def digest_of(*facts: Any) -> str:
    """Hexadecimal digits that change when one of the facts does."""
    text = json.dumps(facts, ensure_ascii=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]


def run_batches(
    batches: Iterable[Batch],
    folder: Path,
    systems: Sequence[str],
    num_rows: int,
    on_progress: OnProgress,
) -> list[SpeechRow]:
    """Compute what is not computed yet, into the results file.

    Args:
        batches: all of the run.
        folder: of the results; made here.
        systems: labels, in the order of the rows that are returned.
        num_rows: rows of all batches together.
        on_progress: called with the number of rows done and of all, at the start too.

    Returns:
        The rows of this run, by system, then from few quantizers to many. Rows of other texts and
        systems, from another run into this folder, stay at the end of the file.

    Raises:
        EvaluationError: another run has the folder, or it holds rows of another kind.
    """
    results = results_file(folder)
    with results.locked():
        rows = {row.key: row for row in results.read()}
        results.write(rows.values())  # without a last line that broke off
        keys: list[SpeechKey] = []
        on_progress(0, num_rows)
        for batch in batches:
            if not all(
                _is_done(rows.get(key), origin, folder) for key, origin in batch.origins.items()
            ):
                fresh = [replace(row, origin=batch.origins[row.key]) for row in batch.rows()]
                results.append(fresh)
                rows.update((row.key, row) for row in fresh)
            keys += batch.origins
            on_progress(len(keys), num_rows)
        order = {label: index for index, label in enumerate(systems)}
        found = [rows[key] for key in keys]
        found.sort(key=lambda row: (order[row.model], row.num_quantizers))
        results.write([*found, *rows.values()])
    return found


def _is_done(row: SpeechRow | None, origin: str, folder: Path) -> bool:
    if row is None or row.error or row.origin != origin:
        return False
    return not row.audio or (folder / row.audio).is_file()
