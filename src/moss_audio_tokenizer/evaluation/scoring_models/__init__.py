"""Scoring models by name, and the scores of a clip: similarity, opinion, error rates.

A loaded model is a function of (samples, sampling rate), mono at 16 kHz. It comes from a Python
package, from a folder or the hub (through transformers, safetensors only), from this package, or
from a function of the user's (MODULE:FUNCTION).
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from ...errors import InputError
from ...metrics.signals import MEASURED_RATE, mfcc_statistics
from ..loading import call_function, is_function_name, is_installed
from ..text_normalization import Transcript, compare, normalizer
from .package_models import dnsmos_rater, resemblyzer_embedder, whisper_transcriber
from .pocketsphinx import pocketsphinx_transcriber

EmbedSpeaker = Callable[[np.ndarray, int], np.ndarray]
ScoreOpinion = Callable[[np.ndarray, int], float]
Transcribe = Callable[[np.ndarray, int], str]

# What can stand behind a name, and what loads the model from it.
_Known = dict[str, tuple[str, Callable[[str], Any]]]


def load_transcriber(name: str) -> Transcribe | None:
    """The ASR model of a name such as "whisper:base" or "cat:FOLDER"; None for "".

    As for speaker and opinion models, MODULE:FUNCTION makes the function.

    Raises:
        CheckpointError: nothing usable is there.
        InputError: the name is unknown.
        MissingDependencyError: a package is not installed.
    """
    return _load(name, "--asr-model", _ASR_MODELS, "transcriber")


def load_speaker_model(name: str) -> EmbedSpeaker | None:
    """The speaker model of a name such as "resemblyzer"; raises as `load_transcriber`."""
    return _load(name, "--speaker-model", _SPEAKER_MODELS, "embedder")


def load_opinion_model(name: str) -> ScoreOpinion | None:
    """The opinion model of a name such as "dnsmos"; raises as `load_transcriber`."""
    return _load(name, "--opinion-model", _OPINION_MODELS, "rater")


def _load(name: str, option: str, known: _Known, of_transformers: str) -> Any:
    kind, _, value = name.partition(":")
    if not name:
        return None
    if kind in known:
        usage, load = known[kind]
        if usage.startswith(":") and not value:
            raise InputError(f"{option} {name!r}: expected a folder, as in {kind}:models/{kind}")
        if value and not usage:
            raise InputError(f"{option} {name!r}: got {value!r}, but {kind} takes no value")
        return load(value)
    if is_function_name(name) and kind != "hf":
        return call_function(name, option)
    if kind != "hf" and "/" not in name and not Path(name).is_dir():
        names = [f"{one}{usage}" for one, (usage, _) in known.items()]
        names += ["hf:NAME or FOLDER", "MODULE:FUNCTION[@VALUE]"]
        raise InputError(f"{option} {name!r} is unknown; expected {', '.join(names)}")
    return _torch_model(of_transformers, name.removeprefix("hf:"))


def _cat_transcriber(value: str) -> Transcribe:
    """A CAT-ASR model behind a codec (by default the bundled one): samples to text.

    A model with frame scores (CTC) is decoded by them: no guesses from the words before.
    """
    from ...asr import Transcriber

    name, _, codec = value.partition("@")
    transcriber = Transcriber.from_pretrained(name, codec or "bundled")
    num_quantizers = transcriber.model.facts.num_quantizers
    facts = transcriber.model.facts
    beams = 0 if facts.has_frame_scores and facts.has_language_model else None

    def transcribe(samples: np.ndarray, sampling_rate: int) -> str:
        clip = np.asarray(samples, np.float32), sampling_rate
        return transcriber.transcribe([clip], num_quantizers, beams)[0]

    return transcribe


def _torch_model(loader: str, path: str) -> Any:
    from . import torch_models

    return getattr(torch_models, loader)(path)


_ASR_MODELS: _Known = {
    "whisper": ("[:SIZE|FOLDER][@LANGUAGE]", whisper_transcriber),
    "pocketsphinx": ("[:TEXTS]", pocketsphinx_transcriber),
    "cat": (":FOLDER[@CODEC]", _cat_transcriber),
}
_SPEAKER_MODELS: _Known = {
    "resemblyzer": ("", lambda _: resemblyzer_embedder()),
    "wavlm": (":FOLDER", partial(_torch_model, "wavlm_embedder")),
    "mfcc": ("", lambda _: mfcc_statistics),
}
_OPINION_MODELS: _Known = {
    "dnsmos": ("", lambda _: dnsmos_rater()),
    "utmos": (":FOLDER", partial(_torch_model, "utmos_rater")),
}


def default_speaker_model() -> str:
    """The speaker model that is used where none is named: resemblyzer if installed, else none."""
    return "resemblyzer" if is_installed("resemblyzer") else ""


def cosine(one: np.ndarray, other: np.ndarray) -> float:
    """Cosine of the angle between two embeddings; NaN where one of them is zero."""
    one, other = (np.asarray(item, np.float64).reshape(-1) for item in (one, other))
    norm = float(np.linalg.norm(one) * np.linalg.norm(other))
    return float(one @ other) / norm if norm > 0.0 else float("nan")


@dataclass(frozen=True)
class ScoringModelNames:
    """Names of the scoring models of a run, "" for none; how texts are made comparable."""

    speaker_model: str = ""
    opinion_model: str = ""
    asr_model: str = ""
    text_normalization: str = "plain"

    @property
    def by_metric(self) -> dict[str, str]:
        """The model that brings each of these metrics, with the normalization of its texts."""
        plain = self.text_normalization == "plain"
        texts = self.asr_model if plain else f"{self.asr_model} ({self.text_normalization} texts)"
        brought = {
            "speaker_similarity": self.speaker_model,
            "opinion_score": self.opinion_model,
            "wer": texts if self.asr_model else "",
            "cer": texts if self.asr_model else "",
        }
        return {name: model for name, model in brought.items() if model}


@dataclass(frozen=True)
class Scores:
    """What the scoring models found of one clip: metrics by name, NaN where undefined.

    The transcript is what the ASR model understood; None without one.
    """

    values: dict[str, float]
    transcript: Transcript | None = None


class ScoringModels:
    """Loaded scoring models.

    Raises:
        InputError: a name stands for no function or normalization.
        MissingDependencyError: a package is not installed.
    """

    def __init__(self, names: ScoringModelNames) -> None:
        self._embed: EmbedSpeaker | None = load_speaker_model(names.speaker_model)
        self._rate: ScoreOpinion | None = load_opinion_model(names.opinion_model)
        self._transcribe: Transcribe | None = load_transcriber(names.asr_model)
        self._normalization = names.text_normalization
        normalizer(self._normalization)  # refuse an unknown one before the work
        # A clip's original is embedded once, though it is compared with every codec's version.
        self._embedded: tuple[bytes, np.ndarray] | None = None

    def score(
        self,
        reference: Float[np.ndarray, "samples"],
        estimate: Float[np.ndarray, "samples"],
        text: str,
        language: str = "",
    ) -> Scores:
        """All scores of a clip whose text is ``text`` ("" where that is not known)."""
        values = {}
        if self._embed:
            embedding = self._embedding_of(reference, self._embed)
            values["speaker_similarity"] = cosine(embedding, self._embed(estimate, MEASURED_RATE))
        if self._rate:
            values["opinion_score"] = float(self._rate(estimate, MEASURED_RATE))
        if not self._transcribe:
            return Scores(values)
        found = self._transcribe(estimate, MEASURED_RATE)
        transcript = compare(text, found, normalizer(self._normalization, language))
        values |= {"wer": transcript.wer, "cer": transcript.cer}
        return Scores(values, transcript)

    def _embedding_of(self, reference: np.ndarray, embed: EmbedSpeaker) -> np.ndarray:
        content = reference.tobytes()
        if self._embedded is None or self._embedded[0] != content:
            self._embedded = content, embed(reference, MEASURED_RATE)
        return self._embedded[1]
