"""What an evaluation of speech models leaves behind: averages, tables, plots and report.html.

Owns their contents; the rows are `speech_rows.py`'s, the looks `pages.py`'s and `pictures.py`'s.
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from html import escape
from math import isfinite, isnan
from pathlib import Path

from ...errors import MossAudioError
from ..datasets import SpeechItem
from ..exhibits import Version, beginning, describe, gallery_html, quantizers
from ..pages import Figure, Report, Section, Table, table_html
from ..pictures import Bounds, Curve, draw_figure
from ..published import published_speech
from ..results_file import failure_lines
from ..summary import Average, average_cell, averages
from .speech_rows import SpeechRow

# What a page embeds of a speech; the files hold all of it.
_MOST_SECONDS = 12
_SHOWN_COUNTS = (1, 8, 32)
_CAPTION = (
    "Error rates are errors over the words or characters of all texts together, after "
    "normalization, with 95% intervals. Arrows point to better."
)
_SIMILARITY_CAPTION = (
    " SIM is the mean cosine between the speaker model's embeddings of speech and prompt. "
    "Speech without any sound counts as wholly misread, and has no SIM and no opinion score."
)
_HIGHER = "higher"
_KINDS: dict[str, tuple[str, str, Bounds]] = {
    "WER": ("Word error rate", "lower", (0, None)),
    "CER": ("Character error rate", "lower", (0, None)),
    "SIM": ("Speaker similarity to the prompt", _HIGHER, (-1, 1)),
    "opinion": ("Predicted opinion score", _HIGHER, (1, 5)),
}
"""Meaning, better direction and bounds, by what stands before the comma of a figure's name."""


def write_results(
    folder: Path,
    rows: Sequence[SpeechRow],
    title: str,
    command: str,
    notes: Sequence[str] = (),
    items: Sequence[SpeechItem] = (),
    num_examples: int = 4,
    kbps_per_quantizer: float = 0.0,
    published: str = "",
) -> str:
    """Write everything beside the rows; returns the tables as Markdown.

    Args:
        folder: the run's folder, which exists.
        rows: rows of one run.
        title: heading of the page.
        command: command line that made the rows.
        notes: more lines, such as the scoring models.
        items: texts whose speech is shown; none for speech recognition.
        num_examples: texts that are shown.
        kbps_per_quantizer: bitrate of one quantizer's codes.
        published: "table3" or "table4" of the paper, to be shown beside; "" for none.

    Raises:
        MissingDependencyError: SciPy or matplotlib is not installed.
    """
    points = points_of(rows)
    examples = _examples(rows, num_examples)
    paper = (
        [Section("The paper's systems (published)", published_speech(published))]
        if published
        else []
    )
    remarks = [*notes, *failure_lines(rows)]
    sections = [
        Section(table=_table(points, _CAPTION + (_SIMILARITY_CAPTION if items else ""))),
        *paper,
        Section(figures=[_figure(points, name) for name in _metric_names(points)]),
        *(
            _exhibit(folder, rows, name, items, kbps_per_quantizer)
            if items
            else _transcripts(rows, name)
            for name in examples
        ),
        *([Section("Notes", lines=remarks)] if remarks else []),
    ]
    names = {row.path for row in rows}
    summary = {
        "points": [asdict(point) for point in points],
        "notes": list(notes),
        "failed": sorted({row.path for row in rows if row.error}),
    }
    return Report(title, command, f"{len(names)} texts", sections).write(folder, summary)


@dataclass(frozen=True)
class Point:
    """All texts through one model at one number of quantizers.

    Attributes:
        num_texts: texts that succeeded; num_failed did not.
        num_unfinished: texts whose speech met the length limit.
        metrics: averages by name; error rates are errors over words of all texts together.
    """

    model: str
    num_quantizers: int
    num_texts: int
    num_failed: int
    num_unfinished: int
    metrics: dict[str, Average]


def points_of(rows: Iterable[SpeechRow]) -> list[Point]:
    """Averages by model and number of quantizers, in the order of first appearance.

    Raises:
        MissingDependencyError: SciPy is not installed.
    """
    groups: dict[tuple[str, int], list[SpeechRow]] = {}
    for row in rows:
        groups.setdefault((row.model, row.num_quantizers or 0), []).append(row)
    return [_point(model, count, members) for (model, count), members in groups.items()]


def _point(model: str, num_quantizers: int, rows: Sequence[SpeechRow]) -> Point:
    good = [row for row in rows if not row.error]
    figures: dict[str, list[tuple[float, float]]] = {}
    for row in good:
        for name, pair in _values(row).items():
            figures.setdefault(name, []).append(pair)
    unfinished = sum(not row.finished for row in good)
    counts = len(good), len(rows) - len(good), unfinished
    return Point(model, num_quantizers, *counts, averages(figures))


