"""What an evaluation of speech leaves behind: results.jsonl, summaries, plots and report.html.

Owns these files and the page; the numbers are `rows.py`'s, the looks `report.py`'s.
"""

import json
from collections.abc import Sequence
from html import escape
from pathlib import Path

import numpy as np

from ...audio import convert_channels, read_audio
from ...errors import EvaluationError, MossAudioError
from ...files import atomic_path
from ..html import page
from ..plots import LayerCurve, layer_plot
from ..published import PublishedTable, published_speech
from ..report import Curve, Table, Version, curves_html, describe, gallery_html, header, table_html
from ..summary import pipe_table, printable
from .speech_rows import Point, SpeechRow, heading, metric_names, points_of, table_cells
from .test_set import SpeechItem

# What a page embeds of a speech; the files hold all of it.
_MOST_SECONDS = 12
_SHOWN_DEPTHS = (1, 8, 32)
_CAPTION = (
    "Error rates are errors over the words or characters of all texts together, after case and "
    "punctuation are taken away, with 95% intervals. Arrows point to better."
)
_SIMILARITY_CAPTION = (
    " SIM is the mean cosine between the speaker model's embeddings of speech and prompt. "
    "Speech without any sound counts as wholly misread, and has no SIM."
)

RESULTS = "results.jsonl"


def check_folder(folder: Path) -> None:
    """Refuse a folder that holds something else than results of such a run.

    Raises:
        EvaluationError: see above.
    """
    if not folder.is_dir() or not any(folder.iterdir()):
        return
    results = folder / RESULTS
    if not results.is_file() or not _is_ours(results.read_bytes().partition(b"\n")[0]):
        raise EvaluationError(
            f"{str(folder)!r} holds files, but no {RESULTS} of such a run; name a new folder"
        )


def _is_ours(line: bytes) -> bool:
    """Whether a line is a `SpeechRow`'s; a run that broke off has left none."""
    try:
        row = json.loads(line or b"{}")
    except ValueError:
        return False
    return not line or (isinstance(row, dict) and "text" in row and "domain" not in row)


