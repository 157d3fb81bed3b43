"""Scores that need a model of the user's: speaker similarity, opinion scores, word error rates.

Owns what is made of the models' answers; models come from a folder (through transformers,
safetensors only), from pocketsphinx, or from a function of the user's (MODULE:FUNCTION). Signals
are mono at 16 kHz.
"""

import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from ..errors import MissingDependencyError
from ..metrics.signals import MEASURED_RATE
from .plugins import call_function, is_function_name

Embed = Callable[[np.ndarray, int], np.ndarray]
Rate = Callable[[np.ndarray, int], float]
Recognise = Callable[[np.ndarray, int], str]


@dataclass(frozen=True)
class ScorerNames:
    """Which models to score with; "" for none.

    Attributes:
        speaker_model: a folder with a speaker-verification model, or MODULE:FUNCTION, which makes
            a function (samples, sampling rate) -> embedding.
        opinion_model: a folder with a model of one output, or MODULE:FUNCTION, which makes a
            function (samples, sampling rate) -> score.
        recogniser: a folder with a speech recogniser, "pocketsphinx", or MODULE:FUNCTION, which
            makes a function (samples, sampling rate) -> text.
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
        self._embed: Embed | None = _load(names.speaker_model, "--speaker-model", "embedder")
        self._rate: Rate | None = _load(names.opinion_model, "--opinion-model", "rater")
        self._recognise: Recognise | None = _load_recogniser(names.recogniser)
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
            values["speaker_similarity"] = _cosine(voice, self._embed(estimate, MEASURED_RATE))
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


def normalised(text: str) -> str:
    """Text without case and punctuation, words apart by single spaces.

    Apostrophes inside words stay; digits are not spelled out.
    """
    plain = (
        unicodedata.normalize("NFKC", text)
        .casefold()
        .replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")
    )
    words = re.findall(r"\w+(?:'\w+)*", plain.replace("_", " "))
    return " ".join(words)


def error_rates(said: str, heard: str) -> dict[str, float]:
    """Word and character error rates, NaN where nothing was said; characters without spaces.

    Raises:
        MissingDependencyError: jiwer is not installed.
    """
    try:
        import jiwer
    except ImportError as error:
        raise MissingDependencyError(
            "word error rates need jiwer: pip install 'moss-audio-tokenizer[eval]'"
        ) from error
    if not said:
        return {"wer": float("nan"), "cer": float("nan")}
    letters, heard_letters = said.replace(" ", ""), heard.replace(" ", "")
    return {"wer": float(jiwer.wer(said, heard)), "cer": float(jiwer.cer(letters, heard_letters))}


def _cosine(one: np.ndarray, other: np.ndarray) -> float:
    one, other = (np.asarray(item, np.float64).reshape(-1) for item in (one, other))
    norm = float(np.linalg.norm(one) * np.linalg.norm(other))
    return float(one @ other) / norm if norm > 0.0 else float("nan")


def _load(name: str, option: str, kind: str) -> Any:
    if not name:
        return None
    if is_function_name(name):
        return call_function(name, option)
    from .pretrained import scorers

    return getattr(scorers, kind)(name)


def _load_recogniser(name: str) -> Recognise | None:
    return _pocketsphinx() if name == "pocketsphinx" else _load(name, "--recogniser", "recogniser")


def _pocketsphinx() -> Recognise:
    """The recogniser of pocketsphinx with its general English model."""
    try:
        from pocketsphinx import Decoder
    except ImportError as error:
        raise MissingDependencyError(
            "the recogniser needs pocketsphinx: pip install pocketsphinx"
        ) from error
    decoder = Decoder(samprate=MEASURED_RATE, loglevel="FATAL")

    def recognise(samples: np.ndarray, sampling_rate: int) -> str:
        del sampling_rate
        pcm = np.clip(np.rint(samples * 32768), -32768, 32767).astype("<i2")
        decoder.reinit_feat()  # what it has learnt of a room must not depend on the order of clips
        decoder.start_utt()
        decoder.process_raw(pcm.tobytes(), full_utt=True)
        decoder.end_utt()
        hypothesis = decoder.hyp()
        return hypothesis.hypstr if hypothesis else ""

    return recognise
