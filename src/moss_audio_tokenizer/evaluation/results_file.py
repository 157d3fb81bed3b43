"""The results file of a run: one JSON line per row, read back when the run resumes.

Owns the file, its lock, how a line that broke off is read, and what rows of every kind have in
common (`ResultRow`).
"""

import json
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from math import isfinite, nan
from pathlib import Path
from typing import Any, Generic, TypeVar

from ..errors import EvaluationError
from ..files import take_lock, write_file

RESULTS = "results.jsonl"
_LOCK = "run.lock"


Key = tuple[str, str, int | None]


@dataclass(frozen=True)
class ResultRow(ABC):
    """What every row of a results file says.

    Attributes:
        path: the clip or text.
        model: the measured codec or model.
        num_quantizers: layers of codes that were used; None for a codec without layers.
        error: what went wrong, or "".
    """

    path: str
    model: str
    num_quantizers: int | None = None
    error: str = ""

    @property
    def key(self) -> Key:
        """What tells this row from the others of a run."""
        return self.path, self.model, self.num_quantizers

    @abstractmethod
    def as_json(self) -> dict[str, Any]:
        """Plain values for JSON."""


RowType = TypeVar("RowType", bound=ResultRow)


@dataclass(frozen=True)
class ResultsFile(Generic[RowType]):
    """The rows of a run's folder.

    Attributes:
        folder: the run's folder, which need not exist yet.
        parse: makes a row of a line's JSON object; raises EvaluationError for any other.
    """

    folder: Path
    parse: Callable[[Mapping[str, Any]], RowType]

    @property
    def path(self) -> Path:
        """The file of the rows."""
        return self.folder / RESULTS

    def check(self) -> None:
        """Raise EvaluationError for a folder that holds something, but no results of such a run."""
        found = self.folder.iterdir() if self.folder.is_dir() else ()
        if any(path.name != _LOCK for path in found) and not self.path.is_file():
            raise EvaluationError(
                f"{str(self.folder)!r} holds files, but no {RESULTS}; "
                "name a new folder, or one to continue"
            )
        self.read()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Make the folder, for one run at a time; the lock ends with the process.

        Raises:
            EvaluationError: another run has the folder.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        taken = EvaluationError(
            f"{str(self.folder)!r} is in use by another run; wait for its end or name another -o"
        )
        lock = take_lock(self.folder / _LOCK, taken)
        try:
            self.path.touch()
            # Half-written files of a run that was killed: the lock says that it has ended.
            for left in list(self.folder.rglob(".moss-*.partial")):
                left.unlink(missing_ok=True)
            yield
        finally:
            os.close(lock)

    def read(self) -> list[RowType]:
        """All rows; a truncated last line is left out.

        Raises:
            EvaluationError: a line is not a row.
        """
        # By line, for the last one may end in half a letter.
        lines = self.path.read_bytes().split(b"\n") if self.path.is_file() else []
        rows = []
        for number, line in enumerate(lines, 1):
            if not line:
                continue
            try:
                rows.append(self.parse(json.loads(line.decode())))
            except (ValueError, RecursionError, EvaluationError) as error:
                # A line that ends in no newline was being written when the run was stopped.
                if number == len(lines):
                    break
                raise EvaluationError(
                    f"{self.path} line {number}: {error}; start with an empty -o"
                ) from error
        return rows

    def append(self, rows: Iterable[RowType]) -> None:
        """Add rows behind the others, so that a run that is stopped has lost nothing."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write("".join(map(_line, rows)))

    def write(self, rows: Iterable[RowType]) -> None:
        """Replace all rows, atomically; of rows with the same key the first is written."""
        found: dict[Key, RowType] = {}
        for row in rows:
            found.setdefault(row.key, row)
        write_file(self.path, "".join(map(_line, found.values())))


def _line(row: ResultRow) -> str:
    return json.dumps(row.as_json(), ensure_ascii=False, allow_nan=False) + "\n"


def failure_lines(rows: Iterable[ResultRow]) -> list[str]:
    """A line for every clip and reason, not for every number of quantizers."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        if row.error:
            reasons.setdefault((row.path, row.error), []).append(row.model)
    return [
        f"failed: {path} ({', '.join(dict.fromkeys(models))}): {error}"
        for (path, error), models in reasons.items()
    ]


@contextmanager
def parsing(item: Mapping[str, Any]) -> Iterator[None]:
    """Makes of every problem with a row's fields one error that shows the row.

    Raises:
        EvaluationError: a field is missing or has another type.
    """
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as problem:
        raise EvaluationError(
            f"not a row of such a run ({problem!r}): {json.dumps(item)[:200]}"
        ) from problem


def checked(
    item: Mapping[str, Any], kind: type[Any], **special: Callable[[Any], Any]
) -> dict[str, Any]:
    """The fields of a dataclass that an object has, each after the check of its type.

    Args:
        item: the object.
        kind: the dataclass; fields of containers are left out.
        special: checks of fields that differ from those of their types.

    Raises:
        ValueError: a value is of another type.
    """
    checks = {one.name: special.get(one.name) or _CHECKS.get(one.type) for one in fields(kind)}
    return {name: check(item[name]) for name, check in checks.items() if check and name in item}


def or_null(check: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A check that lets null through, as None."""
    return lambda value: None if value is None else check(value)


def as_text(value: Any) -> str:
    """A field that must be text."""
    if not isinstance(value, str):
        raise ValueError(f"{value!r} where text was expected")
    return value


def as_number(value: Any) -> float:
    """A field that must be a finite number."""
    if type(value) not in (int, float) or not isfinite(value):
        raise ValueError(f"{value!r} where a number was expected")
    return float(value)


def as_count(value: Any) -> int:
    """A field that must be an integer from 0."""
    if type(value) is not int or value < 0:
        raise ValueError(f"{value!r} where a count was expected")
    return value


def number_or_nan(value: Any) -> float:
    """A number that may be undefined: JSON has no NaN, so null stands for it."""
    return nan if value is None else as_number(value)


def number_or_null(value: float) -> float | None:
    """A number as JSON has it: null for NaN and infinity."""
    return value if isfinite(value) else None


_CHECKS: dict[Any, Callable[[Any], Any]] = {
    str: as_text,
    int: as_count,
    float: as_number,
    bool: bool,
    str | None: or_null(as_text),
    int | None: or_null(as_count),
}
