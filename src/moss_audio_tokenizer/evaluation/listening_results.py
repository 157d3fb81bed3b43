"""Results of listening tests: who counts, mean scores, and the paper's Figure 7 from them.

Owns the files that the page of `mushra.py` gives to download, one of each listener, and what is
made of them. A listener is left out who rates the hidden reference below 90 in more than 15% of the
trials, or the mid anchor above 90 in more than 15% (ITU-R BS.1534-3).
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import EvaluationError
from .clip_results import slug
from .codec_report import RATE_TICKS
from .mushra import LOW_ANCHOR, MID_ANCHOR, REFERENCE
from .pages import Figure, Report, Section, Table
from .pictures import Curve, draw_figure
from .results_file import RESULTS, as_number, as_text
from .summary import average, domain_heading, speech_first

FORMAT = "moss-audio listening 1"
_NEARLY_PERFECT = 90
_MOST_SLIPS = 0.15
# What is drawn over the whole width, for it has no bitrate.
_HELPERS = {
    REFERENCE: "hidden reference",
    MID_ANCHOR: "mid anchor (7 kHz)",
    LOW_ANCHOR: "low anchor (3.5 kHz)",
}
_CAPTION = (
    "Scores from 0 (bad) to 100 (no difference from the reference): means over listeners and clips "
    "with 95% intervals (Student's t), medians and quartiles. Kbps: bits of the coded clips over "
    "their length, without containers."
)


@dataclass(frozen=True)
class Rated:
    """A version of a clip: its name for readers, the codec whose curve it is on, its bitrate."""

    label: str
    codec: str
    kbps: float


@dataclass(frozen=True)
class Trial:
    """One clip: its domain ("speech", ...; "" if unknown) and a listener's ratings by system.

    Attributes:
        ratings: 0 to 100, by the system's file name.
        systems: of those ratings that are a codec's.
    """

    domain: str
    ratings: Mapping[str, float]
    systems: Mapping[str, Rated] = field(default_factory=dict)


@dataclass(frozen=True)
class Session:
    """One listener's test.

    Attributes:
        test: which test it was, so that two are not mixed.
        trials: by clip.
        digest: of the file, so that one given twice does not count twice.
    """

    listener: str
    test: str
    trials: Mapping[str, Trial]
    digest: str = ""


@dataclass(frozen=True)
class LeftOut:
    """A listener whose ratings do not count, and why; several may have one name."""

    listener: str
    reason: str


@dataclass(frozen=True)
class SystemRatings:
    """Ratings of one system over all clips of a domain (clip is ""), or of one clip of it.

    The interval is half the width of the mean's 95% interval, by Student's t; None of one rating.
    Ratings are seldom normally distributed, which is why medians and quartiles stand beside.

    Attributes:
        system: file name of the version.
        label: its name for readers.
        codec: name of its curve; "" for reference and anchors.
        kbps: mean over the clips; None for reference and anchors, and in files of old pages.
    """

    domain: str
    system: str
    clip: str
    label: str
    codec: str
    kbps: float | None
    mean: float
    interval: float | None
    median: float
    lower_quartile: float
    upper_quartile: float
    num_ratings: int


def read_session(path: Path) -> Session:
    """The results that a listener has downloaded.

    Raises:
        EvaluationError: the file is missing or does not hold results.
    """
    try:
        content = path.read_bytes()
        document = json.loads(content.decode())
        if document["format"] != FORMAT:
            raise ValueError(f"format {document['format']!r}")
        trials = {str(item["clip"]): _trial(item) for item in document["trials"]}
        if not trials or len(trials) < len(document["trials"]):
            raise ValueError("no trials, or a clip twice")
        digest = hashlib.sha256(content).hexdigest()
        return Session(str(document["listener"]), str(document["test"]), trials, digest)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise EvaluationError(
            f"{str(path)!r} is not a result of a listening test ({error}); expected the file that "
            "its last page gives to download"
        ) from error


def _trial(item: Mapping[str, Any]) -> Trial:
    ratings = _checked(item["ratings"])
    # Pages of older versions say neither domain nor bitrates.
    systems = {
        str(name): Rated(as_text(one["label"]), as_text(one["codec"]), _bitrate(one["kbps"]))
        for name, one in item.get("systems", {}).items()
    }
    return Trial(as_text(item.get("domain", "")), ratings, systems)


def _bitrate(value: Any) -> float:
    if as_number(value) <= 0:
        raise ValueError(f"{value!r} where a bitrate was expected")
    return float(value)


def _checked(ratings: dict[str, Any]) -> dict[str, float]:
    for name, value in ratings.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 100:
            raise ValueError(f"{name!r} is rated {value!r}")
    if REFERENCE not in ratings:
        raise ValueError("no rating of the hidden reference")
    if len(ratings) == 1:
        raise ValueError("a rating of the hidden reference alone")
    return {str(name): float(value) for name, value in ratings.items()}


def screen(sessions: Iterable[Session]) -> tuple[list[Session], list[LeftOut]]:
    """The sessions that count, and why each of the others does not; a copy of one is left out.

    Raises:
        EvaluationError: the sessions are of several tests.
    """
    accepted: list[Session] = []
    left_out: list[LeftOut] = []
    seen: set[str] = set()
    sessions = list(sessions)
    tests = sorted({session.test for session in sessions})
    if len(tests) > 1:
        raise EvaluationError(
            f"results of {len(tests)} tests ({', '.join(tests)}); give those of one"
        )
    for session in sessions:
        fault = "gave this file before" if session.digest in seen else _fault(session)
        seen |= {session.digest} - {""}
        if fault:
            left_out.append(LeftOut(session.listener, fault))
        else:
            accepted.append(session)
    return accepted, left_out


def _fault(session: Session) -> str:
    trials = [trial.ratings for trial in session.trials.values()]
    missed = sum(ratings[REFERENCE] < _NEARLY_PERFECT for ratings in trials)
    if missed > _MOST_SLIPS * len(trials):
        return f"rated the hidden reference below 90 in {missed} of {len(trials)} trials"
    fooled = sum(ratings.get(MID_ANCHOR, 0.0) > _NEARLY_PERFECT for ratings in trials)
    if fooled > _MOST_SLIPS * len(trials):
        return f"rated the mid anchor above 90 in {fooled} of {len(trials)} trials"
    return ""


def aggregate(sessions: Sequence[Session]) -> list[SystemRatings]:
    """By domain: each system over all clips, the best first, then each of its clips.

    Raises:
        MissingDependencyError: SciPy is not installed.
    """
    trials = [item for session in sessions for item in session.trials.items()]
    domains = speech_first(trial.domain for _, trial in trials)
    return [
        one
        for domain in domains
        for one in _of_domain(domain, [item for item in trials if item[1].domain == domain])
    ]


def _of_domain(domain: str, trials: Sequence[tuple[str, Trial]]) -> list[SystemRatings]:
    found: dict[str, dict[str, list[float]]] = {}
    rated: dict[str, dict[str, Rated]] = {}
    for clip, trial in trials:
        for system, value in trial.ratings.items():
            found.setdefault(system, {}).setdefault(clip, []).append(value)
            if system in trial.systems:
                rated.setdefault(system, {})[clip] = trial.systems[system]

    def ratings(system: str, clip: str, clips: Iterable[str]) -> SystemRatings:
        values = [value for one in clips for value in found[system][one]]
        versions = [one for name, one in rated.get(system, {}).items() if name in clips]
        return _ratings(domain, system, clip, versions, values)

    systems = [ratings(system, "", list(clips)) for system, clips in found.items()]
    systems.sort(key=lambda one: -one.mean)
    by_clip = [
        ratings(one.system, clip, [clip]) for one in systems for clip in sorted(found[one.system])
    ]
    return [*systems, *by_clip]


def _ratings(
    domain: str, system: str, clip: str, versions: Sequence[Rated], values: Sequence[float]
) -> SystemRatings:
    lower, median, upper = np.percentile(values, [25, 50, 75]).tolist()
    mean = average(values)
    label, codec = _HELPERS.get(system, system), ""
    if versions:
        label, codec = versions[0].label, versions[0].codec
    return SystemRatings(
        *(domain, system, clip, label, codec),
        kbps=float(np.mean([one.kbps for one in versions])) if versions else None,
        mean=mean.mean,
        interval=mean.interval,
        median=median,
        lower_quartile=lower,
        upper_quartile=upper,
        num_ratings=len(values),
    )


def listening_report(
    accepted: Sequence[Session],
    left_out: Sequence[LeftOut],
    tables: Sequence[SystemRatings],
    command: str,
) -> Report:
    """Tables and figures of the scores, for each domain its own.

    Args:
        accepted: listeners who count.
        left_out: listeners who do not.
        tables: `aggregate` of the accepted ones.
        command: that made it, to be shown.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    overall = [one for one in tables if not one.clip]
    domains = list(dict.fromkeys(one.domain for one in overall))
    sections = [
        _section(domain, [one for one in overall if one.domain == domain], _codecs(overall))
        for domain in domains
    ]
    if left_out:
        lines = [f"{one.listener}: {one.reason}" for one in left_out]
        sections.append(Section("Listeners left out", lines=lines))
    clips = len({one.clip for one in tables} - {""})
    scope = f"{len(accepted)} of {len(accepted) + len(left_out)} listeners, {clips} clips"
    return Report("Listening test", command, scope, sections)