def _values(row: SpeechRow) -> dict[str, tuple[float, float]]:
    """Every figure with its weight in an average, by the name it has in tables."""
    found = {}
    for name, one in row.transcripts.items():
        of = f", {name}" if name else ""
        found[f"WER{of}"] = (one.wer, float(one.num_words))
        found[f"CER{of}"] = (one.cer, float(one.num_characters))
    scores = {"SIM": row.similarity, "opinion": row.opinion}
    return found | {name: (value, 1.0) for name, value in scores.items() if isfinite(value)}


def _metric_names(points: Iterable[Point]) -> list[str]:
    return list(dict.fromkeys(name for point in points for name in point.metrics))


def _kind(name: str) -> tuple[str, str, Bounds]:
    return _KINDS[name.partition(", ")[0]]


def _table(points: Sequence[Point], caption: str) -> Table:
    names = _metric_names(points)
    headings = [f"{name} {'↑' if _kind(name)[1] == _HIGHER else '↓'}" for name in names]
    rows = [
        [
            *(point.model, f"{point.num_quantizers}", _texts(point)),
            *(average_cell(point.metrics.get(name), 3) for name in names),
        ]
        for point in points
    ]
    return Table(["model", "quantizers", "texts", *headings], rows, caption)


def _texts(point: Point) -> str:
    counts = {"failed": point.num_failed, "cut off": point.num_unfinished}
    asides = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
    return f"{point.num_texts}" + (f" ({asides})" if asides else "")


def _figure(points: Sequence[Point], name: str) -> Figure:
    model = name.partition(", ")[2]
    meaning, better, bounds = _kind(name)
    title = meaning + (f" by {model}" if model else "")
    points = [one for one in points if name in one.metrics]
    curves = []
    for index, label in enumerate(dict.fromkeys(one.model for one in points)):
        own = [(one.num_quantizers, one.metrics[name]) for one in points if one.model == label]
        positions = [(count, average.mean, average.interval or 0.0) for count, average in own]
        curves.append(Curve(label, positions, index))
    words = "".join(letter if letter.isalnum() else " " for letter in name.lower()).split()
    return draw_figure(
        "_".join(words),
        f"{title} ({better} is better)",
        "number of quantizers",
        curves,
        sorted({one.num_quantizers for one in points}),
        bounds,
    )


def _examples(rows: Sequence[SpeechRow], count: int) -> list[str]:
    """Evenly spread over the texts that did not fail."""
    names = list(dict.fromkeys(row.path for row in rows if not row.error))
    count = min(count, len(names))
    return [names[index * len(names) // count] for index in range(count)]


def _transcripts(rows: Sequence[SpeechRow], name: str) -> Section:
    """The transcripts of a clip, by model and number of quantizers."""
    found = [row for row in rows if row.path == name and not row.error]
    lines = [
        [f"{row.model}, {row.num_quantizers}", one.read or "\N{EN DASH}", f"{one.wer:.2f}"]
        for row in found
        for one in row.transcripts.values()
    ]
    table = Table(["model, quantizers", "transcript", "WER"], lines, f"said: {found[0].text}")
    return Section(name, html=table_html(table))


def _exhibit(
    folder: Path, rows: Sequence[SpeechRow], name: str, items: Sequence[SpeechItem], kbps: float
) -> Section:
    """One text: its prompt, and every model's speech at some numbers of quantizers."""
    found = [row for row in rows if row.path == name and row.audio and not row.error]
    there = [row.num_quantizers or 0 for row in found]
    # 1, 8 and 32 quantizers where there are such, else the fewest and the most.
    counts = set(_SHOWN_COUNTS) & set(there) or {*there[:1], *there[-1:]}
    item = next(item for item in items if item.name == name)
    shown = [_version(folder, row, kbps) for row in found if row.num_quantizers in counts]
    cards = gallery_html([*_prompt(item), *shown]) or '<p class="note">No sound.</p>'
    return Section(name, html=f'<p class="note">“{escape(item.text)}”</p>\n{cards}')


def _prompt(item: SpeechItem) -> list[Version]:
    if item.prompt is None:
        return []
    try:
        audio, rate = beginning(item.prompt, _MOST_SECONDS)
    except MossAudioError:  # the failure is among the notes
        return []
    note = f"{describe(audio, rate)}; says “{item.prompt_text}”"
    return [Version("Prompt", rate * 16 / 1000, audio, rate, note=note)]


def _version(folder: Path, row: SpeechRow, kbps: float) -> Version:
    audio, rate = beginning(folder / row.audio, _MOST_SECONDS)
    remarks = [
        f"{name} understood “{one.read}” (WER {one.wer:.2f})"
        for name, one in row.transcripts.items()
    ]
    remarks += [] if isnan(row.similarity) else [f"SIM {row.similarity:.3f}"]
    remarks += [] if isnan(row.opinion) else [f"opinion {row.opinion:.2f}"]
    remarks += [] if row.finished else ["cut off at the limit"]
    count = row.num_quantizers or 0
    title = f"{row.model}, {quantizers(count)}"
    return Version(title, count * kbps, audio, rate, note="; ".join(remarks))
