"""Files of an evaluation of speech models: summaries, plots and report.html.

Owns these files and the page; the numbers are `speech_rows.py`'s, the looks `report.py`'s.
"""

import json
from collections.abc import Sequence
from html import escape
from pathlib import Path

import numpy as np

from ...errors import MossAudioError
from ..html import page
from ..plots import LayerCurve, layer_plot
from ..published import published_speech
from ..report import (
    Curve,
    Table,
    Version,
    beginning,
    curves_html,
    describe,
    gallery_html,
    header,
    notes_html,
    table_html,
)
from ..results_file import failure_lines
from ..summary import pipe_table, printable, write_files
from .speech_rows import Point, SpeechRow, heading, metric_names, points_of, table_cells
from .test_set import SpeechItem

# What a page embeds of a speech; the files hold all of it.
_MOST_SECONDS = 12
_SHOWN_COUNTS = (1, 8, 32)
_CAPTION = (
    "Error rates are errors over the words or characters of all texts together, after "
    "normalization, with 95% intervals. Arrows point to better."
)
_SIMILARITY_CAPTION = (
    " SIM is the mean cosine between the speaker model's embeddings of speech and prompt. "
    "Speech without any sound counts as wholly misread, and has no SIM."
)


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
    """Write everything beside the rows; returns the table as Markdown.

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
    remarks = [*notes, *failure_lines(rows)]
    headings, *cells = table_cells(points)
    table = Table(headings, cells, _CAPTION + (_SIMILARITY_CAPTION if items else ""))
    beside = published_speech(published) if published else None
    text = _markdown(table, title, command, remarks, beside)
    document = {
        "command": command,
        "points": [point.as_json() for point in points],
        "notes": list(notes),
        "failed": sorted({row.path for row in rows if row.error}),
    }
    curves = {name: _curve(points, name) for name in metric_names(points)}
    examples = _examples(rows, num_examples)
    shown = (
        [_exhibit(folder, rows, name, items, kbps_per_quantizer) for name in examples]
        if items
        else [_transcripts_table(rows, examples)]
    )
    top = [header(title, [f"{len({row.path for row in rows})} texts"], command), table_html(table)]
    if beside:
        top.append(f"<h2>The paper's systems</h2>\n{table_html(beside)}")
    top.append(curves_html(list(curves.values())))
    write_files(
        folder,
        {
            "summary.json": json.dumps(document, indent=1, ensure_ascii=False) + "\n",
            "summary.md": text,
            **{f"plots/{_file_name(name)}.png": curve.light for name, curve in curves.items()},
            "report.html": _page(title, top, shown, remarks),
        },
    )
    return text


def _page(title: str, top: Sequence[str], shown: Sequence[str], remarks: Sequence[str]) -> str:
    tail = [notes_html("Notes", remarks)] if remarks else []
    return page(escape(title), "\n".join([*top, "<main>", *shown, "</main>", *tail]))


def _markdown(
    table: Table, title: str, command: str, remarks: Sequence[str], beside: Table | None
) -> str:
    parts = [f"# {title}", f"```\n{command}\n```", _CAPTION]
    parts.append(pipe_table(table.headings, table.rows))
    if beside:
        parts += ["## The paper's systems", pipe_table(beside.headings, beside.rows)]
        parts.append(beside.caption)
    if remarks:
        parts += ["## Notes", "\n".join(f"- {line}" for line in remarks)]
    return printable("\n\n".join(parts) + "\n")


def _curve(points: Sequence[Point], name: str) -> Curve:
    models = list(dict.fromkeys(point.model for point in points))
    curves = [
        LayerCurve(
            model,
            [
                (
                    point.num_quantizers,
                    point.metrics[name].mean,
                    point.metrics[name].interval or 0.0,
                )
                for point in points
                if point.model == model and name in point.metrics
            ],
        )
        for model in models
    ]
    light, dark = (layer_plot(curves, heading(name), theme) for theme in ("light", "dark"))
    return Curve(f"{name} by the number of quantizers", light, dark)


def _file_name(metric: str) -> str:
    plain = "".join(letter if letter.isalnum() else "_" for letter in metric.lower())
    return "_".join(part for part in plain.split("_") if part)


def _examples(rows: Sequence[SpeechRow], count: int) -> list[str]:
    """Evenly spread over the texts that did not fail."""
    names = list(dict.fromkeys(row.path for row in rows if not row.error))
    count = min(count, len(names))
    return [names[index * len(names) // count] for index in range(count)]


def _transcripts_table(rows: Sequence[SpeechRow], names: Sequence[str]) -> str:
    """Transcripts of some clips, by the number of quantizers."""
    parts = []
    for name in names:
        of_clip = [row for row in rows if row.path == name and not row.error]
        lines = [
            [f"{row.model}, {row.num_quantizers}", one.read or "\N{EN DASH}", f"{one.wer:.2f}"]
            for row in of_clip
            for one in row.transcripts.values()
        ]
        table = Table(["model, quantizers", "transcript", "WER"], lines, f"said: {of_clip[0].text}")
        parts.append(f"<h2>{escape(name)}</h2>\n{table_html(table)}")
    return "\n".join(parts)


def _exhibit(
    folder: Path, rows: Sequence[SpeechRow], name: str, items: Sequence[SpeechItem], kbps: float
) -> str:
    """One text: its prompt, and every model's speech at some numbers of quantizers."""
    of_text = [row for row in rows if row.path == name and row.audio and not row.error]
    counts = _shown([row.num_quantizers for row in of_text])
    versions = [_version(folder, row, kbps) for row in of_text if row.num_quantizers in counts]
    prompt = _prompt(next(item for item in items if item.name == name))
    shown = [*prompt, *versions]
    said = next(row.text for row in rows if row.path == name)
    title = f'<h2>{escape(name)}</h2>\n<p class="note">“{escape(said)}”</p>'
    return f"{title}\n{gallery_html(shown)}" if shown else f'{title}\n<p class="note">No sound.</p>'


def _shown(counts: Sequence[int]) -> set[int]:
    """1, 8 and 32 quantizers where there are such, else the fewest and the most."""
    return set(_SHOWN_COUNTS) & set(counts) or {*counts[:1], *counts[-1:]}


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
    transcripts = [
        f"{name} understood “{one.read}” (WER {one.wer:.2f})"
        for name, one in row.transcripts.items()
    ]
    similarity = [] if np.isnan(row.similarity) else [f"SIM {row.similarity:.3f}"]
    cut_off = [] if row.finished else ["cut off at the limit"]
    note = "; ".join([*transcripts, *similarity, *cut_off])
    plural = "" if row.num_quantizers == 1 else "s"
    title = f"{row.model}, {row.num_quantizers} quantizer{plural}"
    return Version(title, row.num_quantizers * kbps, audio, rate, note=note)
