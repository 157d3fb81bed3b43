"""Results by clip, model and bitrate, as lines of JSON.

Owns what a row says; the file is `results_file.py`'s, averages are `summary.py`'s.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import isfinite, nan
from typing import Any, TypeVar

from ..errors import EvaluationError
from .metric_registry import METRICS

Key = tuple[str, str, int | None]
Found = TypeVar("Found")


@dataclass(frozen=True)
class Content:
    """A clip's file when it was measured: its bytes, and the beginning of their SHA-256."""

    num_bytes: int
    sha256: str


@dataclass(frozen=True)
class Row:
    """One clip through one model at one bitrate, or why that failed.

    Attributes:
        path: the clip, as its manifest has it.
        domain: "speech", "music", ...
        language: "en", ...; "" where that is not known.
        model: the codec's name.
        identity: which version of it.
        num_quantizers: layers of codes that were decoded; None for a codec without layers.
        kbps: nominal kilobits a second; 0 for a clip that failed.
        actual_kbps: kilobits that were made, over the clip's seconds.
        delay_ms: by which the codec's answer came late, and which was taken away.
        metrics: values by name; NaN where undefined or infinite.
        num_words, num_characters: of the clip's text, which weigh its error rates.
        transcript: text that the ASR model understood; None without one.
        error: what went wrong, or "".
        content: of the clip's file; None for a clip that failed.
        text: text that the transcript was compared with; None without an ASR model.
        scorers: names of the models that brought metrics, by metric.
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
    transcript: str | None = None
    error: str = ""
    content: Content | None = None
    text: str | None = None
    scorers: Mapping[str, str] = field(default_factory=dict)

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
        texts |= {"transcript": self.transcript, "text": self.text}
        origin: dict[str, Any] = {"scorers": dict(self.scorers)} if self.scorers else {}
        if self.content:
            origin |= {"clip_bytes": self.content.num_bytes, "clip_sha256": self.content.sha256}
        return {
            **whose,
            **rates,
            "delay_ms": self.delay_ms,
            **values,
            **(texts if self.transcript is not None else {}),
            **origin,
        }


def row_from_json(item: Mapping[str, Any]) -> Row:
    """The row that `Row.as_json` was made from.

    Raises:
        EvaluationError: it is none.
    """
    try:
        return Row(
            path=_text(item["path"]),
            domain=_text(item["domain"]),
            model=_text(item["model"]),
            identity=_text(item["identity"]),
            num_quantizers=_if_any(item["num_quantizers"], _count),
            language=_if_any(item["language"], _text) or "",
            metrics={
                name: nan if item[name] is None else _number(item[name])
                for name in METRICS
                if name in item
            },
            kbps=_number(item.get("kbps", 0.0)),
            actual_kbps=_number(item.get("actual_kbps", 0.0)),
            delay_ms=_number(item.get("delay_ms", 0.0)),
            error=_text(item.get("error", "")),
            num_words=_count(item.get("num_words", 0)),
            num_characters=_count(item.get("num_characters", 0)),
            transcript=_if_any(item.get("transcript", item.get("heard")), _text),
            text=_if_any(item.get("text"), _text),
            content=_content(item),
            scorers={name: _text(model) for name, model in item.get("scorers", {}).items()},
        )
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as problem:
        raise EvaluationError(
            f"not a row of such a run ({problem!r}): {json.dumps(item)[:200]}"
        ) from problem


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} where text was expected")
    return value


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
        raise ValueError(f"{value!r} where a number was expected")
    return float(value)


def _count(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"{value!r} where a count was expected")
    return value


def _if_any(value: Any, check: Callable[[Any], Found]) -> Found | None:
    """A value that may be null."""
    return None if value is None else check(value)


def _content(item: Mapping[str, Any]) -> Content | None:
    if "clip_sha256" not in item:
        return None
    return Content(_count(item["clip_bytes"]), _text(item["clip_sha256"]))
