"""A run's examples as a MUSHRA page: hidden reference, low anchor, everything in random order.

Owns which sounds take part and how they get into the page; what the page does is `mushra.js`'s.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from ...audio import convert_channels, read_audio
from ...errors import InputError
from ..baselines.reference_codecs import low_pass
from ..html import page
from ..report import data_url, flac

REFERENCE, LOW_ANCHOR, MID_ANCHOR = "reference", "low anchor", "mid anchor"
# The cut-offs of BS.1534-3.
_ANCHOR_HERTZ = {LOW_ANCHOR: 3_500, MID_ANCHOR: 7_000}
# BS.1534-3: at most twelve signals, of about ten seconds.
_MOST_SIGNALS, _MOST_SECONDS = 12, 12


@dataclass(frozen=True)
class Sound:
    """One signal of a trial."""

    name: str
    audio: Float[np.ndarray, "channels samples"]
    sampling_rate: int


@dataclass(frozen=True)
class Trial:
    """A clip and what is rated against it; the hidden reference and the anchors are among it."""

    clip: str
    sounds: tuple[Sound, ...]


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
    trials = [
        _trial(clip_folder, clip, systems, mid_anchor) for clip, clip_folder in _examples(folder)
    ]
    parts = [
        {
            "clip": trial.clip,
            "sounds": [{"name": sound.name, "data": _url(sound)} for sound in trial.sounds],
        }
        for trial in trials
    ]
    digest = hashlib.sha256(json.dumps([title, parts]).encode()).hexdigest()[:16]
    return _page(title, {"test": digest, "title": title, "trials": parts})


def _url(sound: Sound) -> str:
    return data_url("audio/flac", flac(sound.audio, sound.sampling_rate)).partition(",")[2]


def _page(title: str, document: dict[str, Any]) -> str:
    assets = files(__package__)
    # In a script element "</" ends the script, and "<!--" with "<script" hides its end.
    content = json.dumps(document).replace("<", "\\u003c")
    body = f'<main id="stage"></main>\n<script type="application/json" id="test">{content}</script>'
    style = assets.joinpath("mushra.css").read_text("utf-8")
    script = assets.joinpath("mushra.js").read_text("utf-8")
    return page(escape(title), body, style, script)


def _examples(folder: Path) -> list[tuple[str, Path]]:
    """Names of clips whose sound was stored, and where."""
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
    # A clip that failed has no sound.
    stored = [
        (name, clip_folder)
        for name, clip_folder in found
        if (clip_folder / "reference.flac").is_file()
    ]
    if not stored:
        raise InputError(f"{str(folder)!r} holds no stored sound; run it again with --examples 6")
    return stored


def _trial(clip_folder: Path, clip: str, systems: Sequence[str], mid_anchor: bool) -> Trial:
    there = sorted(path.stem for path in clip_folder.glob("*.flac") if path.stem != REFERENCE)
    missing = [name for name in systems if name not in there]
    if missing:
        raise InputError(f"{clip} has no version {missing[0]!r}; it has {', '.join(there)}")
    chosen = list(systems) or there
    reference = _sound(REFERENCE, clip_folder)
    anchors = [LOW_ANCHOR, *([MID_ANCHOR] if mid_anchor else [])]
    sounds = (reference, *(_sound(name, clip_folder) for name in chosen))
    sounds += tuple(_anchor(name, reference) for name in anchors)
    if len(sounds) > _MOST_SIGNALS:
        raise InputError(
            f"{len(sounds)} signals are too many for one trial; expected at most {_MOST_SIGNALS} "
            f"with reference and anchors: choose with --system"
        )
    return Trial(clip, sounds)


def _sound(name: str, clip_folder: Path) -> Sound:
    samples, rate = read_audio(clip_folder / f"{name}.flac")
    return Sound(name, convert_channels(samples[:, : _MOST_SECONDS * rate], 1), rate)


def _anchor(name: str, reference: Sound) -> Sound:
    rate = reference.sampling_rate
    return Sound(name, low_pass(reference.audio, rate, _ANCHOR_HERTZ[name]), rate)
