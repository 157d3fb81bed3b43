"""Results by clip, model and bitrate, and the file of JSON lines that they live in.

Owns what a row says and how a broken-off file is read; averages are `summary.py`'s.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import isfinite, nan
from pathlib import Path
from typing import Any

from ..errors import EvaluationError
from ..files import atomic_path
from .measures import METRICS

Key = tuple[str, str, int | None]


@dataclass(frozen=True)
class Row:
    """One clip through one model at one bitrate, or why that failed.

    Attributes:
        path: the clip, as its manifest has it.
        domain: "speech", "music", ...
        language: "en", ...; "" where that is not known.
        model: the contender's name.
        identity: which version of it.
        num_quantizers: layers of codes that were decoded; None for a codec without layers.
        kbps: nominal kilobits a second; 0 for a clip that failed.
        actual_kbps: kilobits that were made, over the clip's seconds.
        delay_ms: by which the codec's answer came late, and which was taken away.
        metrics: values by name; NaN where undefined or infinite.
        num_words, num_characters: of the clip's text, which weigh its error rates.
        heard: what a recogniser understood; None where none was asked.
        error: what went wrong, or "".
    """

    path: str
    domain: str
    model: str
    num_quantizers: int | None = None
    kbps: float = 0.0
    metrics: Mapping[str, float] = field(default_factory=dict)
    language: str = ""
    identity: str = ""
    actual_kbps: float = 0.0
    delay_ms: float = 0.0
    num_words: int = 0
    num_characters: int = 0
    heard: str | None = None
    error: str = ""

    @property
    def key(self) -> Key:
        """What tells this row from the others of a run."""
        return self.path, self.model, self.num_quantizers

    def as_json(self) -> dict[str, Any]:
        """Plain values for JSON, which has no NaN and no infinity: null instead."""
        whose: dict[str, Any] = {
            "path": self.path,
            "domain": self.domain,
            "language": self.language or None,
        }
        whose |= {"model": self.model, "identity": self.identity}
        whose |= {"num_quantizers": self.num_quantizers}
        if self.error:
            return {**whose, "error": self.error}
        rates = {"kbps": self.kbps, "actual_kbps": self.actual_kbps}
        values = {name: value if isfinite(value) else None for name, value in self.metrics.items()}
        texts: dict[str, Any] = {"num_words": self.num_words, "num_characters": self.num_characters}
        texts |= {"heard": self.heard}
        return {
            **whose,
            **rates,
            "delay_ms": self.delay_ms,
            **values,
            **(texts if self.heard is not None else {}),
        }


def row_from_json(item: Mapping[str, Any]) -> Row:
    """The row that `Row.as_json` was made from.

    Raises:
        EvaluationError: it is none.
    """
    try:
        values = {name: item[name] for name in METRICS if name in item}
        texts = {
            name: item[name] for name in ("num_words", "num_characters", "heard") if name in item
        }
        return Row(
            path=str(item["path"]),
            domain=str(item["domain"]),
            model=str(item["model"]),
            num_quantizers=item["num_quantizers"],
            kbps=float(item.get("kbps", 0.0)),
            metrics={
                name: nan if value is None else float(value) for name, value in values.items()
            },
            language=item["language"] or "",
            identity=str(item["identity"]),
            actual_kbps=float(item.get("actual_kbps", 0.0)),
            delay_ms=float(item.get("delay_ms", 0.0)),
            error=str(item.get("error", "")),
            **texts,
        )
    except (KeyError, TypeError, ValueError, AttributeError) as problem:
        raise EvaluationError(
            f"no row of results ({problem!r}): {json.dumps(item)[:200]}"
        ) from problem


def read_rows(path: Path) -> list[Row]:
    """The rows of a results file; a last line that broke off is left out.

    Raises:
        EvaluationError: a line is no row.
    """
    lines = path.read_text(encoding="utf-8").split("\n") if path.is_file() else []
    rows = []
    for number, line in enumerate(lines, 1):
        if not line:
            continue
        try:
            rows.append(row_from_json(json.loads(line)))
        except (ValueError, EvaluationError) as error:
            # A line that ends in no newline was being written when the run was stopped.
            if number == len(lines):
                break
            raise EvaluationError(
                f"{path} line {number}: {error}; start with an empty -o"
            ) from error
    return rows


def append_rows(path: Path, rows: Iterable[Row]) -> None:
    """Add rows behind the others, so that a run that is stopped has lost nothing."""
    with path.open("a", encoding="utf-8") as file:
        file.write("".join(_line(row) for row in rows))


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    """The whole file anew."""
    with atomic_path(path) as beside:
        beside.write_text("".join(_line(row) for row in rows), encoding="utf-8")


def _line(row: Row) -> str:
    return json.dumps(row.as_json(), ensure_ascii=False, allow_nan=False) + "\n"
