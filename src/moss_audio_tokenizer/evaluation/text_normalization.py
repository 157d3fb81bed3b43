"""Texts made comparable, and how far one is from another: word and character error rates.

Knows no recogniser. Case and punctuation do not count; numbers are left as they are written.
"""

import re
import unicodedata

from ..errors import MissingDependencyError


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


def error_rates(said: str, transcript: str) -> dict[str, float]:
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
    letters, heard_letters = said.replace(" ", ""), transcript.replace(" ", "")
    return {
        "wer": float(jiwer.wer(said, transcript)),
        "cer": float(jiwer.cer(letters, heard_letters)),
    }
