"""Scoring models that come as Python packages: Whisper, Resemblyzer and DNSMOS.

Each function loads a model and returns a function of (mono samples, sampling rate). The extra
``judges`` brings all of them; a missing one is named in one line.
"""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import CheckpointError, InputError, one_line
from ..loading import import_package

DEFAULT_WHISPER = "large-v3"
"""The Whisper that Seed-TTS-Eval and the paper's Table 3 use."""

_WHISPER_FILES = ("model.bin", "config.json", "tokenizer.json")
# Whisper reads windows of 30 s; less than 0.1 s of sound gives it nothing to read.
_SHORTEST_SECONDS = 0.1


def whisper_transcriber(name: str = "") -> Callable[[np.ndarray, int], str]:
    """Whisper by faster-whisper, greedy (beam size 1), on the CPU with int8 weights.

    Args:
        name: a size such as "base" or "large-v3", which faster-whisper fetches from the hub once,
            or a folder in CTranslate2's format; "" is "large-v3". Behind an "@" the language that
            is spoken, such as "base@en"; without it Whisper guesses one for each clip.

    Raises:
        CheckpointError: there is no such model.
        InputError: it does not know the language.
        MissingDependencyError: faster-whisper is not installed.
    """
    module = import_package("faster_whisper", "the ASR model whisper", "faster-whisper", "judges")
    source, language = _source_and_language(name)
    model = _whisper(module, source)
    if language and language not in ("en", *model.supported_languages):
        raise InputError(
            f"Whisper {source!r} does not know the language {language!r}; expected a code such as "
            "en, de or zh behind the @, or none"
        )

    def transcribe(samples: np.ndarray, sampling_rate: int) -> str:
        if len(samples) < _SHORTEST_SECONDS * sampling_rate:
            return ""
        segments, _ = model.transcribe(
            samples.astype(np.float32),
            language=language or None,
            beam_size=1,
            temperature=0.0,
            without_timestamps=True,
        )
        return " ".join(segment.text.strip() for segment in segments)

    return transcribe


def _source_and_language(name: str) -> tuple[str, str]:
    """The size or folder of a Whisper, and the language behind an "@" that is no part of a path."""
    source, sign, language = name.rpartition("@")
    if not sign or Path(name).is_dir() or "/" in language or "\\" in language:
        source, language = name, ""
    return source or DEFAULT_WHISPER, language


def _whisper(module: Any, source: str) -> Any:
    folder = Path(source)
    # Without a tokenizer of its own faster-whisper would fetch another model's, not say so.
    missing = [name for name in _WHISPER_FILES if not (folder / name).is_file()]
    if missing and (folder.is_dir() or "/" in source or "\\" in source):
        raise CheckpointError(
            f"no Whisper at {source!r}: {', '.join(missing)} is missing; expected a folder with "
            "model.bin, config.json, tokenizer.json and vocabulary.json (CTranslate2's format), "
            "or a size such as base"
        )
    try:
        return module.WhisperModel(source, device="cpu", compute_type="int8", cpu_threads=1)
    except Exception as error:  # of many types: of the hub, of CTranslate2, of its own
        raise CheckpointError(
            f"Whisper {source!r} cannot be loaded ({one_line(error, 300)}); name a folder with its "
            "files as whisper:FOLDER, or a size such as whisper:base"
        ) from error


def resemblyzer_embedder() -> Callable[[np.ndarray, int], np.ndarray]:
    """Speaker embeddings by Resemblyzer (a GE2E LSTM, its weights are in the package).

    Raises:
        MissingDependencyError: Resemblyzer, or what it imports, is not installed.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of pkg_resources and old names of SciPy
        module = import_package("resemblyzer", "the speaker model resemblyzer", extra="judges")
    encoder = module.VoiceEncoder("cpu", verbose=False)

    def embed(samples: np.ndarray, sampling_rate: int) -> np.ndarray:
        if not samples.any():
            return np.zeros(256)
        sound = module.preprocess_wav(samples.astype(np.float32), source_sr=sampling_rate)
        # All of a quiet clip may count as silence.
        return encoder.embed_utterance(sound if len(sound) else samples)

    return embed


def dnsmos_rater() -> Callable[[np.ndarray, int], float]:
    """DNSMOS (P.835, overall quality) by speechmos: an opinion score from 1 to 5.

    Raises:
        MissingDependencyError: speechmos, or what it imports, is not installed.
    """
    module = import_package("speechmos.dnsmos", "the opinion model dnsmos", extra="judges")

    def rate(samples: np.ndarray, sampling_rate: int) -> float:
        if not len(samples):
            return float("nan")
        return float(module.run(np.clip(samples, -1.0, 1.0), sampling_rate)["ovrl_mos"])

    return rate
