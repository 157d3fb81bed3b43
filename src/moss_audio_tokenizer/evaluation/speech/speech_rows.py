"""One text at one number of layers: what was read of it, and how far off that is.

Owns the lines of results.jsonl and the averages over them.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from math import isfinite, nan
from typing import Any

from ..summary import Average, average
from ..text_normalization import error_rates, normalized

SIMILARITY = "SIM"


@dataclass(frozen=True)
class Transcript:
    """What one ASR model understood.

    Attributes:
        read: its text as it gave it.
        wer, cer: against the text, both normalized; NaN without a text.
        num_words, num_characters: of the normalized text, which weigh the rates.
    """

    read: str
    wer: float
    cer: float
    num_words: int
    num_characters: int

    @classmethod
    def compared(
        cls, text: str, hypothesis: str, normalize: Callable[[str], str] = normalized
    ) -> "Transcript":
        """A transcript with its error rates against a text."""
        reference = normalize(text)
        rates = error_rates(reference, normalize(hypothesis))
        words, letters = len(reference.split()), len(reference.replace(" ", ""))
        return cls(hypothesis, rates["wer"], rates["cer"], words, letters)

    def as_json(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {name: _finite(value) for name, value in asdict(self).items()}


@dataclass(frozen=True)
class SpeechRow:
    """One text through one model at one number of layers, or why that failed.

    Attributes:
        path: of the clip, or the name of the text.
        text: what is or should be said.
        model: label of what was measured.
        num_quantizers: layers of codes.
        transcripts: by ASR model; "" is the measured model itself.
        similarity: to the prompt's voice; NaN without a prompt or a speaker model.
        prompt: path of the prompt; "" for none.
        audio: file of the speech below the results' folder; "" for none.
        seconds: of the clip or speech.
        finished: whether speech ended by itself.
        error: what went wrong, or "".
    """

    path: str
    text: str
    model: str
    num_quantizers: int
    transcripts: Mapping[str, Transcript] = field(default_factory=dict)
    similarity: float = nan
    prompt: str = ""
    audio: str = ""
    seconds: float = 0.0
    finished: bool = True
    error: str = ""

    def as_json(self) -> dict[str, Any]:
        """Plain values for JSON; null stands for what is undefined."""
        facts = ("path", "text", "model", "num_quantizers")
        whose = {name: getattr(self, name) for name in facts}
        if self.error:
            return {**whose, "error": self.error}
        if "" in self.transcripts:
            return {**whose, **self.transcripts[""].as_json(), "seconds": self.seconds}
        more = ("prompt", "audio", "seconds", "finished")
        return {
            **whose,
            **{name: getattr(self, name) for name in more},
            "similarity": _finite(self.similarity),
            "transcripts": {name: one.as_json() for name, one in self.transcripts.items()},
        }

    def values(self) -> dict[str, tuple[float, float]]:
        """Every figure with its weight in an average, by the name it has in tables."""
        found = {}
        for name, one in self.transcripts.items():
            of = f", {name}" if name else ""
            found[f"WER{of}"] = (one.wer, float(one.num_words))
            found[f"CER{of}"] = (one.cer, float(one.num_characters))
        if isfinite(self.similarity):
            found[SIMILARITY] = (self.similarity, 1.0)
        return found


@dataclass(frozen=True)
class Point:
    """All texts through one model at one number of layers.

    Attributes:
        model: its label.
        num_quantizers: layers.
        num_texts: that went through.
        num_failed: that did not.
        num_unfinished: whose speech met the limit.
        metrics: averages by name; error rates are errors over words of all texts together.
    """

    model: str
    num_quantizers: int
    num_texts: int
    num_failed: int
    num_unfinished: int
    metrics: dict[str, Average]

    def as_json(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def points_of(rows: Iterable[SpeechRow]) -> list[Point]:
    """Averages by model and layers, in the order of first appearance.

    Raises:
        MissingDependencyError: SciPy is not installed.
    """
    groups: dict[tuple[str, int], list[SpeechRow]] = {}
    for row in rows:
        groups.setdefault((row.model, row.num_quantizers), []).append(row)
    return [_point(model, layers, members) for (model, layers), members in groups.items()]


def _point(model: str, layers: int, rows: list[SpeechRow]) -> Point:
    good = [row for row in rows if not row.error]
    pairs: dict[str, list[tuple[float, float]]] = {}
    for row in good:
        for name, (value, weight) in row.values().items():
            if isfinite(value) and weight > 0:
                pairs.setdefault(name, []).append((value, weight))
    metrics = {name: average(*zip(*found, strict=True)) for name, found in pairs.items()}
    unfinished = sum(not row.finished for row in good)
    return Point(model, layers, len(good), len(rows) - len(good), unfinished, metrics)


def metric_names(points: Iterable[Point]) -> list[str]:
    """Of all points, in the order of tables."""
    return list(dict.fromkeys(name for point in points for name in point.metrics))


def heading(name: str) -> str:
    """A metric's name with an arrow that points to better."""
    return f"{name} {'↑' if name == SIMILARITY else '↓'}"


def table_cells(points: list[Point]) -> list[list[str]]:
    """A line of headings, and one for each point."""
    names = metric_names(points)
    lines = [["model", "layers", "texts", *map(heading, names)]]
    for point in points:
        cells = [_cell(point.metrics.get(name)) for name in names]
        lines.append([point.model, f"{point.num_quantizers}", _texts(point), *cells])
    return lines


def _texts(point: Point) -> str:
    asides = [
        f"{count} {what}"
        for count, what in ((point.num_failed, "failed"), (point.num_unfinished, "cut off"))
        if count
    ]
    return f"{point.num_texts}" + (f" ({', '.join(asides)})" if asides else "")


def _cell(one: Average | None) -> str:
    if one is None:
        return "-"
    return f"{one.mean:.3f}" + ("" if one.interval is None else f" ± {one.interval:.3f}")


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not isfinite(value) else value
