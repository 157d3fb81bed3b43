"""Texts as the text tokens of a model express them: normalized, and in chunks for CAT-TTS.

Owns English numbers, money, times, signs and abbreviations as words, what is left out, and
splitting at sentences. Training and inference use the same rules: a model never sees a digit. Needs
no model, so that a wrong text is refused before one is loaded.
"""

import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass

from num2words import num2words

from ..errors import InputError
from .tokens import LETTERS, CharacterText, TextCodec

# A chunk of about ten seconds: within the default limit of generation.
MAX_CHUNK_CHARACTERS = 160
_SENTENCE_END = re.compile(r"(?<=[.!?\u2026\u3002\uff01\uff1f])[\"')\]]*\s+|\n+")
_CLAUSE_END = re.compile(r"(?<=[,;:])\s+")
_MOST_DIGITS = 15
_ABBREVIATIONS = {
    "mr.": "mister",
    "mrs.": "missus",
    "ms.": "miss",
    "dr.": "doctor",
    "prof.": "professor",
    "st.": "saint",
    "vs.": "versus",
    "etc.": "et cetera",
    "e.g.": "for example",
    "i.e.": "that is",
    "approx.": "approximately",
    "no.": "number",
}
_SIGNS = {"&": "and", "%": "percent", "+": "plus", "=": "equals", "@": "at", "°": "degrees"}
_CURRENCIES = {
    "$": ("dollar", "cent"),
    "€": ("euro", "cent"),
    "£": ("pound", "penny"),
    "¥": ("yen", ""),
}
_NUMBER = r"\d+(?:,\d{3})*(?:\.\d+)?"


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
    elif _knows_english(tokens):
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
        chunks = [spell(chunk, tokens) for chunk in split_text(spoken)]
        # Signs alone, as at the end of a long text, are nothing to say.
        said = [chunk for chunk in chunks if chunk and any(map(str.isalnum, chunk))]
        return PreparedText(said, skipped)
    return PreparedText(split_text(spoken), skipped)


def spell(text: str, tokens: TextCodec) -> str | None:
    """A training text reduced to what the tokens can express; None where they cannot.

    Of an alphabet, unknown signs are left out, and there are no unknown letters or digits. With
    all letters of English, numbers and abbreviations become words first. Other tokens express all.
    """
    if not isinstance(tokens, CharacterText):
        return text
    known = set(tokens.alphabet)
    text = normalize(text) if _knows_english(tokens) else text
    text = text.lower() if tokens.is_lower else text
    if any(c.isalnum() and c not in known for c in text):
        return None
    return " ".join("".join(c if c in known else " " for c in text).split())


def _knows_english(tokens: CharacterText) -> bool:
    return set(LETTERS.strip()) - {"'", " "} <= set(tokens.alphabet)


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


def split_text(text: str) -> list[str]:
    """Chunks of at most `MAX_CHUNK_CHARACTERS`, at sentences, else clauses, else words."""
    most = MAX_CHUNK_CHARACTERS
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
        lambda part: [part[first : first + most] for first in range(0, len(part), most)],
    ):
        parts = [
            own for part in parts for own in ([part] if len(part) <= most else cut(part)) if own
        ]
    return parts


def normalize(text: str) -> str:
    """English text with numbers, money, times, signs and abbreviations as words."""
    text = text.replace("’", "'").replace("‘", "'")  # noqa: RUF001 - typographic apostrophes
    text = re.sub(r"\S+", lambda found: _ABBREVIATIONS.get(found[0].lower(), found[0]), text)
    text = re.sub(rf"([$€£¥])\s?({_NUMBER})", lambda f: _money(f[1], f[2]), text)
    text = re.sub(rf"({_NUMBER})\s?([€£¥])", lambda f: _money(f[2], f[1]), text)
    text = re.sub(r"\b(\d{1,2}):(\d{2})\b", lambda f: _time(int(f[1]), int(f[2])), text)
    text = re.sub(r"\b(\d+)(st|nd|rd|th)\b", lambda f: _words(f[1], "ordinal"), text)
    text = re.sub(rf"-(?={_NUMBER})(?<![\w]-)", "minus ", text)
    text = re.sub(r"\b(1[1-9]\d{2}|20[1-9]\d)\b(?![.,]\d)", lambda f: _words(f[1], "year"), text)
    text = re.sub(_NUMBER, lambda f: f" {_words(f[0])} ", text)
    text = re.sub("[&%+=@°]", lambda found: f" {_SIGNS[found[0]]} ", text)
    return " ".join(re.sub(r"\s+([.,!?;:])", r"\1", text).split())


def _money(sign: str, amount: str) -> str:
    unit, part = _CURRENCIES[sign]
    whole, _, rest = amount.replace(",", "").partition(".")
    spoken = f"{_words(whole)} {_plural(unit, whole)}"
    if part and len(rest) == 2 and int(rest):
        spoken += f" and {_words(str(int(rest)))} {_plural(part, rest)}"
    elif rest and int(rest):
        spoken = f"{_words(f'{whole}.{rest}')} {_plural(unit, '2')}"
    return spoken


def _plural(unit: str, count: str) -> str:
    if int(count) == 1 or unit == "yen":
        return unit
    return "pence" if unit == "penny" else f"{unit}s"


def _time(hour: int, minute: int) -> str:
    if hour > 24 or minute > 59:
        return f"{_words(str(hour))} {_words(str(minute))}"
    if not minute:
        return f"{_words(str(hour))} o'clock" if 0 < hour < 13 else f"{_words(str(hour))} hundred"
    spoken = f"oh {_words(str(minute))}" if minute < 10 else _words(str(minute))
    return f"{_words(str(hour))} {spoken}"


def _words(number: str, kind: str = "cardinal") -> str:
    """A number in words; one of very many digits, digit by digit."""
    plain = number.replace(",", "")
    if len(plain) > _MOST_DIGITS or (len(plain) > 1 and plain[0] == "0" and "." not in plain):
        return " ".join("point" if c == "." else num2words(int(c)) for c in plain)
    value = float(plain) if "." in plain else int(plain)
    words: str = num2words(value, to=kind) if kind != "cardinal" else num2words(value)
    return words.replace("-", " ").replace(",", "")