def _codecs(overall: Sequence[SystemRatings]) -> list[str]:
    return sorted({one.codec for one in overall} - {""})


def _section(domain: str, systems: Sequence[SystemRatings], codecs: Sequence[str]) -> Section:
    rows = [_cells(one) for one in systems]
    heads = ("system", "kbps", "mean score", "median", "quartiles", "ratings")
    figure = _figure(domain, systems, codecs)
    return Section(
        domain_heading(domain) or "All clips",
        Table(heads, rows, _CAPTION),
        [figure] if figure else [],
    )


def _cells(one: SystemRatings) -> list[str]:
    interval = "" if one.interval is None else f" ± {one.interval:.1f}"
    kbps = "-" if one.kbps is None else f"{one.kbps:.2f}"
    quartiles = f"{one.lower_quartile:.0f}-{one.upper_quartile:.0f}"
    mean = f"{one.mean:.1f}{interval}"
    return [one.label, kbps, mean, f"{one.median:.0f}", quartiles, f"{one.num_ratings}"]


def _figure(domain: str, systems: Sequence[SystemRatings], codecs: Sequence[str]) -> Figure | None:
    """Score by bitrate, a line for each codec; a codec keeps its color in every figure."""
    curves = []
    for codec in codecs:
        points = sorted(
            (one.kbps, one.mean, one.interval or 0.0)
            for one in systems
            if one.codec == codec and one.kbps is not None
        )
        curves += [Curve(codec, points, codecs.index(codec))] if points else []
    rates = [kbps for curve in curves for kbps, _, _ in curve.points]
    if not rates:
        return None
    for name, label in _HELPERS.items():
        for one in systems:
            if one.system == name:
                ends = [(rate, one.mean, 0.0) for rate in (min(rates), max(rates))]
                curves.append(Curve(label, ends, is_faint=name != REFERENCE))
    of = f", {domain}" if domain else ""
    return draw_figure(
        f"{slug(domain) if domain else 'all'}-score",
        f"Listening test{of}: mean score (higher is better)",
        "kilobits a second, as coded",
        curves,
        RATE_TICKS,
        (0, 100),
    )


def results_document(
    accepted: Sequence[Session], left_out: Sequence[LeftOut], tables: Sequence[SystemRatings]
) -> dict[str, Any]:
    """Everything as JSON has it."""
    return {
        "listeners": [one.listener for one in accepted],
        "left_out": [asdict(one) for one in left_out],
        "systems": [asdict(one) for one in tables],
    }


def write_report(folder: Path, report: Report, document: Mapping[str, Any]) -> None:
    """Write report.html, summary.md, summary.json (the document) and the plots.

    Raises:
        EvaluationError: the folder is that of a comparison, whose report would be lost.
    """
    if (folder / RESULTS).exists():
        raise EvaluationError(f"{str(folder)!r} holds a comparison; name another -o")
    folder.mkdir(parents=True, exist_ok=True)
    report.write(folder, document)
