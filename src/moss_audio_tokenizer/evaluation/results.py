"""What a run leaves behind: summary.json, summary.md, summary.csv, plots and report.html.

Owns these files; the numbers are `summary.py`'s, the looks `report.py`'s and `plots.py`'s.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from html import escape
from pathlib import Path
from typing import Any

from ..manifest import ManifestEntry
from .artifacts import audio_folder, clip_slug, codes_file, reference_file, slug
from .code_statistics import CodeStatistics, code_statistics, read_codes, statistics_table
from .html import page
from .metric_registry import METRICS
from .plots import curves, rate_plot
from .published import PUBLISHED, published_codecs
from .report import (
    Curve,
    Table,
    Version,
    beginning,
    curves_html,
    describe,
    exhibit_html,
    header,
    notes_html,
    original_version,
    table_html,
)
from .result_rows import Row
from .results_file import failure_lines
from .run import Outcome
from .summary import (
    Summary,
    csv_table,
    markdown_table,
    printable,
    summarize,
    table_cells,
    write_files,
)

# What a page embeds of a clip; the files of a run hold all of it.
_MOST_SECONDS = 10
_CAPTION = (
    "Means over clips with 95% intervals, in mono at 16 kHz, delays taken away. Arrows point to "
    "better. Actual kbps: bits of the coded audio over its length, without containers."
)


@dataclass(frozen=True)
class _Findings:
    """All that a summary and a page say.

    Attributes:
        folder: of the run.
        outcome: of the run.
        clips: of the manifest.
        title: of the page.
        command: that made it.
        summaries: means by domain, model and bitrate.
        languages: the same by language, of domains with several.
        published: published rows, shown beside the measured ones.
        statistics: of the codes, by model.
    """

    folder: Path
    outcome: Outcome
    clips: Sequence[ManifestEntry]
    title: str
    command: str
    summaries: Sequence[Summary]
    languages: Sequence[Summary]
    published: Sequence[Summary]
    statistics: dict[str, CodeStatistics]

    def caption(self, domain: str) -> str:
        """Below the table of a domain."""
        data = dict.fromkeys(one.published for one in self.beside(domain))
        if not data:
            return _CAPTION
        return (
            f"{_CAPTION} Rows marked (published) are {PUBLISHED} ({', '.join(data)}): they show "
            "the scale, and were not measured on these clips."
        )

    def of(self, domain: str) -> list[Summary]:
        """Measured summaries of a domain, then the published ones."""
        return _of(self.summaries, domain) + self.beside(domain)

    def beside(self, domain: str) -> list[Summary]:
        """Published summaries of a domain."""
        return _of(self.published, domain)


def write_results(
    folder: Path,
    outcome: Outcome,
    clips: Sequence[ManifestEntry],
    title: str,
    command: str,
    published: bool = False,
) -> str:
    """Write everything beside the rows; returns the tables as Markdown.

    Args:
        folder: of the run.
        outcome: of the run.
        clips: of the manifest.
        title: of the page.
        command: that made it, to be shown.
        published: whether the paper's Table 2 is shown beside.

    Raises:
        MissingDependencyError: SciPy or matplotlib is not installed.
    """
    found = _findings(folder, outcome, clips, title, command, published)
    text = _markdown(found)
    plots = _plots(found)
    pictures = {
        f"plots/{slug(domain)}-{name}.png": curve.light
        for domain, drawn in plots.items()
        for name, curve in drawn.items()
    }
    write_files(
        folder,
        {
            **pictures,
            "summary.json": _json(found),
            "summary.csv": csv_table([*found.summaries, *found.languages]),
            "summary.md": text,
            "report.html": _page(found, plots),
        },
    )
    return text


def _findings(
    folder: Path,
    outcome: Outcome,
    clips: Sequence[ManifestEntry],
    title: str,
    command: str,
    published: bool,
) -> _Findings:
    summaries = summarize(outcome.rows)
    languages = _of_several(summarize(outcome.rows, by_language=True))
    spoken = {clip.language for clip in clips if clip.domain == "speech"} - {""}
    beside = published_codecs(_domains(summaries), sorted(spoken)) if published else []
    statistics = _statistics(folder, outcome, clips)
    whose = folder, outcome, clips, title, command
    return _Findings(*whose, summaries, languages, beside, statistics)


def _of_several(by_language: list[Summary]) -> list[Summary]:
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


def _markdown(found: _Findings) -> str:
    parts = [f"# {found.title}", f"```\n{found.command}\n```"]
    for domain in _domains(found.summaries):
        parts += [f"## {_named(domain)}", markdown_table(found.of(domain))]
        parts.append(found.caption(domain))
    for domain in _domains(found.languages):
        parts += [f"## {_named(domain)} by language", markdown_table(_of(found.languages, domain))]
    if found.statistics:
        parts += ["## Codes", statistics_table(found.statistics)]
    versions = _versions(found.outcome, found.summaries)
    parts += ["## Codecs", "\n".join(f"- {line}" for line in versions)]
    if remarks := [*found.outcome.notes, *failure_lines(found.outcome.rows)]:
        parts += ["## Notes", "\n".join(f"- {line}" for line in remarks)]
    return printable("\n\n".join(parts) + "\n")


def _named(domain: str) -> str:
    """A domain as a heading."""
    return domain[:1].upper() + domain[1:]


def _versions(outcome: Outcome, summaries: Sequence[Summary]) -> list[str]:
    lines = []
    for codec in outcome.codecs:
        delays = [one.delay_ms for one in summaries if one.model == codec.name]
        late = f", {max(delays, key=abs):.1f} ms late" if any(delays) else ""
        lines.append(f"{codec.name}: {codec.identity}, {codec.sampling_rate / 1000:g} kHz{late}")
    return lines


def _json(found: _Findings) -> str:
    outcome = found.outcome
    document: dict[str, Any] = {
        "command": found.command,
        "codecs": [asdict(codec) for codec in outcome.codecs],
        "summaries": [one.as_json() for one in (*found.summaries, *found.languages)],
        "published": [one.as_json() for one in found.published],
        "codes": {name: one.as_json() for name, one in found.statistics.items()},
        "failed": sorted({row.path for row in outcome.rows if row.error}),
        "notes": outcome.notes,
        "examples": [
            {"path": found.clips[index].name, "folder": clip_slug(found.clips[index])}
            for index in outcome.examples
        ],
    }
    return json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _plots(found: _Findings) -> dict[str, dict[str, Curve]]:
    """Plots by domain and metric."""
    drawn = (curves(found.summaries, name) for name in METRICS)
    families = list(dict.fromkeys(name for one in drawn for name in one))
    plots: dict[str, dict[str, Curve]] = {}
    for domain in _domains(found.summaries):
        of_domain, beside = _of(found.summaries, domain), found.beside(domain)
        for name, metric in METRICS.items():
            if not curves(of_domain, name):
                continue
            light, dark = (
                rate_plot(of_domain, name, families, theme, beside) for theme in ("light", "dark")
            )
            curve = Curve(f"{metric.title} against bitrate, {domain}", light, dark)
            plots.setdefault(domain, {})[name] = curve
    return plots


def _page(found: _Findings, plots: dict[str, dict[str, Curve]]) -> str:
    outcome, clips = found.outcome, found.clips
    failed = len({row.path for row in outcome.rows if row.error})
    lines = [f"{len(clips)} clips" + (f", {failed} of them failed" if failed else "")]
    parts = [header(found.title, lines, found.command)]
    for domain in _domains(found.summaries):
        parts.append(f"<h2>{escape(_named(domain))}</h2>")
        parts.append(table_html(_table(found.of(domain), found.caption(domain))))
        parts.append(curves_html(list(plots.get(domain, {}).values())))
    for domain in _domains(found.languages):
        parts.append(f"<h2>{escape(_named(domain))} by language</h2>")
        parts.append(table_html(_table(_of(found.languages, domain))))
    parts.append("<main>")
    parts += [_exhibit(found.folder, outcome, clips[index]) for index in outcome.examples]
    parts.append("</main>")
    versions = _versions(outcome, found.summaries)
    remarks = [*versions, *outcome.notes, *failure_lines(outcome.rows)]
    parts.append(notes_html("Codecs and notes", remarks))
    return page(escape(found.title), "\n".join(parts))


def _table(summaries: Sequence[Summary], caption: str = "") -> Table:
    heads, *rows = table_cells(summaries)
    return Table(heads, rows, caption)


def _exhibit(folder: Path, outcome: Outcome, clip: ManifestEntry) -> str:
    rows = [row for row in outcome.rows if row.path == clip.name and not row.error]
    title = f"<h2>{escape(clip.name)}</h2>"
    if not rows:
        return f'{title}\n<p class="note">This clip failed.</p>'
    # The clip may have been deleted since it was measured; its artifacts are still there.
    source = clip.path if clip.path.is_file() else reference_file(folder, clip)
    if not source.is_file():
        return f'{title}\n<p class="note">This clip was deleted, and its sound was not stored.</p>'
    audio, rate = beginning(source, _MOST_SECONDS)
    said = f" · “{clip.text}”" if clip.text else ""
    note = f'<p class="note">{escape(clip.domain + ", " + describe(audio, rate) + said)}</p>'
    versions = [
        _version(folder, clip, row) for row in rows if _version_file(folder, clip, row).is_file()
    ]
    return f"{title}\n{note}\n{exhibit_html(original_version(audio, rate), versions)}"


def _version(folder: Path, clip: ManifestEntry, row: Row) -> Version:
    audio, rate = beginning(_version_file(folder, clip, row), _MOST_SECONDS)
    plural = "" if row.num_quantizers == 1 else "s"
    count = "" if row.num_quantizers is None else f", {row.num_quantizers} quantizer{plural}"
    wanted = {name: value for name, value in row.metrics.items() if name in METRICS}
    note = f"understood as “{row.transcript}”" if row.transcript else ""
    return Version(f"{row.model}{count}", row.actual_kbps, audio, rate, wanted, note)


def _version_file(folder: Path, clip: ManifestEntry, row: Row) -> Path:
    return audio_folder(folder, clip) / f"{slug(row.model, row.num_quantizers)}.flac"
