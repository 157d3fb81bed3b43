"""What a run leaves behind: summary.json, summary.md, summary.csv, plots and report.html.

Owns these files; the numbers are `summary.py`'s, the looks `report.py`'s and `plots.py`'s.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from ..audio import convert_channels, read_audio
from ..files import atomic_path
from ..manifest import ManifestEntry
from .artifacts import audio_folder, clip_slug, codes_file, reference_file, slug
from .code_statistics import CodeStatistics, code_statistics, read_codes, statistics_table
from .html import page
from .metric_registry import METRICS
from .plots import curves, rate_plot
from .report import (
    Curve,
    Table,
    Version,
    curves_html,
    describe,
    exhibit_html,
    header,
    original_version,
    table_html,
)
from .result_rows import Row
from .run import Outcome
from .summary import Summary, csv_table, markdown_table, summarize, table_cells

# What a page embeds of a clip; the files of a run hold all of it.
_MOST_SECONDS = 10
_CAPTION = (
    "Means over clips with 95% intervals, in mono at 16 kHz, delays taken away. Arrows point to "
    "better. Actual kbps: bits of the coded sound over its length, without containers."
)


def write_results(
    folder: Path, outcome: Outcome, clips: Sequence[ManifestEntry], title: str, command: str
) -> str:
    """Write everything beside the rows; returns the tables as Markdown.

    Raises:
        MissingDependencyError: SciPy or matplotlib is not installed.
    """
    summaries = summarize(outcome.rows)
    languages = _worth_telling(summarize(outcome.rows, by_language=True))
    statistics = _statistics(folder, outcome, clips)
    text = _markdown(outcome, summaries, languages, statistics, title, command)
    files = {
        "summary.json": _json(outcome, clips, summaries, languages, statistics, command),
        "summary.csv": csv_table([*summaries, *languages]),
        "summary.md": text,
    }
    for name, content in files.items():
        _write(folder / name, content.encode())
    plots = _write_plots(folder / "plots", summaries)
    _write(
        folder / "report.html",
        _page(folder, outcome, clips, summaries, languages, plots, title, command).encode(),
    )
    return text


def _write(path: Path, content: bytes) -> None:
    with atomic_path(path) as beside:
        beside.write_bytes(content)


def _worth_telling(by_language: list[Summary]) -> list[Summary]:
    """Summaries by language, of the domains that have more than one."""
    found: dict[str, set[str]] = {}
    for one in by_language:
        found.setdefault(one.domain, set()).add(one.language)
    return [one for one in by_language if len(found[one.domain]) > 1]


def _statistics(
    folder: Path, outcome: Outcome, clips: Sequence[ManifestEntry]
) -> dict[str, CodeStatistics]:
    found = {}
    for codec in outcome.codecs:
        codes = read_codes(codes_file(folder, codec.name, clip) for clip in clips)
        if not codes:
            continue
        # What the layers of one frame cost tells how many frames there are in a second.
        bits = len(codes[0]) * (codec.codebook_size - 1).bit_length()
        kbps = max(row.kbps for row in outcome.rows if row.model == codec.name)
        rate = 1000 * kbps / bits
        found[codec.name] = code_statistics(codes, codec.codebook_size, rate)
    return found


def _domains(summaries: Sequence[Summary]) -> list[str]:
    """In the order of the clips, but speech first: its metrics say the most."""
    found = dict.fromkeys(one.domain for one in summaries)
    return sorted(found, key=lambda domain: domain != "speech")


def _of(summaries: Sequence[Summary], domain: str) -> list[Summary]:
    return [one for one in summaries if one.domain == domain]


def _markdown(
    outcome: Outcome,
    summaries: Sequence[Summary],
    languages: Sequence[Summary],
    statistics: dict[str, CodeStatistics],
    title: str,
    command: str,
) -> str:
    parts = [f"# {title}", f"```\n{command}\n```", _CAPTION]
    for domain in _domains(summaries):
        parts += [f"## {domain}", markdown_table(_of(summaries, domain))]
    for domain in _domains(languages):
        parts += [f"## {domain} by language", markdown_table(_of(languages, domain))]
    if statistics:
        parts += ["## Codes", statistics_table(statistics)]
    parts += ["## Codecs", "\n".join(f"- {line}" for line in _versions(outcome, summaries))]
    if remarks := [*outcome.notes, *_failures(outcome.rows)]:
        parts += ["## Notes", "\n".join(f"- {line}" for line in remarks)]
    return "\n\n".join(parts) + "\n"


def _versions(outcome: Outcome, summaries: Sequence[Summary]) -> list[str]:
    lines = []
    for codec in outcome.codecs:
        delays = [one.delay_ms for one in summaries if one.model == codec.name]
        late = f", {max(delays, key=abs):.1f} ms late" if any(delays) else ""
        lines.append(f"{codec.name}: {codec.identity}, {codec.sampling_rate / 1000:g} kHz{late}")
    return lines


def _failures(rows: Sequence[Row]) -> list[str]:
    """A line for every clip and reason, not for every depth."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        if row.error:
            reasons.setdefault((row.path, row.error), []).append(row.model)
    return [
        f"failed: {path} ({', '.join(dict.fromkeys(models))}): {error}"
        for (path, error), models in reasons.items()
    ]


