"""Scores that need a model of the user's: speaker similarity, opinion scores, word error rates.

Owns what is made of the models' answers; the models are `judges.py`'s. Signals are mono at
16 kHz.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from ..metrics.signals import MEASURED_RATE
from .judges import Embed, Rate, Recognise, cosine, load_embedder, load_rater, load_recogniser
from .normalising import error_rates, normalised


@dataclass(frozen=True)
class ScorerNames:
    """Which models to score with; "" for none.

    Attributes:
        speaker_model: a folder with a speaker-verification model, "mfcc", or MODULE:FUNCTION,
            which makes a function (samples, sampling rate) -> embedding.
        opinion_model: a folder with a model of one output, or MODULE:FUNCTION, which makes a
            function (samples, sampling rate) -> score.
        recogniser: a name that `judges.load_recogniser` knows, or MODULE:FUNCTION, which makes
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
        heard: what the recogniser understood, or None without one.
        num_words: words of the text, which weigh the clip's error rate; 0 without a text.
        num_characters: likewise, for the character error rate.
    """

    values: dict[str, float]
    heard: str | None = None
    num_words: int = 0
    num_characters: int = 0


class Scorers:
    """Loaded models.

    Raises:
        InputError: there is no such function.
        MissingDependencyError: a package is not installed.
    """

    def __init__(self, names: ScorerNames) -> None:
        self._embed: Embed | None = load_embedder(names.speaker_model)
        self._rate: Rate | None = load_rater(names.opinion_model)
        self._recognise: Recognise | None = load_recogniser(names.recogniser)
        # The reference's voice is asked for once for each contender, one clip after the other.
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
        heard = self._recognise(estimate, MEASURED_RATE)
        said = normalised(text)
        values |= error_rates(said, normalised(heard))
        return Scores(values, heard, len(said.split()), len(said.replace(" ", "")))

    def _voice_of(self, reference: np.ndarray, embed: Embed) -> np.ndarray:
        content = reference.tobytes()
        if self._voice is None or self._voice[0] != content:
            self._voice = content, embed(reference, MEASURED_RATE)
        return self._voice[1]
