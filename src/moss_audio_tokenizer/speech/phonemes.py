"""Texts as phonemes, and how long each lasts: the text side of CAT-TTS for small data sets.

Owns the dictionary of pronunciations, the tokens of a text (boundaries, phonemes, and letters of
words that the dictionary lacks), and schedules of tokens over frames. Time is counted in ticks:
a frame has `TICKS` of them, since a frame of 80 ms may hold more than one phoneme.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from jaxtyping import Int64

from ..errors import CheckpointError, InputError

LEXICON_NAME = "lexicon.txt"
TICKS = 3
# Between words, and at the end of a clause, a sentence, a question and an exclamation.
BOUNDARIES = " ,.?!"
# Symbols of the International Phonetic Alphabet for English. Others are written as one of them,
# or left out.
PHONEMES = "abdefhijklmnopstuvwzæðŋɐɑɔəɚɛɜɡɪɹɾʃʊʌʒʔθ"
VOWELS = frozenset("aeiouæɐɑɔəɚɛɜɪʊʌ")
STRESS = "ˈ"
_ALIKE = {"r": "ɹ", "x": "k", "ɬ": "l", "ç": "h", "ᵻ": "ɪ"}
_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_FIRST_PHONEME = len(BOUNDARIES)
_FIRST_LETTER = _FIRST_PHONEME + 2 * len(PHONEMES)
NUM_TOKENS = _FIRST_LETTER + len(_LETTERS)
# What a text may consist of when it is split into words: letters and signs that make pauses.
SPOKEN_CHARACTERS = f" '{_LETTERS},.?!;:"
_WORD = re.compile(r"([a-z']+)|([,.?!;:]+)")
_CLAUSE = {";": ",", ":": ","}


@dataclass(frozen=True)
class SpokenWord:
    """A word of a text.

    Attributes:
        word: in small letters.
        boundary: what follows it, one of `BOUNDARIES`.
    """

    word: str
    boundary: str


def split_words(text: str) -> list[SpokenWord]:
    """The words of a text in `SPOKEN_CHARACTERS`; the last is followed by the end of a sentence.

    Raises:
        InputError: there is no word.
    """
    found: list[SpokenWord] = []
    for match in _WORD.finditer(text.lower()):
        word = (match[1] or "").strip("'")
        if word:
            found.append(SpokenWord(word, " "))
        elif match[2] and found:
            sign = match[2][0]
            found[-1] = SpokenWord(found[-1].word, _CLAUSE.get(sign, sign))
    if not found:
        raise InputError(f"the text {text[:60]!r} has no word; give words to say")
    if found[-1].boundary in " ,":
        found[-1] = SpokenWord(found[-1].word, ".")
    return found


def phoneme_tokens(pronunciation: str) -> list[int]:
    """The tokens of a pronunciation: a phoneme, and whether it begins a stressed syllable.

    The stress mark counts for the symbols from the mark to the first vowel.
    """
    tokens, stressed = [], 0
    for symbol in pronunciation:
        known = _ALIKE.get(symbol, symbol)
        if symbol == STRESS:
            stressed = 1
        elif known in PHONEMES:
            tokens.append(_FIRST_PHONEME + 2 * PHONEMES.index(known) + stressed)
            stressed = 0 if known in VOWELS else stressed
    return tokens


def letter_tokens(word: str) -> list[int]:
    """The tokens of a word that is spelled; apostrophes are left out."""
    return [_FIRST_LETTER + _LETTERS.index(letter) for letter in word if letter in _LETTERS]


def phonemes_of(tokens: Sequence[int]) -> list[int]:
    """The index in `PHONEMES` of each phoneme token, without its stress."""
    return [(token - _FIRST_PHONEME) // 2 for token in tokens]


class Lexicon:
    """Pronunciations of words.

    Args:
        pronunciations: of words in small letters, in symbols of the International Phonetic
            Alphabet; "ˈ" precedes a stressed syllable.
    """

    num_tokens = NUM_TOKENS

    def __init__(self, pronunciations: Mapping[str, str]) -> None:
        self._known = dict(pronunciations)

    @classmethod
    def load(cls, path: Path) -> "Lexicon":
        """Read a file of lines "word<TAB>pronunciation".

        Raises:
            CheckpointError: it cannot be read, or a line has another form.
        """
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise CheckpointError(f"{path} cannot be read ({error})") from error
        pairs = [line.split("\t") for line in lines]
        wrong = next((n for n, pair in enumerate(pairs, 1) if len(pair) != 2 or not all(pair)), 0)
        if wrong or not pairs:
            raise CheckpointError(
                f"{path} line {wrong or 1} is not a word, a tab and its pronunciation"
            )
        return cls(dict(pairs))

    def save(self, path: Path) -> None:
        """Write the file that `load` reads, sorted by word."""
        lines = [f"{word}\t{said}\n" for word, said in sorted(self._known.items())]
        path.write_text("".join(lines), encoding="utf-8")

    def __contains__(self, word: str) -> bool:
        return word in self._known

    def __len__(self) -> int:
        return len(self._known)

    def pronounce(self, word: str) -> list[int]:
        """The phoneme tokens of a word.

        A possessive that is missing is its noun with the s that follows it. Empty for words
        without a pronunciation.
        """
        said = self._known.get(word, "")
        if not said and word.endswith("'s"):
            said = _with_s(self._known.get(word[:-2], ""))
        return phoneme_tokens(said)

    def tokens(self, text: str) -> list[int]:
        """The tokens of a text: a sentence boundary, and each word with what follows it.

        Raises:
            InputError: the text has no word.
        """
        tokens = [BOUNDARIES.index(".")]
        for item in split_words(text):
            tokens += self.pronounce(item.word) or letter_tokens(item.word)
            tokens.append(BOUNDARIES.index(item.boundary))
        return tokens

    def phonemes(self, text: str) -> list[int]:
        """Indices in `PHONEMES`; empty where a word is not in the lexicon."""
        words = [self.pronounce(word) for word in text.lower().split()]
        return phonemes_of([token for word in words for token in word]) if all(words) else []


def _with_s(said: str) -> str:
    if not said:
        return ""
    if said[-1] in "szʃʒ":
        return f"{said}ɪz"
    return f"{said}{'s' if said[-1] in 'fkptθ' else 'z'}"


@dataclass(frozen=True)
class Schedule:
    """Which token each tick of some frames belongs to.

    Attributes:
        tokens: index of the token in its text.
        left: number of ticks of the same token that follow, at most `Schedule.MOST_LEFT`.
    """

    MOST_LEFT = 15

    tokens: Int64[np.ndarray, "frames ticks"]
    left: Int64[np.ndarray, "frames ticks"]

    @classmethod
    def of(cls, durations: Sequence[int] | np.ndarray) -> "Schedule":
        """The schedule of tokens that last ``durations`` ticks each; the last fills its frame."""
        ticks = np.asarray(durations, np.int64).copy()
        ticks[-1] += -ticks.sum() % TICKS
        tokens = np.repeat(np.arange(len(ticks)), ticks)
        ends = np.cumsum(ticks)
        left = np.minimum(ends[tokens] - 1 - np.arange(len(tokens)), cls.MOST_LEFT)
        return cls(tokens.reshape(-1, TICKS), left.reshape(-1, TICKS))


def durations_of_words(
    steps: Sequence[int], counts: Sequence[int], num_ticks: int
) -> tuple[list[list[int]], list[int]]:
    """Durations of phonemes and boundaries, in ticks, from the steps that emit the phonemes.

    A CTC model emits a phoneme at one step within it. Two phonemes share the steps between them,
    unless they belong to different words and are more than 5 steps apart: then a pause lies
    between them.

    Args:
        steps: ascending steps, one for each phoneme.
        counts: number of phonemes of each word.
        num_ticks: number of ticks of the clip.

    Returns:
        The durations of each word's phonemes, and of the boundaries: one before the first word,
        and one behind each.
    """
    word_of = np.repeat(np.arange(len(counts)), counts)
    starts, ends = [max(0, steps[0] - 1)], []
    for number, (step, following) in enumerate(pairwise(steps)):
        joined = word_of[number] == word_of[number + 1] or following - step <= 5
        middle = (step + following + 1) // 2
        ends.append(middle if joined else step + 2)
        starts.append(middle if joined else following - 1)
    ends.append(min(num_ticks, steps[-1] + 4))
    durations = (np.array(ends) - np.array(starts)).tolist()
    splits = np.cumsum(counts)
    words = [durations[a:b] for a, b in pairwise([0, *splits])]
    nexts = [starts[first] for first in splits[:-1]] + [num_ticks]
    gaps = [following - ends[last - 1] for following, last in zip(nexts, splits, strict=True)]
    return words, [starts[0], *gaps]


def spread(total: int, count: int) -> list[int]:
    """``count`` durations that add up to ``total``, as equal as can be."""
    ends = [round(total * number / count) for number in range(count + 1)]
    return [after - before for before, after in pairwise(ends)]


@dataclass(frozen=True)
class AlignedText:
    """A text with the durations that a recording gives it, in ticks.

    Attributes:
        words: its words.
        durations: durations of each word's phonemes.
        pauses: durations of the boundaries: before the first word, and behind each.
    """

    words: list[SpokenWord]
    durations: list[list[int]]
    pauses: list[int]

    def tokens(self, lexicon: Lexicon, spelled: Sequence[bool]) -> tuple[list[int], list[int]]:
        """Tokens and their durations.

        Args:
            lexicon: the dictionary that the durations of phonemes were measured with.
            spelled: words to write in letters, which then share the word's duration evenly: so
                that a model learns to read words that a dictionary lacks.
        """
        tokens, durations = [BOUNDARIES.index(".")], [self.pauses[0]]
        rows = zip(self.words, self.durations, self.pauses[1:], spelled, strict=True)
        for item, own, pause, in_letters in rows:
            letters = letter_tokens(item.word) if in_letters else []
            tokens += letters or lexicon.pronounce(item.word)
            durations += spread(sum(own), len(letters)) if letters else own
            tokens.append(BOUNDARIES.index(item.boundary))
            durations.append(pause)
        return tokens, durations
