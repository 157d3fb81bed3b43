"""Text normalization, and word and character error rates.

Three normalizations: "plain" (case and punctuation do not count, numbers stay as written),
"whisper" (Whisper's own: contractions, spelling variants and numbers are brought to one form) and
"seed-tts" (Seed-TTS-Eval's: punctuation deleted, Chinese by characters). It knows no ASR model.
"""

import re
import string
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from math import nan
from pathlib import Path

from ..errors import InputError
from .loading import import_package

NORMALIZATIONS = ("plain", "whisper", "seed-tts")

# Languages that are written without spaces between words; Whisper scores them by characters.
_SPACELESS = ("zh", "ja", "th", "lo", "my", "yue")


def text_lines(path: Path, expected: str) -> list[str]:
    """Lines of a UTF-8 file that are not blank, without the space around them.

    Args:
        path: the file.
        expected: what it should be, for the message.

    Raises:
        InputError: the file cannot be read.
    """
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{str(path)!r} cannot be read ({error}); expected {expected}") from error
    return [line.strip() for line in lines if line.strip()]


def normalized(text: str) -> str:
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


def normalizer(name: str, language: str = "") -> Callable[[str], str]:
    """The function of a normalization for a language; an unknown language counts as English.

    Raises:
        InputError: there is no such normalization.
        MissingDependencyError: whisper-normalizer is not installed.
    """
    if name not in NORMALIZATIONS:
        raise InputError(
            f"--text-normalization {name!r} is unknown; expected {', '.join(NORMALIZATIONS)}"
        )
    if name == "seed-tts":
        return _seed_tts_chinese if language.startswith("zh") else _seed_tts
    if name == "whisper":
        return _whisper(language)
    return normalized


@lru_cache(maxsize=16)
def _whisper(language: str) -> Callable[[str], str]:
    purpose, package = "Whisper's text normalization", "whisper-normalizer"
    basic = import_package("whisper_normalizer.basic", purpose, package, "judges")
    if language in ("", "en") or language.startswith("en-"):
        english = import_package("whisper_normalizer.english", purpose, package, "judges")
        normalize = english.EnglishTextNormalizer()
    else:
        normalize = basic.BasicTextNormalizer(split_letters=language.startswith(_SPACELESS))
    return lambda text: " ".join(normalize(text).split())


def _seed_tts(text: str) -> str:
    return " ".join(_without_punctuation(text).lower().split())


def _seed_tts_chinese(text: str) -> str:
    return " ".join("".join(_without_punctuation(text).split()))


def _without_punctuation(text: str) -> str:
    """Deletes all punctuation but the apostrophe, as Seed-TTS-Eval does; words it joined merge."""
    return "".join(
        letter
        for letter in text
        if letter == "'"
        or not (letter in string.punctuation or unicodedata.category(letter).startswith("P"))
    )


@dataclass(frozen=True)
class Transcript:
    """What an ASR model understood (``read``), and how far off it is.

    Rates are NaN without a text; the words and characters of the normalized text weigh them. Spaces
    are no characters.
    """

    read: str
    wer: float
    cer: float
    num_words: int
    num_characters: int


def compare(text: str, hypothesis: str, normalize: Callable[[str], str] = normalized) -> Transcript:
    """A transcript with its word and character error rates against a text.

    Raises:
        MissingDependencyError: jiwer is not installed.
    """
    jiwer = import_package("jiwer", "a word error rate", extra="eval")
    reference, found = normalize(text), normalize(hypothesis)
    letters = reference.replace(" ", "")
    if not reference:
        return Transcript(hypothesis, nan, nan, 0, 0)
    wer = float(jiwer.wer(reference, found))
    cer = float(jiwer.cer(letters, found.replace(" ", "")))
    return Transcript(hypothesis, wer, cer, len(reference.split()), len(letters))
