"""Listening tests after ITU-R BS.1534 (MUSHRA): the page that people rate on, and its results.

The page is one file that needs no server; what it does is `mushra.js`'s. It has a run's examples
with hidden reference and low anchor. A result is what it gives to download, a JSON file of one
listener. A listener is left out who rates the hidden reference below 90 in more than 15% of the
trials, or the mid anchor above 90 in more than 15%.
"""

import base64
import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from ..errors import EvaluationError, InputError
from .baselines import low_pass
from .exhibits import beginning, flac
from .pages import page, pipe_table
from .summary import average

REFERENCE, LOW_ANCHOR, MID_ANCHOR = "reference", "low anchor", "mid anchor"
# The cut-offs of BS.1534-3.
_ANCHOR_HERTZ = {LOW_ANCHOR: 3_500, MID_ANCHOR: 7_000}
# BS.1534-3: at most twelve signals, of about ten seconds.
_MOST_SIGNALS, _MOST_SECONDS = 12, 12


FORMAT = "moss-audio listening 1"
_NEARLY_PERFECT = 90
_MOST_SLIPS = 0.15


Sound = tuple[Float[np.ndarray, "channels samples"], int]
"""Samples and their rate."""


def build_listening_test(
    folder: Path, title: str, systems: Sequence[str] = (), mid_anchor: bool = False
) -> str:
    """The page as HTML, from the folder of an evaluation or a comparison.

    Args:
        folder: where `moss-audio compare` has left its results.
        title: shown at the top.
        systems: names of the versions to rate, as the files below ``audio`` have them; all when
            empty.
        mid_anchor: whether a low-pass at 7 kHz is rated too.

    Raises:
        InputError: the folder has no examples, a system is not there, or there are too many.
    """
    trials = []
    for clip, clip_folder in _examples(folder):
        sounds = [
            {"name": name, "data": base64.b64encode(flac(audio, rate)).decode("ascii")}
            for name, (audio, rate) in _signals(clip_folder, clip, systems, mid_anchor).items()
        ]
        trials.append({"clip": clip, "sounds": sounds})
    digest = hashlib.sha256(json.dumps([title, trials]).encode()).hexdigest()[:16]
    document = {"test": digest, "title": title, "trials": trials}
    # In a script element "</" ends the script, and "<!--" with "<script" hides its end.
    content = json.dumps(document).replace("<", "\\u003c")
    body = f'<main id="stage"></main>\n<script type="application/json" id="test">{content}</script>'
    style, script = (
        files(__package__).joinpath(f"mushra.{ending}").read_text("utf-8")
        for ending in ("css", "js")
    )
    return page(escape(title), body, style, script)


def _examples(folder: Path) -> list[tuple[str, Path]]:
    """Names of clips whose sound was stored, and where; a clip that failed has none."""
    try:
        document = json.loads((folder / "summary.json").read_text("utf-8"))
        found = [
            (str(item["path"]), folder / "audio" / str(item["folder"]))
            for item in document["examples"]
        ]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{str(folder)!r} holds no results to listen to ({error}); expected the folder of "
            "moss-audio compare"
        ) from error
    stored = [(name, path) for name, path in found if (path / f"{REFERENCE}.flac").is_file()]
    if not stored:
        raise InputError(f"{str(folder)!r} holds no stored sound; run it again with --examples 6")
    return stored


def _signals(
    clip_folder: Path, clip: str, systems: Sequence[str], mid_anchor: bool
) -> dict[str, Sound]:
    """What is rated in a trial: the hidden reference, the versions and the anchors."""
    there = sorted(path.stem for path in clip_folder.glob("*.flac") if path.stem != REFERENCE)
    missing = [name for name in systems if name not in there]
    if missing:
        raise InputError(f"{clip} has no version {missing[0]!r}; it has {', '.join(there)}")
    names = [REFERENCE, *(systems or there)]
    sounds = {name: beginning(clip_folder / f"{name}.flac", _MOST_SECONDS) for name in names}
    audio, rate = sounds[REFERENCE]
    for name in (LOW_ANCHOR, MID_ANCHOR) if mid_anchor else (LOW_ANCHOR,):
        sounds[name] = low_pass(audio, rate, _ANCHOR_HERTZ[name]), rate
    if len(sounds) > _MOST_SIGNALS:
        raise InputError(
            f"{len(sounds)} signals are too many for one trial; expected at most {_MOST_SIGNALS} "
            f"with reference and anchors: choose with --system"
        )
    return sounds


