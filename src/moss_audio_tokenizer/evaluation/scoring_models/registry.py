"""Registry of scoring models by name: ASR models, speaker models, opinion models.

A loaded model is a function of (samples, sampling rate), mono at 16 kHz. It comes from a Python
package, from a folder or the hub (through transformers, safetensors only), from this package, or
from a function of the user's (MODULE:FUNCTION).
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import InputError
from ...metrics.signals import mfcc_statistics
from ..plugins import call_function, is_function_name
from .package_models import (
    dnsmos_rater,
    is_installed,
    resemblyzer_embedder,
    whisper_transcriber,
)
from .pocketsphinx import pocketsphinx_transcriber

EmbedSpeaker = Callable[[np.ndarray, int], np.ndarray]
ScoreOpinion = Callable[[np.ndarray, int], float]
Transcribe = Callable[[np.ndarray, int], str]

ASR_MODELS = {
    "whisper[:SIZE|FOLDER]": "Whisper by faster-whisper; large-v3 where nothing is named (judges)",
    "pocketsphinx[:TEXTS]": "pocketsphinx, general English or the words of a text file",
    "cat:FOLDER[@CODEC]": "a CAT-ASR model of this package",
    "hf:NAME or FOLDER": "a speech recognition model of transformers (torch)",
    "MODULE:FUNCTION[@VALUE]": "a function of yours",
}
SPEAKER_MODELS = {
    "resemblyzer": "Resemblyzer, its weights are in the package (judges)",
    "wavlm:FOLDER": "WavLM-large speaker verification, the paper's, converted to safetensors",
    "hf:NAME or FOLDER": "an x-vector model of transformers (torch)",
    "mfcc": "no model: compares mean mel cepstra",
    "MODULE:FUNCTION[@VALUE]": "a function of yours",
}
OPINION_MODELS = {
    "dnsmos": "DNSMOS P.835, overall quality, its weights are in the package (judges)",
    "utmos:FOLDER": "UTMOS22 (strong learner), converted to safetensors",
    "hf:NAME or FOLDER": "a model of transformers with one output (torch)",
    "MODULE:FUNCTION[@VALUE]": "a function of yours",
}
"""Which names there are, for people."""


def load_transcriber(name: str, option: str = "--asr-model") -> Transcribe | None:
    """The ASR model of a name in `ASR_MODELS`; None for "".

    Args:
        name: as the user gave it; MODULE:FUNCTION makes a function (samples, sampling rate) ->
            text.
        option: the option that the user wrote it after, for messages.

    Raises:
        CheckpointError: nothing usable is there.
        InputError: the name is unknown.
        MissingDependencyError: a package is not installed.
    """
    kind, _, value = name.partition(":")
    if kind == "whisper":
        return whisper_transcriber(value)
    if kind == "pocketsphinx":
        return pocketsphinx_transcriber(Path(value) if value else None)
    if kind == "cat":
        if not value:
            raise InputError(f"{option} {name!r}: expected a folder, as in cat:runs/asr/final")
        return _cat_transcriber(*value.partition("@")[::2])
    loaded: Transcribe | None = _load(name, option, "transcriber", ASR_MODELS)
    return loaded


def load_speaker_model(name: str, option: str = "--speaker-model") -> EmbedSpeaker | None:
    """The speaker model of a name in `SPEAKER_MODELS`; None for "".

    Args:
        name: as the user gave it; MODULE:FUNCTION makes a function (samples, sampling rate) ->
            embedding.
        option: the option that the user wrote it after, for messages.

    Raises:
        CheckpointError: nothing usable is there.
        InputError: the name is unknown.
        MissingDependencyError: a package is not installed.
    """
    kind, _, value = name.partition(":")
    if name == "mfcc":
        return mfcc_statistics
    if name == "resemblyzer":
        return resemblyzer_embedder()
    if kind == "wavlm":
        from .converted_models import wavlm_embedder

        return wavlm_embedder(_folder(name, value, option))
    loaded: EmbedSpeaker | None = _load(name, option, "embedder", SPEAKER_MODELS)
    return loaded


def load_opinion_model(name: str, option: str = "--opinion-model") -> ScoreOpinion | None:
    """The opinion model of a name in `OPINION_MODELS`; None for "".

    Args:
        name: as the user gave it; MODULE:FUNCTION makes a function (samples, sampling rate) ->
            score.
        option: the option that the user wrote it after, for messages.

    Raises:
        CheckpointError: nothing usable is there.
        InputError: the name is unknown.
        MissingDependencyError: a package is not installed.
    """
    kind, _, value = name.partition(":")
    if name == "dnsmos":
        return dnsmos_rater()
    if kind == "utmos":
        from .converted_models import utmos_rater

        return utmos_rater(_folder(name, value, option))
    loaded: ScoreOpinion | None = _load(name, option, "rater", OPINION_MODELS)
    return loaded


def default_speaker_model() -> str:
    """The speaker model that is used where none is named: resemblyzer if installed, else none."""
    return "resemblyzer" if is_installed("resemblyzer") else ""


def cosine(one: np.ndarray, other: np.ndarray) -> float:
    """Cosine of the angle between two embeddings; NaN where one of them is zero."""
    one, other = (np.asarray(item, np.float64).reshape(-1) for item in (one, other))
    norm = float(np.linalg.norm(one) * np.linalg.norm(other))
    return float(one @ other) / norm if norm > 0.0 else float("nan")


def _folder(name: str, value: str, option: str) -> Path:
    if not value:
        kind = name.partition(":")[0]
        raise InputError(f"{option} {name!r}: expected a folder, as in {kind}:models/{kind}")
    return Path(value)


def _load(name: str, option: str, kind: str, known: dict[str, str]) -> Any:
    """A model of transformers, or of a function of the user's."""
    if not name:
        return None
    if is_function_name(name) and not name.startswith("hf:"):
        return call_function(name, option)
    from . import transformers_models

    if not name.startswith("hf:") and "/" not in name and not Path(name).is_dir():
        raise InputError(f"{option} {name!r} is unknown; expected {', '.join(known)}")
    return getattr(transformers_models, kind)(name.removeprefix("hf:"))


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
