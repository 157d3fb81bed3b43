"""Probabilities of English words after up to two words, without PyTorch: a trigram model in a file.

Owns the file, how words back off to shorter contexts, and which letters begin a known word.
`word_ngrams.py` builds one from sentences; `ctc_beam_search.py` uses it. It hears nothing.
"""

from itertools import accumulate, pairwise
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from ..errors import MALFORMED, CheckpointError, one_line
from ..files import require_file, write_file

WORD_LM_NAME = "word_lm.safetensors"
# Ids beside those of words: any other word; and what comes before a sentence and after it.
UNKNOWN, BOUNDARY, FIRST_WORD = 0, 1, 2
# Logarithms in 8 bits: sixteenths below their highest value. Backing off to a shorter context may
# raise a probability, where a pruned model has lost likely words of the longer one.
STEPS = 16.0
HIGHEST_BACKOFF = 2.0
_LARGEST_FILE = 16_000_000
_TYPES = {
    "words": np.uint8,
    "unigram_costs": np.uint8,
    "unigram_backoffs": np.uint8,
    "bigram_counts": np.uint16,
    "bigram_words": np.uint16,
    "bigram_costs": np.uint8,
    "bigram_backoffs": np.uint8,
    "trigram_counts": np.uint16,
    "trigram_words": np.uint16,
    "trigram_costs": np.uint8,
}
Context = tuple[int, ...]


class WordLanguageModel:
    """A backed-off trigram model of words (Katz, 1987, for how the orders are joined).

    Args:
        tensors: ``words``, in ascending order, as UTF-8 with a line feed between them. Of each of
            the V + 2 ids (unknown, boundary, words) ``unigram_costs`` (negative natural logarithms
            in sixteenths), ``unigram_backoffs`` (sixteenths below 2) and ``bigram_counts`` (of
            the words that follow it); of each bigram, by its first id, its last id
            (``bigram_words``, ascending), cost, backoff and number of trigrams; of each trigram,
            by its bigram, its last id and cost.

    Attributes:
        words: all known words; the id of the first is 2.

    Raises:
        CheckpointError: the tensors do not fit one another.
    """

    def __init__(self, tensors: dict[str, np.ndarray]) -> None:
        _check(tensors)
        self._tensors = tensors
        self.words = _split_words(tensors["words"])
        self._ids = {word: FIRST_WORD + index for index, word in enumerate(self.words)}
        self._unigrams = (tensors["unigram_costs"] / -STEPS).tolist()
        self._bigrams = (tensors["bigram_costs"] / -STEPS).tolist()
        self._trigrams = (tensors["trigram_costs"] / -STEPS).tolist()
        self._unigram_backoffs = (HIGHEST_BACKOFF - tensors["unigram_backoffs"] / STEPS).tolist()
        self._bigram_backoffs = (HIGHEST_BACKOFF - tensors["bigram_backoffs"] / STEPS).tolist()
        self._bigram_starts = [0, *accumulate(tensors["bigram_counts"].tolist())]
        self._trigram_starts = [0, *accumulate(tensors["trigram_counts"].tolist())]
        self._scores: dict[tuple[Context, int], float] = {}
        self._beginnings = self._best_of_beginnings()

    def _best_of_beginnings(self) -> dict[str, float]:
        best: dict[str, float] = {}
        for index, word in enumerate(self.words):
            score = self._unigrams[FIRST_WORD + index]
            for end in range(1, len(word) + 1):
                if best.get(word[:end], -np.inf) < score:
                    best[word[:end]] = score
        return best

    @property
    def num_bytes(self) -> int:
        """Bytes of its tensors in a file."""
        return sum(tensor.nbytes for tensor in self._tensors.values())

    def id_of(self, word: str) -> int:
        """The id of a word; that of the unknown word where the model does not have it."""
        return self._ids.get(word, UNKNOWN)

    def best_beginning(self, letters: str) -> float | None:
        """Log-probability of the likeliest word that begins so, or None where no word does."""
        return self._beginnings.get(letters)

    def score(self, word: int, context: Context = (BOUNDARY,)) -> float:
        """Natural log-probability of a word after others.

        Args:
            word: its id; that of the boundary for the end of a sentence.
            context: ids of the two words before it; at the start of a sentence the boundary
                stands before the first. Longer ones are cut.
        """
        key = (context, word)
        found = self._scores.get(key)
        if found is None:
            found = self._scores[key] = self._backed_off(word, context[-2:])
        return found

    def _backed_off(self, word: int, context: Context) -> float:
        if not context:
            return self._unigrams[word]
        bigrams, starts = self._tensors["bigram_words"], self._bigram_starts
        if len(context) == 1:
            index = _find(bigrams, starts, context[0], word)
            if index is not None:
                return self._bigrams[index]
            return self._unigram_backoffs[context[0]] + self._unigrams[word]
        bigram = _find(bigrams, starts, *context)
        if bigram is None:
            return self.score(word, context[1:])
        index = _find(self._tensors["trigram_words"], self._trigram_starts, bigram, word)
        if index is not None:
            return self._trigrams[index]
        return self._bigram_backoffs[bigram] + self.score(word, context[1:])

    def score_sentence(self, sentence: str) -> tuple[float, int]:
        """Log-probability of a sentence with its end, and how many words that covers.

        Args:
            sentence: words with blanks between them, spelled like the model's.
        """
        ids = [BOUNDARY, *(self.id_of(word) for word in sentence.split()), BOUNDARY]
        scores = [self.score(ids[i], tuple(ids[max(0, i - 2) : i])) for i in range(1, len(ids))]
        return sum(scores), len(scores)

    def save(self, path: str | Path) -> None:
        """Write one safetensors file.

        Raises:
            CheckpointError: it cannot be written.
        """
        write_file(path, save(self._tensors, {"kind": "word trigrams"}), CheckpointError)

    @classmethod
    def find(cls, folder: Path) -> "WordLanguageModel | None":
        """The one in a model's folder, if there is one; errors as of `load`."""
        path = folder / WORD_LM_NAME
        return cls.load(path) if path.is_file() else None

    @classmethod
    def load(cls, path: str | Path) -> "WordLanguageModel":
        """Read a file that `save` wrote.

        Raises:
            CheckpointError: it is missing, damaged, or something else.
        """
        path = Path(path)
        if require_file(path, error=CheckpointError) > _LARGEST_FILE:
            raise CheckpointError(f"{path} is too large for a word language model; name another")
        try:
            return cls(load(path.read_bytes()))
        except (SafetensorError, *MALFORMED) as problem:
            raise CheckpointError(
                f"{path} holds no word language model ({one_line(problem, 200)}); write it again"
            ) from problem


