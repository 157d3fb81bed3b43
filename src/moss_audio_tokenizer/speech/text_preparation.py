"""Texts as CAT-TTS can say them: normalized, of known characters, and in chunks.

Owns what is left out, and splitting at sentences. Needs no model, so that a wrong text is refused
before one is loaded.
"""

import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass

from ..errors import InputError
from .normalization import normalize
from .tokens import CharacterText, TextCodec

# A chunk of about ten seconds: within the default limit of generation.
MAX_CHUNK_CHARACTERS = 160
_SENTENCE_END = re.compile(r"(?<=[.!?\u2026\u3002\uff01\uff1f])[\"')\]]*\s+|\n+")
_CLAUSE_END = re.compile(r"(?<=[,;:])\s+")


@dataclass(frozen=True)
class PreparedText:
    """A text in chunks.

    Attributes:
        chunks: parts that are said one after another; at least one.
        skipped: characters that cannot be said, each once.
    """

    chunks: list[str]
    skipped: str

    @property
    def whole(self) -> str:
        """All chunks as one text."""
        return " ".join(self.chunks)


def check_speakable(text: str) -> None:
    """Check what can be checked before a model is loaded.

    Raises:
        InputError: the text is empty, or has no letter or digit.
    """
    if not text.strip():
        raise InputError("the text is empty; give something to say")
    if not any(character.isalnum() for character in text):
        raise InputError(
            f"the text {text.strip()[:60]!r} has no letter or digit; give words to say"
        )


def prepare_text(text: str, tokens: TextCodec) -> PreparedText:
    """Normalize a text, leave out what the tokens cannot express, and split it.

    Args:
        text: any text.
        tokens: text tokens of the model. Those of an alphabet that lacks English letters take
            the text as it is.

    Raises:
        InputError: the text is empty, or nothing in it can be said.
    """
    check_speakable(text)
    if not isinstance(tokens, CharacterText):
        spoken, skipped = _without(text, lambda c: not _is_symbol(c))
    elif tokens.knows_english:
        known = set(tokens.alphabet)
        plain = _plain_letters(normalize(text))
        spoken, skipped = _without(
            plain, lambda c: {c, c.lower()} & known or not (c.isalnum() or _is_symbol(c))
        )
    else:
        return PreparedText(split_text(text), "")
    if not any(character.isalnum() for character in spoken):
        raise InputError(
            f"nothing in {text.strip()[:60]!r} can be said by this model; write it in its alphabet"
        )
    if isinstance(tokens, CharacterText):
        chunks = [tokens.spell(chunk) for chunk in split_text(spoken)]
        return PreparedText([chunk for chunk in chunks if chunk], skipped)
    return PreparedText(split_text(spoken), skipped)


def _is_symbol(character: str) -> bool:
    """Emoji and their like."""
    return unicodedata.category(character) in ("So", "Sk", "Cs", "Cf")


def _without(text: str, fits: Callable[[str], object]) -> tuple[str, str]:
    """The text without unknown characters, and these."""
    skipped = dict.fromkeys(c for c in text if not c.isspace() and not fits(c))
    return "".join(" " if c in skipped else c for c in text), "".join(skipped)


def _plain_letters(text: str) -> str:
    """Letters without their accents: é as e."""
    split = unicodedata.normalize("NFKD", text)
    return "".join(c for c in split if not unicodedata.combining(c))


def split_text(text: str, most: int = MAX_CHUNK_CHARACTERS) -> list[str]:
    """Chunks of at most about ``most`` characters, at sentences, else clauses, else words."""
    if len(text) <= most:
        return [text.strip()]
    parts = _parts(text.strip(), most)
    chunks: list[str] = []
    for part in parts:
        if chunks and len(chunks[-1]) + 1 + len(part) <= most:
            chunks[-1] = f"{chunks[-1]} {part}"
        else:
            chunks.append(part)
    return chunks


def _parts(text: str, most: int) -> list[str]:
    """Sentences; of long ones the clauses; of long ones the words; of long ones the characters."""
    parts = [text]
    for cut in (
        _SENTENCE_END.split,
        _CLAUSE_END.split,
        str.split,
        lambda part: _pieces(part, most),
    ):
        parts = [
            own for part in parts for own in ([part] if len(part) <= most else cut(part)) if own
        ]
    return parts


def _pieces(text: str, most: int) -> list[str]:
    return [text[first : first + most] for first in range(0, len(text), most)]
