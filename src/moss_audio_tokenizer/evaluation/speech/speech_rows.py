"""One text at one number of quantizers: its transcripts, and how far off they are.

Owns the rows of a run of speech models and the averages over them.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from math import isfinite, nan
from typing import Any

from ..results_file import as_count, as_number, as_text, number_or_nan, parsing
from ..summary import Average, average_cell, averages
from ..text_normalization import error_rates, normalized

SIMILARITY = "SIM"

SpeechKey = tuple[str, str, int]


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

    @classmethod
    def from_json(cls, item: Mapping[str, Any]) -> "Transcript":
        """The transcript that `as_json` was made from."""
        words, characters = as_count(item["num_words"]), as_count(item["num_characters"])
        wer, cer = number_or_nan(item["wer"]), number_or_nan(item["cer"])
        return cls(as_text(item["read"]), wer, cer, words, characters)


@dataclass(frozen=True)
class SpeechRow:
    """One text through one model at one number of quantizers, or why that failed.

    Attributes:
        path: path of the clip, or name of the text.
        text: text of the clip, or text to synthesize.
        model: label of the measured model.
        num_quantizers: how many quantizers' codes were used.
        transcripts: by ASR model; "" is the measured model itself.
        similarity: cosine to the prompt's voice; NaN without a prompt or a speaker model.
        prompt: path of the prompt; "" for none.
        audio: file of the speech below the results' folder; "" for none.
        seconds: length of the clip or speech.
        finished: whether the model ended the speech, not the length limit.
        error: what went wrong, or "".
        origin: digest of all that the row was made from.
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
    origin: str = ""

    @property
    def key(self) -> SpeechKey:
        """What tells this row from the others of a run."""
        return self.path, self.model, self.num_quantizers

    def as_json(self) -> dict[str, Any]:
        """Plain values for JSON; null stands for what is undefined."""
        facts = ("path", "text", "model", "num_quantizers")
        whose = {name: getattr(self, name) for name in facts}
        if self.error:
            return {**whose, "error": self.error}
        if "" in self.transcripts:
            own = self.transcripts[""].as_json()
            return {**whose, **own, "seconds": self.seconds, "origin": self.origin}
        more = ("prompt", "audio", "seconds", "finished", "origin")
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


def speech_row_from_json(item: Mapping[str, Any]) -> SpeechRow:
    """The row that `SpeechRow.as_json` was made from.

    Raises:
        EvaluationError: it was made from something else, such as a row of a codec's evaluation.
    """
    with parsing(item):
        if "domain" in item:
            raise ValueError("the row is of a codec's evaluation")
        own = {"": item} if "read" in item else item.get("transcripts", {})
        return SpeechRow(
            path=as_text(item["path"]),
            text=as_text(item["text"]),
            model=as_text(item["model"]),
            num_quantizers=as_count(item["num_quantizers"]),
            transcripts={name: Transcript.from_json(one) for name, one in own.items()},
            similarity=number_or_nan(item.get("similarity")),
            prompt=as_text(item.get("prompt", "")),
            audio=as_text(item.get("audio", "")),
            seconds=as_number(item.get("seconds", 0.0)),
            finished=bool(item.get("finished", True)),
            error=as_text(item.get("error", "")),
            origin=as_text(item.get("origin", "")),
        )


@dataclass(frozen=True)
class Point:
    """All texts through one model at one number of quantizers.

    Attributes:
        model: label of the model.
        num_quantizers: how many quantizers' codes were used.
        num_texts: texts that succeeded.
        num_failed: texts that failed.
        num_unfinished: texts whose speech met the length limit.
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
    """Averages by model and number of quantizers, in the order of first appearance.

    Raises:
        MissingDependencyError: SciPy is not installed.
    """
    groups: dict[tuple[str, int], list[SpeechRow]] = {}
    for row in rows:
        groups.setdefault((row.model, row.num_quantizers), []).append(row)
    return [_point(model, count, members) for (model, count), members in groups.items()]


def _point(model: str, num_quantizers: int, rows: list[SpeechRow]) -> Point:
    good = [row for row in rows if not row.error]
    figures: dict[str, list[tuple[float, float]]] = {}
    for row in good:
        for name, pair in row.values().items():
            figures.setdefault(name, []).append(pair)
    unfinished = sum(not row.finished for row in good)
    counts = len(good), len(rows) - len(good), unfinished
    return Point(model, num_quantizers, *counts, averages(figures))


def metric_names(points: Iterable[Point]) -> list[str]:
    """Of all points, in the order of tables."""
    return list(dict.fromkeys(name for point in points for name in point.metrics))


def heading(name: str) -> str:
    """A metric's name with an arrow that points to better."""
    return f"{name} {'↑' if name == SIMILARITY else '↓'}"


def table_cells(points: list[Point]) -> list[list[str]]:
    """A line of headings, and one for each point."""
    names = metric_names(points)
    lines = [["model", "quantizers", "texts", *map(heading, names)]]
    for point in points:
        cells = [average_cell(point.metrics.get(name), 3) for name in names]
        lines.append([point.model, f"{point.num_quantizers}", _texts(point), *cells])
    return lines


def _texts(point: Point) -> str:
    asides = [
        f"{count} {what}"
        for count, what in ((point.num_failed, "failed"), (point.num_unfinished, "cut off"))
        if count
    ]
    return f"{point.num_texts}" + (f" ({', '.join(asides)})" if asides else "")


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not isfinite(value) else value