def begin_folder(folder: Path) -> None:
    """Make the folder, and mark it as one of such a run."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / RESULTS).touch()


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
    """Write everything; returns the table as Markdown.

    Args:
        folder: which exists.
        rows: of one run.
        title: of the page.
        command: the command line that made the rows.
        notes: more lines, such as the scoring models.
        items: what was to be said, whose speech is shown; none of a run of recognition.
        num_examples: texts that are shown.
        kbps_per_quantizer: bitrate of one layer of codes.
        published: "table3" or "table4" of the paper, to be shown beside; "" for none.

    Raises:
        MissingDependencyError: SciPy or matplotlib is not installed.
    """
    points = points_of(rows)
    remarks = [*notes, *_failures(rows)]
    curves = [(name, _curve(points, name)) for name in metric_names(points)]
    (folder / "plots").mkdir(exist_ok=True)
    lines = (json.dumps(row.as_json(), ensure_ascii=False, allow_nan=False) for row in rows)
    beside = published_speech(published) if published else None
    text = _markdown(points, title, command, remarks, beside)
    document = {
        "command": command,
        "points": [point.as_json() for point in points],
        "notes": list(notes),
        "failed": sorted({row.path for row in rows if row.error}),
    }
    files = {
        RESULTS: "".join(f"{line}\n" for line in lines).encode(),
        "summary.json": (json.dumps(document, indent=1, ensure_ascii=False) + "\n").encode(),
        "summary.md": text.encode(),
        **{f"plots/{_file_name(name)}.png": curve.light for name, curve in curves},
    }
    examples = _examples(rows, num_examples)
    shown = (
        [_exhibit(folder, rows, name, items, kbps_per_quantizer) for name in examples]
        if items
        else [_reading_table(rows, examples)]
    )
    head = header(title, [f"{len({row.path for row in rows})} texts"], command)
    caption = _CAPTION + (_SIMILARITY_CAPTION if items else "")
    top = [head, table_html(Table(*_headed(points), caption))]
    if beside:
        shown_beside = Table(beside.headings, beside.rows, beside.caption)
        top.append(f"<h2>The paper's systems</h2>\n{table_html(shown_beside)}")
    top.append(curves_html([curve for _, curve in curves]))
    files["report.html"] = _page(title, top, shown, remarks).encode()
    for name, content in files.items():
        with atomic_path(folder / name) as temporary:
            temporary.write_bytes(content)
    return text


def _page(title: str, top: Sequence[str], shown: Sequence[str], remarks: Sequence[str]) -> str:
    listed = "".join(f"<li>{escape(line)}</li>" for line in remarks)
    tail = [f"<h2>Notes</h2>\n<ul>{listed}</ul>"] if remarks else []
    return page(escape(title), "\n".join([*top, "<main>", *shown, "</main>", *tail]))


def _headed(points: list[Point]) -> tuple[list[str], list[list[str]]]:
    headings, *lines = table_cells(points)
    return headings, lines


def _markdown(
    points: list[Point],
    title: str,
    command: str,
    remarks: Sequence[str],
    beside: PublishedTable | None,
) -> str:
    parts = [f"# {title}", f"```\n{command}\n```", _CAPTION, pipe_table(*_headed(points))]
    if beside:
        parts += ["## The paper's systems", pipe_table(beside.headings, beside.rows)]
        parts.append(beside.caption)
    if remarks:
        parts += ["## Notes", "\n".join(f"- {line}" for line in remarks)]
    return printable("\n\n".join(parts) + "\n")


def _failures(rows: Sequence[SpeechRow]) -> list[str]:
    """A line for every text and reason, not for every depth."""
    found = dict.fromkeys(f"failed: {row.path}: {row.error}" for row in rows if row.error)
    return list(found)


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
    return Curve(f"{name} by the number of layers", light, dark)


def _file_name(metric: str) -> str:
    plain = "".join(letter if letter.isalnum() else "_" for letter in metric.lower())
    return "_".join(part for part in plain.split("_") if part)


def _examples(rows: Sequence[SpeechRow], count: int) -> list[str]:
    """Evenly spread over the texts that did not fail."""
    names = list(dict.fromkeys(row.path for row in rows if not row.error))
    count = min(count, len(names))
    return [names[index * len(names) // count] for index in range(count)]


def _reading_table(rows: Sequence[SpeechRow], names: Sequence[str]) -> str:
    """What was read of some clips, by layers."""
    parts = []
    for name in names:
        of_clip = [row for row in rows if row.path == name and not row.error]
        lines = [
            [f"{row.model}, {row.num_quantizers}", one.read or "\N{EN DASH}", f"{one.wer:.2f}"]
            for row in of_clip
            for one in row.transcripts.values()
        ]
        table = Table(["model, layers", "read", "WER"], lines, f"said: {of_clip[0].text}")
        parts.append(f"<h2>{escape(name)}</h2>\n{table_html(table)}")
    return "\n".join(parts)


def _exhibit(
    folder: Path, rows: Sequence[SpeechRow], name: str, items: Sequence[SpeechItem], kbps: float
) -> str:
    """One text: its prompt, and what every model made of it at some quantizer_counts."""
    of_text = [row for row in rows if row.path == name and row.audio and not row.error]
    quantizer_counts = _shown([row.num_quantizers for row in of_text])
    versions = [
        _version(folder, row, kbps) for row in of_text if row.num_quantizers in quantizer_counts
    ]
    prompt = _prompt(next(item for item in items if item.name == name))
    shown = [*prompt, *versions]
    said = next(row.text for row in rows if row.path == name)
    title = f'<h2>{escape(name)}</h2>\n<p class="note">“{escape(said)}”</p>'
    return f"{title}\n{gallery_html(shown)}" if shown else f'{title}\n<p class="note">No sound.</p>'


def _shown(quantizer_counts: Sequence[int]) -> set[int]:
    """One, eight and all layers where there are such, else the fewest and the most."""
    return set(_SHOWN_DEPTHS) & set(quantizer_counts) or {
        *quantizer_counts[:1],
        *quantizer_counts[-1:],
    }


def _prompt(item: SpeechItem) -> list[Version]:
    if item.prompt is None:
        return []
    try:
        audio, rate = _beginning(item.prompt)
    except MossAudioError:  # it has gone, or is what the failure's note tells of
        return []
    note = f"{describe(audio, rate)}; says “{item.prompt_text}”"
    return [Version("Prompt", rate * 16 / 1000, audio, rate, note=note)]


def _version(folder: Path, row: SpeechRow, kbps: float) -> Version:
    audio, rate = _beginning(folder / row.audio)
    transcripts = [
        f"{name} read “{one.read}” (WER {one.wer:.2f})" for name, one in row.transcripts.items()
    ]
    similarity = [] if np.isnan(row.similarity) else [f"SIM {row.similarity:.3f}"]
    cut_off = [] if row.finished else ["cut off at the limit"]
    note = "; ".join([*transcripts, *similarity, *cut_off])
    plural = "" if row.num_quantizers == 1 else "s"
    title = f"{row.model}, {row.num_quantizers} layer{plural}"
    return Version(title, row.num_quantizers * kbps, audio, rate, note=note)


def _beginning(path: Path) -> tuple[np.ndarray, int]:
    samples, rate = read_audio(path)
    return convert_channels(samples[:, : _MOST_SECONDS * rate], 1), rate
