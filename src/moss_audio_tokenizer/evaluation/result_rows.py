"""Results by clip, model and bitrate, as lines of JSON.

Owns what a row says; the file is `results_file.py`'s, averages are `summary.py`'s.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isfinite
from typing import Any

from .metric_registry import METRICS
from .results_file import as_count, as_number, as_text, number_or_nan, optional, parsing

Key = tuple[str, str, int | None]


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
        scoring_models: names of the models that brought metrics, by metric.
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
    scoring_models: Mapping[str, str] = field(default_factory=dict)

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
        origin: dict[str, Any] = (
            {"scorers": dict(self.scoring_models)} if self.scoring_models else {}
        )
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
        EvaluationError: it was made from something else.
    """
    with parsing(item):
        return Row(
            path=as_text(item["path"]),
            domain=as_text(item["domain"]),
            model=as_text(item["model"]),
            identity=as_text(item["identity"]),
            num_quantizers=optional(item["num_quantizers"], as_count),
            language=optional(item["language"], as_text) or "",
            metrics={name: number_or_nan(item[name]) for name in METRICS if name in item},
            kbps=as_number(item.get("kbps", 0.0)),
            actual_kbps=as_number(item.get("actual_kbps", 0.0)),
            delay_ms=as_number(item.get("delay_ms", 0.0)),
            error=as_text(item.get("error", "")),
            num_words=as_count(item.get("num_words", 0)),
            num_characters=as_count(item.get("num_characters", 0)),
            transcript=optional(item.get("transcript", item.get("heard")), as_text),
            text=optional(item.get("text"), as_text),
            content=_content(item),
            scoring_models={
                name: as_text(model) for name, model in item.get("scorers", {}).items()
            },
        )


def _content(item: Mapping[str, Any]) -> Content | None:
    if "clip_sha256" not in item:
        return None
    return Content(as_count(item["clip_bytes"]), as_text(item["clip_sha256"]))
