"""Rows of a run of speech models: what each says, and how an interrupted run resumes.

A row is one text through one model at one number of quantizers. It counts as done when everything
that it was made from is unchanged, nothing failed, and its speech is still stored. A batch is done
or repeated as a whole, so that a resumed run computes the same numbers in the same order.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from math import nan
from pathlib import Path
from typing import Any

from ..codecs import checked_counts
from ..results_file import (
    Key,
    ResultRow,
    ResultsFile,
    checked,
    number_or_nan,
    number_or_null,
    parsing,
)
from ..text_normalization import Transcript

OnProgress = Callable[[int, int], None]


@dataclass(frozen=True)
class SpeechRow(ResultRow):
    """One text through one model at one number of quantizers, or why that failed.

    Attributes:
        transcripts: by ASR model; "" is the measured model itself.
        similarity: cosine to the prompt's voice; NaN without a prompt or a speaker model.
        opinion: predicted opinion score; NaN without an opinion model.
        prompt: path of the prompt; "" for none.
        audio: file of the speech below the results' folder; "" for none.
        seconds: length of the clip or speech.
        finished: whether the model ended the speech, not the length limit.
        origin: digest of all that the row was made from.
    """

    text: str = ""
    transcripts: Mapping[str, Transcript] = field(default_factory=dict)
    similarity: float = nan
    opinion: float = nan
    prompt: str = ""
    audio: str = ""
    seconds: float = 0.0
    finished: bool = True
    origin: str = ""

    def as_json(self) -> dict[str, Any]:
        """Plain values for JSON; null stands for what is undefined."""
        facts = {name: getattr(self, name) for name in ("path", "text", "model", "num_quantizers")}
        if self.error:
            return {**facts, "error": self.error}
        if "" in self.transcripts:
            own = _as_json(self.transcripts[""])
            return {**facts, **own, "seconds": self.seconds, "origin": self.origin}
        more = ("prompt", "audio", "seconds", "finished", "origin")
        return {
            **facts,
            **{name: getattr(self, name) for name in more},
            "similarity": number_or_null(self.similarity),
            "opinion": number_or_null(self.opinion),
            "transcripts": {name: _as_json(one) for name, one in self.transcripts.items()},
        }


def _as_json(transcript: Transcript) -> dict[str, Any]:
    rates = {"wer": number_or_null(transcript.wer), "cer": number_or_null(transcript.cer)}
    return {**asdict(transcript), **rates}


def speech_row_from_json(item: Mapping[str, Any]) -> SpeechRow:
    """The row that `SpeechRow.as_json` was made from.

    Raises:
        EvaluationError: it was made from something else, such as a row of a codec's evaluation.
    """
    with parsing(item):
        if "domain" in item:
            raise ValueError("the row is of a codec's evaluation")
        own = {"": item} if "read" in item else item.get("transcripts", {})
        rates = {"wer": number_or_nan, "cer": number_or_nan}
        transcripts = {
            name: Transcript(**checked(one, Transcript, **rates)) for name, one in own.items()
        }
        values = checked(item, SpeechRow, similarity=number_or_nan, opinion=number_or_nan)
        return SpeechRow(**values, transcripts=transcripts)


def results_file(folder: Path) -> ResultsFile[SpeechRow]:
    """The results of a run of speech models."""
    return ResultsFile(folder, speech_row_from_json)


def chosen_quantizer_counts(wanted: Sequence[int], most: Mapping[str, int]) -> dict[str, list[int]]:
    """The numbers of quantizers of every system, from the lowest.

    Args:
        wanted: numbers that were asked for; empty for powers of two and all.
        most: the most quantizers of each system, by its label.

    Raises:
        CodesError: more quantizers than a system has, or none.
    """
    return {
        label: checked_counts(wanted, limit, label)
        or sorted({limit, *(1 << power for power in range(limit.bit_length()))})
        for label, limit in most.items()
    }


@dataclass(frozen=True)
class Batch:
    """Texts that go through one system together: digests of what each row is made from."""

    origins: Mapping[Key, str]
    rows: Callable[[], list[SpeechRow]]


def digest_of(*facts: Any) -> str:
    """16 hexadecimal digits that change when one of the facts does."""
    text = json.dumps(facts, ensure_ascii=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


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
        keys: list[Key] = []
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
        found = [rows[key] for key in keys]
        found.sort(key=lambda row: (systems.index(row.model), row.num_quantizers))
        results.write([*found, *rows.values()])
    return found


def _is_done(row: SpeechRow | None, origin: str, folder: Path) -> bool:
    if row is None or row.error or row.origin != origin:
        return False
    return not row.audio or (folder / row.audio).is_file()
