"""Models that judge sound, by name: recognisers, speaker models, opinion models.

Owns the names; a judge is a function of (samples, sampling rate), mono at 16 kHz. They come from
a folder or the hub (through transformers, safetensors only), from this package, from pocketsphinx,
or from a function of the user's (MODULE:FUNCTION).
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from .plugins import call_function, is_function_name
from .sphinx import pocketsphinx_recogniser
from .timbre import timbre

Embed = Callable[[np.ndarray, int], np.ndarray]
Rate = Callable[[np.ndarray, int], float]
Recognise = Callable[[np.ndarray, int], str]


def load_recogniser(name: str, option: str = "--recogniser") -> Recognise | None:
    """The recogniser of a name; None for "".

    Args:
        name: "pocketsphinx" (general English), "pocketsphinx:TEXTS" (only the words of a text
            file), "cat:FOLDER" or "cat:FOLDER@CODEC" (a CAT-ASR model on codes of a codec; the
            bundled one by default), a folder or "hf:NAME" for transformers (Whisper, ...), or
            MODULE:FUNCTION, which makes a function (samples, sampling rate) -> text.
        option: what the user wrote it after.

    Raises:
        CheckpointError: nothing usable is there.
        InputError: no such name.
        MissingDependencyError: a package is not installed.
    """
    kind, _, value = name.partition(":")
    if kind == "pocketsphinx":
        return pocketsphinx_recogniser(Path(value) if value else None)
    if kind == "cat":
        if not value:
            raise InputError(f"{option} {name!r}: expected a folder, as in cat:runs/asr/final")
        from .pretrained.cat import cat_recogniser

        recognise: Recognise = cat_recogniser(*value.partition("@")[::2])
        return recognise
    loaded: Recognise | None = _load(_plain(name), option, "recogniser")
    return loaded


def load_embedder(name: str, option: str = "--speaker-model") -> Embed | None:
    """The speaker model of a name; None for "".

    Args:
        name: "mfcc" (`timbre`, which needs no model and is no speaker verification), a folder or
            "hf:NAME" of a speaker-verification model for transformers, or MODULE:FUNCTION, which
            makes a function (samples, sampling rate) -> embedding.
        option: what the user wrote it after.

    Raises:
        See `load_recogniser`.
    """
    if name == "mfcc":
        return timbre
    loaded: Embed | None = _load(_plain(name), option, "embedder")
    return loaded


def load_rater(name: str, option: str = "--opinion-model") -> Rate | None:
    """A model of one output by folder, "hf:NAME" or MODULE:FUNCTION; None for "".

    Raises:
        See `load_recogniser`.
    """
    loaded: Rate | None = _load(_plain(name), option, "rater")
    return loaded


def cosine(one: np.ndarray, other: np.ndarray) -> float:
    """Of the angle between two embeddings; NaN where one of them is zero."""
    one, other = (np.asarray(item, np.float64).reshape(-1) for item in (one, other))
    norm = float(np.linalg.norm(one) * np.linalg.norm(other))
    return float(one @ other) / norm if norm > 0.0 else float("nan")


def _plain(name: str) -> str:
    """A folder or hub id, without the mark that says so."""
    return name.removeprefix("hf:")


def _load(name: str, option: str, kind: str) -> Any:
    if not name:
        return None
    if is_function_name(name):
        return call_function(name, option)
    from .pretrained import scorers

    return getattr(scorers, kind)(name)
