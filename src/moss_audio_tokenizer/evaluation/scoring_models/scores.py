"""Scores that need a model: speaker similarity, opinion scores, word and character error rates.

Owns what is computed from the models' answers; the models are `registry`'s. Signals are mono at
16 kHz.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from ...metrics.signals import MEASURED_RATE
from ..text_normalization import error_rates, normalizer
from .registry import (
    EmbedSpeaker,
    ScoreOpinion,
    Transcribe,
    cosine,
    load_opinion_model,
    load_speaker_model,
    load_transcriber,
)


@dataclass(frozen=True)
class ScoringModelNames:
    """Names of the scoring models of a run; "" for none.

    Attributes:
        speaker_model: a name that `registry.load_speaker_model` knows.
        opinion_model: a name that `registry.load_opinion_model` knows.
        asr_model: a name that `registry.load_transcriber` knows.
        text_normalization: how texts are made comparable, one of
            `text_normalization.NORMALIZATIONS`.
    """

    speaker_model: str = ""
    opinion_model: str = ""
    asr_model: str = ""
    text_normalization: str = "plain"

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the metrics that these models bring."""
        return tuple(self.by_metric)

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
    """What the scoring models found of one clip.

    Attributes:
        values: metrics by name; NaN where undefined, as the error rate of a clip without text.
        transcript: what the ASR model understood; None without one.
        num_words: words of the text, which weigh the clip's error rate; 0 without a text.
        num_characters: likewise, for the character error rate.
    """

    values: dict[str, float]
    transcript: str | None = None
    num_words: int = 0
    num_characters: int = 0


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
        transcript = self._transcribe(estimate, MEASURED_RATE)
        normalize = normalizer(self._normalization, language)
        spoken = normalize(text)
        values |= error_rates(spoken, normalize(transcript))
        return Scores(values, transcript, len(spoken.split()), len(spoken.replace(" ", "")))

    def _embedding_of(self, reference: np.ndarray, embed: EmbedSpeaker) -> np.ndarray:
        content = reference.tobytes()
        if self._embedded is None or self._embedded[0] != content:
            self._embedded = content, embed(reference, MEASURED_RATE)
        return self._embedded[1]
