"""Text tokens that are learned from the training texts: frequent words, and pieces of words.

A codec of 12.5 frames a second has fewer frames than English has letters, so that a CTC head
cannot emit letters one by one; pieces of two or three letters leave it room.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable
from itertools import pairwise

from ...speech.tokens import CharacterText, PieceText
from .speech_config import LanguageModelConfig

_Pair = tuple[str, str]


def text_with_vocabulary(
    text: CharacterText, config: LanguageModelConfig, texts: Iterable[str]
) -> CharacterText:
    """Letters, with the words or pieces that the recipe asks for.

    Args:
        text: the letters.
        config: the recipe's group ``model``.
        texts: the training texts.
    """
    if config.num_pieces:
        return PieceText(text.alphabet, frequent_pieces(texts, config.num_pieces))
    if config.num_words:
        return CharacterText(text.alphabet, frequent_words(texts, config.num_words))
    return text


def frequent_words(texts: Iterable[str], count: int) -> list[str]:
    """The most frequent words; equally frequent ones by the alphabet."""
    counted = Counter(word for text in texts for word in text.split())
    return sorted(counted, key=lambda word: (-counted[word], word))[:count]


def frequent_pieces(texts: Iterable[str], count: int) -> list[str]:
    """Pieces of words by byte-pair encoding, which joins the most frequent pair again and again.

    A piece at the start of a word begins with a blank. There are fewer than ``count`` pieces
    where no pair is left that occurs twice.
    """
    merges = _Merges(texts)
    pieces: list[str] = []
    while len(pieces) < count and (pair := merges.most_frequent()):
        merges.join(pair)
        # Different pairs may make the same piece.
        pieces += [piece] if (piece := "".join(pair)) not in pieces else []
    return pieces


class _Merges:
    """Words in parts, with the frequency of every pair of neighboring parts."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._words = Counter(f" {word}" for text in texts for word in text.split())
        self._parts = {word: list(word) for word in self._words}
        self._counts: Counter[_Pair] = Counter()
        self._found_in: dict[_Pair, set[str]] = defaultdict(set)
        for word in self._words:
            self._count(word, 1)

    def most_frequent(self) -> _Pair | None:
        """The most frequent pair; None where no pair occurs twice."""
        best = max(self._counts, key=lambda pair: (self._counts[pair], pair), default=None)
        return best if best and self._counts[best] > 1 else None

    def join(self, pair: _Pair) -> None:
        """Make one part of a pair, wherever it occurs."""
        for word in sorted(self._found_in[pair]):
            self._count(word, -1)
            self._parts[word] = _joined(self._parts[word], pair)
            self._count(word, 1)

    def _count(self, word: str, sign: int) -> None:
        parts = self._parts[word]
        for pair in pairwise(parts):
            self._counts[pair] += sign * self._words[word]
            (self._found_in[pair].add if sign > 0 else self._found_in[pair].discard)(word)


def _joined(parts: list[str], pair: _Pair) -> list[str]:
    joined: list[str] = []
    for part in parts:
        if joined and (joined[-1], part) == pair:
            joined[-1] += part
        else:
            joined.append(part)
    return joined
