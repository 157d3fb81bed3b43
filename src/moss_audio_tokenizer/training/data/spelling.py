"""Made-up texts in the manner of the AN4 corpus: spelled letters, numbers, dates and commands.

Owns the small grammar and how its words are to be pronounced; knows nothing of voices or of sound.
Source: the texts of AN4 (Carnegie Mellon University, "Alphanumeric database").
"""

import string
from collections.abc import Callable, Sequence

import numpy as np

_DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_TEENS = (
    *("ten", "eleven", "twelve", "thirteen", "fourteen"),
    *("fifteen", "sixteen", "seventeen", "eighteen", "nineteen"),
)
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_MONTHS = (
    *("january", "february", "march", "april", "may", "june"),
    *("july", "august", "september", "october", "november", "december"),
)
_ORDINALS = (
    *("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth"),
    *("tenth", "eleventh", "twelfth", "thirteenth", "fourteenth", "fifteenth", "sixteenth"),
    *("seventeenth", "eighteenth", "nineteenth", "twentieth"),
)
_COMMANDS = ("yes", "no", "go", "help", "start", "stop", "repeat", "enter", "erase", "rubout")
_NAMES = (
    *("alexander", "alleyne", "anderson", "barbara", "baumann", "becker", "benjamin", "carnegie"),
    *("catherine", "christopher", "cunningham", "david", "donovan", "douglas", "edwards"),
    *("elizabeth", "ellsworth", "fitzgerald", "forbes", "francis", "frederick", "gabriel"),
    *("geoffrey", "gonzalez", "hamilton", "harrison", "hernandez", "hobart", "ignatius"),
    *("jackson", "jacqueline", "jennifer", "johnson", "katz", "kimberly", "kowalski", "lawrence"),
    *("lehmann", "lopez", "maxwell", "mccullough", "melwood", "michael", "murphy", "murray"),
    *("nguyen", "nicholas", "northumberland", "obrien", "olsen", "patricia", "penn", "peterson"),
    *("phillips", "pittsburgh", "quentin", "quigley", "rachel", "reddy", "robinson", "rudnicky"),
    *("schwartz", "shadyside", "shaw", "squirrel", "stephanie", "thomas", "ulrich", "valentine"),
    *("victoria", "walnut", "washington", "weinberg", "william", "wright", "xavier", "yvonne"),
    *("zachary", "zimmerman"),
)

# Where a synthesizer would read the grammar's words in another way.
_PRONOUNCED = {"a": "[['eI]]", "rubout": "rub-out"}

Rng = np.random.Generator


def spelling(count: int, seed: int) -> list[str]:
    """Made-up utterances: lowercase words with one blank between them, letters standing alone.

    Args:
        count: how many.
        seed: the same seed makes the same utterances; the first ones of a longer list too.
    """
    random = np.random.default_rng(seed)
    return [" ".join(_utterance(random)) for _ in range(count)]


def pronunciation(text: str) -> str:
    """A text of `spelling` as espeak-ng pronounces it right: "a" is the letter, not the article."""
    return " ".join(_PRONOUNCED.get(word, word) for word in text.split())


def _utterance(random: Rng) -> list[str]:
    kinds, weights = zip(*_KINDS, strict=True)
    total = np.cumsum(weights)
    return kinds[int(np.searchsorted(total, random.random() * total[-1], side="right"))](random)


def _pick(random: Rng, choices: Sequence[str]) -> str:
    return choices[int(random.integers(len(choices)))]


def _letters(random: Rng, fewest: int, most: int) -> list[str]:
    count = int(random.integers(fewest, most + 1))
    return [_pick(random, string.ascii_lowercase) for _ in range(count)]


def _digits(random: Rng, fewest: int, most: int) -> list[str]:
    """Digits one by one; a nought is "zero" throughout or "oh" throughout."""
    nought = _pick(random, ("zero", "oh"))
    count = int(random.integers(fewest, most + 1))
    return [nought if word == "zero" else word for word in _plain_digits(random, count)]


def _plain_digits(random: Rng, count: int) -> list[str]:
    return [_pick(random, _DIGITS) for _ in range(count)]


def _below_hundred(random: Rng) -> list[str]:
    """10 to 99."""
    number = int(random.integers(10, 100))
    if number < 20:
        return [_TEENS[number - 10]]
    return [_TENS[number // 10 - 2], *_DIGITS[number % 10 : number % 10 + bool(number % 10)]]


def _number(random: Rng) -> list[str]:
    """A number in one of the ways in which people read it aloud."""
    way = random.random()
    if way < 0.45:
        return _digits(random, 1, 4)
    if way < 0.6:
        return _below_hundred(random)
    if way < 0.75:
        return [_pick(random, _DIGITS[1:]), *_below_hundred(random)]
    if way < 0.9:
        return [*_below_hundred(random), *_below_hundred(random)]
    if way < 0.95:
        return [_pick(random, _DIGITS[1:]), "hundred", *_below_hundred(random)]
    return [*_below_hundred(random), "thousand", _pick(random, _DIGITS[1:]), "hundred"]


def _letters_and_number(random: Rng) -> list[str]:
    return [*_letters(random, 1, 5), *_number(random)]


def _changed(random: Rng) -> list[str]:
    return [_pick(random, ("rubout", "erase")), *_letters_and_number(random)]


def _entered(random: Rng) -> list[str]:
    return ["enter", *_number(random)]


def _name(random: Rng) -> list[str]:
    words = list(_pick(random, _NAMES))
    return [*words, *_pick(random, _NAMES)] if random.random() < 0.1 else words


def _date(random: Rng) -> list[str]:
    """As in "march twelfth nineteen sixty two"."""
    day = int(random.integers(1, 32))
    words = [_pick(random, _MONTHS), *_ordinal(day)]
    return [*words, "nineteen", *_below_hundred(random)] if random.random() < 0.8 else words


def _ordinal(day: int) -> list[str]:
    if day <= len(_ORDINALS):
        return [_ORDINALS[day - 1]]
    return ["thirtieth"] if day == 30 else [_TENS[day // 10 - 2], _ORDINALS[day % 10 - 1]]


def _address(random: Rng) -> list[str]:
    """As in "five eight oh three forbes"; half of the street names are spelled."""
    name = _pick(random, _NAMES)
    return [*_number(random), *(name if random.random() < 0.5 else [name])]


# Each kind and about how often it comes: what AN4's speakers said, some kinds a little evened out.
_KINDS: tuple[tuple[Callable[[Rng], list[str]], float], ...] = (
    (_letters_and_number, 22.0),
    (_changed, 20.0),
    (_entered, 8.0),
    (_name, 16.0),
    (lambda random: _letters(random, 2, 9), 12.0),
    (lambda random: _digits(random, 3, 10), 8.0),
    (_number, 4.0),
    (_date, 5.0),
    (_address, 3.0),
    (lambda random: [_pick(random, _COMMANDS)], 2.0),
)
