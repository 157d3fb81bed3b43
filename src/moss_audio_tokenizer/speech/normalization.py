"""Numbers, money, times, signs and abbreviations of English text as words.

Training and inference use the same function: a model never sees a digit.
"""

import re

from num2words import num2words

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


def normalize(text: str) -> str:
    """English text with numbers, money, times, signs and abbreviations as words."""
    text = text.replace("’", "'").replace("‘", "'")  # noqa: RUF001 - typographic apostrophes
    text = re.sub(r"\S+", lambda found: _abbreviation(found[0]), text)
    text = re.sub(rf"([$€£¥])\s?({_NUMBER})", lambda f: _money(f[1], f[2]), text)
    text = re.sub(rf"({_NUMBER})\s?([€£¥])", lambda f: _money(f[2], f[1]), text)
    text = re.sub(r"\b(\d{1,2}):(\d{2})\b", lambda f: _time(int(f[1]), int(f[2])), text)
    text = re.sub(r"\b(\d+)(st|nd|rd|th)\b", lambda f: _words(f[1], "ordinal"), text)
    text = re.sub(rf"-(?={_NUMBER})(?<![\w]-)", "minus ", text)
    text = re.sub(r"\b(1[1-9]\d{2}|20[1-9]\d)\b(?![.,]\d)", lambda f: _words(f[1], "year"), text)
    text = re.sub(_NUMBER, lambda f: f" {_words(f[0])} ", text)
    text = re.sub("[&%+=@°]", lambda found: f" {_SIGNS[found[0]]} ", text)
    return " ".join(re.sub(r"\s+([.,!?;:])", r"\1", text).split())


def _abbreviation(word: str) -> str:
    return _ABBREVIATIONS.get(word.lower(), word)


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
