"""Listening tests after ITU-R BS.1534 (MUSHRA): the page that people rate on.

The page is one file that needs no server; what it does is `mushra.js`'s. It has a run's examples
with hidden reference and low anchor. What listeners download there is `listening_results.py`'s.
"""

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from ..errors import InputError
from .baselines import low_pass
from .clip_results import Row, row_from_json, slug
from .codec_report import family
from .exhibits import beginning, flac, quantizers
from .pages import page
from .results_file import ResultsFile

REFERENCE, LOW_ANCHOR, MID_ANCHOR = "reference", "low anchor", "mid anchor"
# The cut-offs of BS.1534-3.
_ANCHOR_HERTZ = {LOW_ANCHOR: 3_500, MID_ANCHOR: 7_000}
# BS.1534-3: at most twelve signals, of about ten seconds.
_MOST_SIGNALS, _MOST_SECONDS = 12, 12


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
        EvaluationError: the rows of the folder are damaged.
        InputError: the folder has no examples, a system is not there, or there are too many.
    """
    trials, examples = [], _examples(folder)
    rows = [row for row in ResultsFile(folder, row_from_json).read() if not row.error]
    for clip, clip_folder in examples:
        own = [row for row in rows if row.path == clip]
        sounds = _signals(clip_folder, clip, systems, mid_anchor)
        trials.append(_trial(clip, own, sounds))
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


def _trial(clip: str, rows: Sequence[Row], sounds: Mapping[str, Sound]) -> dict[str, Any]:
    """What the page knows of one clip: its sounds, and the codec and bitrate of each."""
    coded = {slug(row.model, row.num_quantizers): row for row in rows}
    return {
        "clip": clip,
        "domain": rows[0].domain if rows else "",
        "sounds": [
            {"name": name, "data": base64.b64encode(flac(audio, rate)).decode("ascii")}
            for name, (audio, rate) in sounds.items()
        ],
        "systems": {name: _system(coded[name]) for name in sounds if name in coded},
    }


def _system(row: Row) -> dict[str, Any]:
    """What a listener's file says of a version, for the figure of scores by bitrate."""
    count = "" if row.num_quantizers is None else f", {quantizers(row.num_quantizers)}"
    return {
        "label": f"{row.model}{count}",
        "codec": family(row.model),
        "kbps": row.actual_kbps,
    }


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
