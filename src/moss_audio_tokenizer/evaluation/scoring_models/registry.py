"""Models that judge sound, by name: recognisers, speaker models, opinion models.

Owns the names; a judge is a function of (samples, sampling rate), mono at 16 kHz. They come from
a folder or the hub (through transformers, safetensors only), from this package, from pocketsphinx,
or from a function of the user's (MODULE:FUNCTION).
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import InputError
from ...metrics.mfcc import mfcc_statistics
from ..plugins import call_function, is_function_name
from .pocketsphinx import pocketsphinx_transcriber

EmbedSpeaker = Callable[[np.ndarray, int], np.ndarray]
ScoreOpinion = Callable[[np.ndarray, int], float]
Transcribe = Callable[[np.ndarray, int], str]


def load_transcriber(name: str, option: str = "--recogniser") -> Transcribe | None:
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
        return pocketsphinx_transcriber(Path(value) if value else None)
    if kind == "cat":
        if not value:
            raise InputError(f"{option} {name!r}: expected a folder, as in cat:runs/asr/final")
        return _cat_transcriber(*value.partition("@")[::2])
    loaded: Transcribe | None = _load(_plain(name), option, "recogniser")
    return loaded


def load_speaker_model(name: str, option: str = "--speaker-model") -> EmbedSpeaker | None:
    """The speaker model of a name; None for "".

    Args:
        name: "mfcc" (`mfcc_statistics`: no model, no speaker verification), a folder or "hf:NAME"
            of a speaker-verification model for transformers, or MODULE:FUNCTION, which makes a
            function (samples, sampling rate) -> embedding.
        option: what the user wrote it after.

    Raises:
        See `load_transcriber`.
    """
    if name == "mfcc":
        return mfcc_statistics
    loaded: EmbedSpeaker | None = _load(_plain(name), option, "embedder")
    return loaded


def load_opinion_model(name: str, option: str = "--opinion-model") -> ScoreOpinion | None:
    """A model of one output by folder, "hf:NAME" or MODULE:FUNCTION; None for "".

    Raises:
        See `load_transcriber`.
    """
    loaded: ScoreOpinion | None = _load(_plain(name), option, "rater")
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
    from . import transformers_models

    return getattr(transformers_models, kind)(name)


def _cat_transcriber(name: str, codec: str = "") -> Transcribe:
    """A CAT-ASR model behind a codec (by default the bundled one): samples to text.

    A model with frame scores (CTC) is decoded by them: no guesses from the words before.
    """
    from ...asr import Transcriber

    transcriber = Transcriber.from_pretrained(name, codec or "bundled")
    num_quantizers = transcriber.model.facts.num_quantizers
    beams = 0 if transcriber.model.facts.has_frame_scores else 1

    def transcribe(samples: np.ndarray, sampling_rate: int) -> str:
        clip = np.asarray(samples, np.float32), sampling_rate
        return transcriber.transcribe([clip], num_quantizers, beams)[0]

    return transcribe