def _find(words: np.ndarray, starts: list[int], context: int, word: int) -> int | None:
    """The index of a word among those that follow a context."""
    first, last = starts[context], starts[context + 1]
    index = first + int(np.searchsorted(words[first:last], np.uint16(word)))
    return index if index < last and words[index] == word else None


def _split_words(text: np.ndarray) -> list[str]:
    return text.tobytes().decode("utf-8").split("\n") if text.size else []


def _check(tensors: dict[str, np.ndarray]) -> None:
    """Everything that indexing relies on."""
    wrong = [
        name
        for name, dtype in _TYPES.items()
        if name not in tensors or tensors[name].dtype != dtype or tensors[name].ndim != 1
    ]
    if wrong or len(tensors) != len(_TYPES):
        raise CheckpointError(f"its {', '.join(wrong) or 'names'} are not those of one")
    words = _split_words(tensors["words"])
    if not all(first < second for first, second in pairwise(words)) or "" in words:
        raise CheckpointError("its words are not in order")
    size = {name: len(tensor) for name, tensor in tensors.items()}
    ids = len(words) + FIRST_WORD
    fits = [
        all(size[name] == ids for name in ("unigram_costs", "unigram_backoffs", "bigram_counts")),
        size["bigram_words"] == int(tensors["bigram_counts"].sum(dtype=np.int64)),
        size["bigram_words"] == size["bigram_costs"] == size["bigram_backoffs"],
        size["bigram_words"] == size["trigram_counts"],
        size["trigram_words"] == int(tensors["trigram_counts"].sum(dtype=np.int64)),
        size["trigram_words"] == size["trigram_costs"],
        all((tensors[f"{kind}_words"] < ids).all() for kind in ("bigram", "trigram")),
    ]
    if not all(fits):
        raise CheckpointError(f"its n-grams do not fit its {len(words)} words")