@dataclass(frozen=True)
class Session:
    """One listener's test.

    Attributes:
        test: which test it was, so that two are not mixed.
        ratings: by clip, then by system, 0 to 100.
        digest: of the file, so that one given twice does not count twice.
    """

    listener: str
    test: str
    ratings: dict[str, dict[str, float]]
    digest: str = ""


@dataclass(frozen=True)
class LeftOut:
    """Somebody whose ratings do not count, and why; several may have one name."""

    listener: str
    reason: str


@dataclass(frozen=True)
class SystemRatings:
    """Ratings of one system over all clips (clip is ""), or of one clip of it.

    The interval is half the width of the mean's 95% interval, by Student's t; None of one rating.
    Ratings are seldom normally distributed, which is why medians and quartiles stand beside.
    """

    system: str
    clip: str
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
        trials = document["trials"]
        ratings = {str(trial["clip"]): _checked(trial["ratings"]) for trial in trials}
        if not ratings or len(ratings) < len(trials):
            raise ValueError("no trials, or a clip twice")
        digest = hashlib.sha256(content).hexdigest()
        return Session(str(document["listener"]), str(document["test"]), ratings, digest)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise EvaluationError(
            f"{str(path)!r} is not a result of a listening test ({error}); expected the file that "
            "its last page gives to download"
        ) from error


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
    trials = list(session.ratings.values())
    missed = sum(trial[REFERENCE] < _NEARLY_PERFECT for trial in trials)
    if missed > _MOST_SLIPS * len(trials):
        return f"rated the hidden reference below 90 in {missed} of {len(trials)} trials"
    fooled = sum(trial.get(MID_ANCHOR, 0.0) > _NEARLY_PERFECT for trial in trials)
    if fooled > _MOST_SLIPS * len(trials):
        return f"rated the mid anchor above 90 in {fooled} of {len(trials)} trials"
    return ""


def aggregate(sessions: Sequence[Session]) -> list[SystemRatings]:
    """Each system over all clips, the best first, then each of its clips.

    Raises:
        MissingDependencyError: SciPy is not installed.
    """
    found: dict[str, dict[str, list[float]]] = {}
    for session in sessions:
        for clip, ratings in session.ratings.items():
            for system, value in ratings.items():
                found.setdefault(system, {}).setdefault(clip, []).append(value)
    systems = [
        _table(system, "", [value for values in clips.values() for value in values])
        for system, clips in found.items()
    ]
    systems.sort(key=lambda one: -one.mean)
    by_clip = [
        _table(one.system, clip, values)
        for one in systems
        for clip, values in sorted(found[one.system].items())
    ]
    return [*systems, *by_clip]


def _table(system: str, clip: str, values: Sequence[float]) -> SystemRatings:
    lower, median, upper = np.percentile(values, [25, 50, 75]).tolist()
    mean = average(values)
    return SystemRatings(system, clip, mean.mean, mean.interval, median, lower, upper, len(values))


def as_markdown(tables: Sequence[SystemRatings]) -> str:
    """A line for each system over all clips."""
    lines = []
    for one in tables:
        if one.clip:
            continue
        interval = "" if one.interval is None else f" ± {one.interval:.1f}"
        quartiles = f"{one.lower_quartile:.0f}-{one.upper_quartile:.0f}"
        mean = f"{one.mean:.1f}{interval}"
        lines.append((one.system, mean, f"{one.median:.0f}", quartiles, f"{one.num_ratings}"))
    return pipe_table(("system", "mean", "median", "quartiles", "ratings"), lines)
