"""Scores that need a model of the user's: speaker similarity, opinion scores, word error rates.

Owns what is made of the models' answers; the models are `judges.py`'s. Signals are mono at
16 kHz.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from ...metrics.signals import MEASURED_RATE
from ..text_normalization import error_rates, normalized
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
    """Which models to score with; "" for none.

    Attributes:
        speaker_model: a folder with a speaker-verification model, "mfcc", or MODULE:FUNCTION,
            which makes a function (samples, sampling rate) -> embedding.
        opinion_model: a folder with a model of one output, or MODULE:FUNCTION, which makes a
            function (samples, sampling rate) -> score.
        recogniser: a name that `judges.load_transcriber` knows, or MODULE:FUNCTION, which makes
            a function (samples, sampling rate) -> text.
    """

    speaker_model: str = ""
    opinion_model: str = ""
    recogniser: str = ""

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the metrics that these models bring."""
        return tuple(self.by_metric)

    @property
    def by_metric(self) -> dict[str, str]:
        """The model that brings each of these metrics."""
        brought = {
            "speaker_similarity": self.speaker_model,
            "opinion_score": self.opinion_model,
            "wer": self.recogniser,
            "cer": self.recogniser,
        }
        return {name: model for name, model in brought.items() if model}


@dataclass(frozen=True)
class Scores:
    """What scorers found of one clip.

    Attributes:
        values: metrics by name; NaN where undefined, as the error rate of a clip without text.
        transcript: what the recogniser understood, or None without one.
        num_words: words of the text, which weigh the clip's error rate; 0 without a text.
        num_characters: likewise, for the character error rate.
    """

    values: dict[str, float]
    transcript: str | None = None
    num_words: int = 0
    num_characters: int = 0


class ScoringModels:
    """Loaded models.

    Raises:
        InputError: there is no such function.
        MissingDependencyError: a package is not installed.
    """

    def __init__(self, names: ScoringModelNames) -> None:
        self._embed: EmbedSpeaker | None = load_speaker_model(names.speaker_model)
        self._rate: ScoreOpinion | None = load_opinion_model(names.opinion_model)
        self._recognise: Transcribe | None = load_transcriber(names.recogniser)
        # The reference's voice is asked for once for each codec, one clip after the other.
        self._voice: tuple[bytes, np.ndarray] | None = None

    def score(
        self,
        reference: Float[np.ndarray, "samples"],
        estimate: Float[np.ndarray, "samples"],
        text: str,
    ) -> Scores:
        """All scores of a clip in which ``text`` is said ("" where that is not known)."""
        values = {}
        if self._embed:
            voice = self._voice_of(reference, self._embed)
            values["speaker_similarity"] = cosine(voice, self._embed(estimate, MEASURED_RATE))
        if self._rate:
            values["opinion_score"] = float(self._rate(estimate, MEASURED_RATE))
        if not self._recognise:
            return Scores(values)
        transcript = self._recognise(estimate, MEASURED_RATE)
        said = normalized(text)
        values |= error_rates(said, normalized(transcript))
        return Scores(values, transcript, len(said.split()), len(said.replace(" ", "")))

    def _voice_of(self, reference: np.ndarray, embed: EmbedSpeaker) -> np.ndarray:
        content = reference.tobytes()
        if self._voice is None or self._voice[0] != content:
            self._voice = content, embed(reference, MEASURED_RATE)
        return self._voice[1]
