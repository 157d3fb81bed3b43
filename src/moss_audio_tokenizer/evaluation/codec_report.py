"""What a run of codecs leaves behind: summary.json, summary.md, summary.csv, plots, report.html.

Owns their contents; the numbers are `summary.py`'s, the looks `pages.py`'s, `pictures.py`'s and
`exhibits.py`'s.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from html import escape
from pathlib import Path

from ..manifest import ManifestEntry
from .clip_results import Row, name_slug, read_codes, slug, version_file
from .exhibits import Version, beginning, describe, exhibit_html, original_version, quantizers
from .metric_registry import METRICS
from .pages import Figure, Report, Section
from .pictures import Curve, draw_figure
from .published import OURS, PUBLISHED, published_codecs
from .results_file import failure_lines
from .run import Outcome
from .summary import (
    CodeStatistics,
    Summary,
    code_statistics,
    csv_table,
    domain_heading,
    speech_first,
    statistics_table,
    summarize,
    summary_table,
)

# What a page embeds of a clip; the files of a run hold all of it.
_MOST_SECONDS = 10
_CAPTION = (
    "Means over clips with 95% intervals, in mono at 16 kHz, delays taken away. Arrows point to "
    "better. Actual kbps: bits of the coded audio over its length, without containers."
)
# Marks of a scale, not codecs: their hundreds of kilobits would press all others into a corner.
_ANCHORS = ("original", "lowpass")
_SIMILARITY = "speaker_similarity"
RATE_TICKS = (0.125, 0.25, 0.5, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
"""Of an axis of kilobits a second."""


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
    summaries = summarize(outcome.rows)
    languages = _of_several(summarize(outcome.rows, by_language=True))
    spoken = {clip.language for clip in clips if clip.domain == "speech"} - {""}
    paper = (
        published_codecs(speech_first(one.domain for one in summaries), sorted(spoken))
        if published
        else []
    )
    models = {
        name: shown_model(one) for row in outcome.rows for name, one in row.scoring_models.items()
    }
    statistics = _statistics(folder, outcome, clips)
    failed = sorted({row.path for row in outcome.rows if row.error})
    sections = [
        *_domain_sections(summaries, paper, models),
        *(
            Section(f"{domain_heading(domain)} by language", summary_table(_of(languages, domain)))
            for domain in speech_first(one.domain for one in languages)
        ),
        *(_exhibit(folder, outcome, clips[index]) for index in outcome.examples),
        Section("Codes", statistics_table(statistics)) if statistics else Section(),
        Section("Codecs and notes", lines=_remarks(outcome, summaries, models)),
    ]
    scope = f"{len(clips)} clips" + (f", {len(failed)} of them failed" if failed else "")
    document = {
        "codecs": [asdict(codec) for codec in outcome.codecs],
        "summaries": [asdict(one) for one in (*summaries, *languages)],
        "published": [asdict(one) for one in paper],
        "codes": {name: asdict(one) for name, one in statistics.items()},
        "failed": failed,
        "notes": outcome.notes,
        "examples": [
            {"path": clips[index].name, "folder": name_slug(clips[index].name)}
            for index in outcome.examples
        ],
    }
    report = Report(title, command, scope, sections)
    return report.write(folder, document, csv_table([*summaries, *languages]))


def _of_several(by_language: Sequence[Summary]) -> list[Summary]:
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
        codes = read_codes(folder, codec.name, clips)
        if codes:
            # What the layers of one frame cost tells how many frames there are in a second.
            bits = len(codes[0]) * (codec.codebook_size - 1).bit_length()
            kbps = max(row.kbps for row in outcome.rows if row.model == codec.name)
            found[codec.name] = code_statistics(codes, codec.codebook_size, 1000 * kbps / bits)
    return found


def _of(summaries: Sequence[Summary], domain: str) -> list[Summary]:
    return [one for one in summaries if one.domain == domain]


def _domain_sections(
    summaries: Sequence[Summary], paper: Sequence[Summary], models: Mapping[str, str]
) -> list[Section]:
    """Each domain's table, the paper's rows at its end, and its plots.

    Args:
        summaries: measured ones.
        paper: published ones.
        models: the scoring model of each metric that has one.
    """
    names = list(dict.fromkeys(family(one.model) for one in summaries))
    sections = []
    for domain in speech_first(one.domain for one in summaries):
        own, beside = _of(summaries, domain), _of(paper, domain)
        figures = [
            figure
            for name in METRICS
            if (figure := _figure(domain, name, own, beside, names, models.get(name, "")))
        ]
        similarity = models.get(_SIMILARITY, "") if domain == "speech" else ""
        table = summary_table([*own, *beside], _caption(beside, similarity))
        sections.append(Section(domain_heading(domain), table, figures))
    return sections


def _caption(published: Sequence[Summary], speaker_model: str) -> str:
    if not published:
        return _CAPTION
    data = ", ".join(dict.fromkeys(one.published for one in published))
    caption = (
        f"{_CAPTION} Rows marked (published) are {PUBLISHED} ({data}): they show the scale, and "
        "were not measured on these clips."
    )
    if not speaker_model or _is_the_papers(_SIMILARITY, speaker_model):
        return caption
    return (
        f"{caption} Their speaker similarity is by WavLM-large and cannot be compared with that "
        f"by {speaker_model}."
    )


def shown_model(name: str) -> str:
    """A scoring model as readers know it: "whisper:base" of "whisper:models/base"."""
    model, _, texts = name.partition(" (")
    kind, _, value = model.partition(":")
    shown = f"{kind}:{Path(value).name}" if "/" in value else model
    return f"{shown}, {texts.removesuffix(' texts)')} normalization" if texts else shown


def _is_the_papers(metric: str, model: str) -> bool:
    """Whether a metric's published values are on the same scale as those by a scoring model."""
    return metric != _SIMILARITY or model.partition(":")[0] == "wavlm"