def _json(
    outcome: Outcome,
    clips: Sequence[ManifestEntry],
    summaries: Sequence[Summary],
    languages: Sequence[Summary],
    statistics: dict[str, CodeStatistics],
    command: str,
) -> str:
    document: dict[str, Any] = {
        "command": command,
        "codecs": [asdict(codec) for codec in outcome.codecs],
        "summaries": [one.as_json() for one in (*summaries, *languages)],
        "codes": {name: one.as_json() for name, one in statistics.items()},
        "failed": sorted({row.path for row in outcome.rows if row.error}),
        "notes": outcome.notes,
        "examples": [
            {"path": clips[place].name, "folder": clip_slug(clips[place])}
            for place in outcome.examples
        ],
    }
    return json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _write_plots(folder: Path, summaries: Sequence[Summary]) -> dict[str, list[Curve]]:
    """PNG files, and the same plots for the page, by domain."""
    folder.mkdir(exist_ok=True)
    drawn = (curves(summaries, name) for name in METRICS)
    families = list(dict.fromkeys(name for found in drawn for name in found))
    plots: dict[str, list[Curve]] = {}
    for domain in _domains(summaries):
        of_domain = _of(summaries, domain)
        for name, metric in METRICS.items():
            if not curves(of_domain, name):
                continue
            light, dark = (
                rate_plot(of_domain, name, families, theme) for theme in ("light", "dark")
            )
            _write(folder / f"{slug(domain)}-{name}.png", light)
            curve = Curve(f"{metric.title} against bitrate, {domain}", light, dark)
            plots.setdefault(domain, []).append(curve)
    return plots


def _page(
    folder: Path,
    outcome: Outcome,
    clips: Sequence[ManifestEntry],
    summaries: Sequence[Summary],
    languages: Sequence[Summary],
    plots: dict[str, list[Curve]],
    title: str,
    command: str,
) -> str:
    failed = len({row.path for row in outcome.rows if row.error})
    lines = [f"{len(clips)} clips" + (f", {failed} of them failed" if failed else "")]
    parts = [header(title, lines, command)]
    for domain in _domains(summaries):
        parts.append(f"<h2>{escape(domain)}</h2>")
        parts.append(table_html(_table(_of(summaries, domain), _CAPTION)))
        parts.append(curves_html(plots.get(domain, [])))
    for domain in _domains(languages):
        parts.append(f"<h2>{escape(domain)} by language</h2>")
        parts.append(table_html(_table(_of(languages, domain))))
    remarks = [*_versions(outcome, summaries), *outcome.notes, *_failures(outcome.rows)]
    items = "\n".join(f"<li>{escape(line)}</li>" for line in remarks)
    parts.append(f"<h2>Codecs and notes</h2>\n<ul>\n{items}\n</ul>")
    parts.append("<main>")
    parts += [_exhibit(folder, outcome, clips[place]) for place in outcome.examples]
    parts.append("</main>")
    return page(escape(title), "\n".join(parts))


def _table(summaries: Sequence[Summary], caption: str = "") -> Table:
    heads, *rows = table_cells(summaries)
    return Table(heads, rows, caption)


def _exhibit(folder: Path, outcome: Outcome, clip: ManifestEntry) -> str:
    rows = [row for row in outcome.rows if row.path == clip.name and not row.error]
    title = f"<h2>{escape(clip.name)}</h2>"
    if not rows:
        return f'{title}\n<p class="note">This clip failed.</p>'
    # The clip itself may have gone since it was measured; what was kept of it has not.
    source = clip.path if clip.path.is_file() else reference_file(folder, clip)
    if not source.is_file():
        return f'{title}\n<p class="note">This clip has gone, and its sound was not kept.</p>'
    audio, rate = _beginning(source)
    said = f" · “{clip.text}”" if clip.text else ""
    note = f'<p class="note">{escape(clip.domain + ", " + describe(audio, rate) + said)}</p>'
    versions = [
        _version(folder, clip, row) for row in rows if _version_file(folder, clip, row).is_file()
    ]
    return f"{title}\n{note}\n{exhibit_html(original_version(audio, rate), versions)}"


def _version(folder: Path, clip: ManifestEntry, row: Row) -> Version:
    audio, rate = _beginning(_version_file(folder, clip, row))
    layers = "" if row.num_quantizers is None else f", {row.num_quantizers} layers"
    wanted = {name: value for name, value in row.metrics.items() if name in METRICS}
    note = f"understood as “{row.transcript}”" if row.transcript else ""
    return Version(f"{row.model}{layers}", row.actual_kbps, audio, rate, wanted, note)


def _version_file(folder: Path, clip: ManifestEntry, row: Row) -> Path:
    return audio_folder(folder, clip) / f"{slug(row.model, row.num_quantizers)}.flac"


def _beginning(path: Path) -> tuple[np.ndarray, int]:
    """The first seconds of a file in mono, and its rate."""
    samples, rate = read_audio(path)
    return convert_channels(samples[:, : _MOST_SECONDS * rate], 1), rate