def family(model: str) -> str:
    """What is drawn as one curve: "opus" of "opus:6", "encodec:folder" of "encodec:folder@6"."""
    if "@" in model:
        return model.rpartition("@")[0]
    kind, colon, value = model.partition(":")
    return kind if colon and value.replace(".", "").rstrip("C").isdigit() else model


def rate_curves(summaries: Sequence[Summary], metric: str) -> dict[str, list[Summary]]:
    """The codecs' summaries that have a metric, by family, from the lowest rate to the highest."""
    found: dict[str, list[Summary]] = {}
    for one in summaries:
        if metric in one.metrics and family(one.model) not in _ANCHORS:
            found.setdefault(family(one.model), []).append(one)
    return {name: sorted(points, key=lambda one: one.actual_kbps) for name, points in found.items()}


def _figure(
    domain: str,
    metric: str,
    summaries: Sequence[Summary],
    published: Sequence[Summary],
    families: Sequence[str],
    model: str,
) -> Figure | None:
    """A metric by bitrate; a codec keeps its color in every plot of the page.

    Args:
        domain: of the summaries.
        metric: to be drawn; None comes back where no codec has it.
        summaries: measured ones.
        published: published ones, left out where another scoring model made them.
        families: names of all curves of the page, in the order of colors.
        model: the scoring model that brought the metric; "" for none.
    """
    measured = rate_curves(summaries, metric)
    paper = rate_curves(published, metric) if _is_the_papers(metric, model) else {}
    if not measured:
        return None
    curves = [
        Curve(name, _points(points, metric), families.index(name))
        for name, points in measured.items()
    ]
    ours = [Curve(f"{OURS} (paper)", _points(paper.pop(OURS), metric))] if OURS in paper else []
    others = [
        Curve("" if index else "other codecs (paper)", _points(points, metric), is_faint=True)
        for index, points in enumerate(paper.values())
    ]
    return draw_figure(
        f"{slug(domain)}-{metric}",
        METRICS[metric].heading_by(model) if model else METRICS[metric].long_heading,
        "kilobits a second, as coded",
        [*curves, *ours, *others],
        RATE_TICKS,
        METRICS[metric].bounds,
    )


def _points(summaries: Sequence[Summary], metric: str) -> list[tuple[float, float, float]]:
    found = [(one.actual_kbps, one.metrics[metric]) for one in summaries]
    return [(kbps, average.mean, average.interval or 0.0) for kbps, average in found]


def _remarks(
    outcome: Outcome, summaries: Sequence[Summary], models: Mapping[str, str]
) -> list[str]:
    lines = [f"{METRICS[name].title}: by {model}" for name, model in models.items()]
    for codec in outcome.codecs:
        delays = [one.delay_ms for one in summaries if one.model == codec.name]
        late = f", {max(delays, key=abs):.1f} ms late" if any(delays) else ""
        lines.append(f"{codec.name}: {codec.identity}, {codec.sampling_rate / 1000:g} kHz{late}")
    return [*lines, *outcome.notes, *failure_lines(outcome.rows)]


def _exhibit(folder: Path, outcome: Outcome, clip: ManifestEntry) -> Section:
    rows = [row for row in outcome.rows if row.path == clip.name and not row.error]
    # The clip may have been deleted since it was measured; its artifacts are still there.
    source = clip.path if clip.path.is_file() else version_file(folder, clip)
    if not rows or not source.is_file():
        reason = "was deleted, and its sound was not stored" if rows else "failed"
        return Section(clip.name, html=f'<p class="note">This clip {reason}.</p>')
    audio, rate = beginning(source, _MOST_SECONDS)
    said = f" · “{clip.text}”" if clip.text else ""
    note = escape(f"{clip.domain}, {describe(audio, rate)}{said}")
    files = [version_file(folder, clip, slug(row.model, row.num_quantizers)) for row in rows]
    versions = [
        _version(file, row) for file, row in zip(files, rows, strict=True) if file.is_file()
    ]
    cards = exhibit_html(original_version(audio, rate), versions)
    return Section(clip.name, html=f'<p class="note">{note}</p>\n{cards}')


def _version(file: Path, row: Row) -> Version:
    audio, rate = beginning(file, _MOST_SECONDS)
    count = "" if row.num_quantizers is None else f", {quantizers(row.num_quantizers)}"
    note = f"understood as “{row.transcript}”" if row.transcript else ""
    return Version(f"{row.model}{count}", row.actual_kbps, audio, rate, row.metrics, note)
