"""A word language model from sentences: counts, smoothing and pruning, by NumPy.

Interpolated absolute discounting (Ney, Essen and Kneser, 1994): every count gives up a constant,
which the shorter context shares out. Not Kneser-Ney, whose counts of contexts mislead a pruned
model. Owns no file; `word_language_model.py` is what comes out.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64

from ..errors import InputError
from .word_language_model import (
    BOUNDARY,
    FIRST_WORD,
    HIGHEST_BACKOFF,
    STEPS,
    UNKNOWN,
    WordLanguageModel,
)

MAX_BYTES = 1_500_000
MAX_WORDS = 30_000
# Ids are 16 bits; a row of keys is the ids of an n-gram side by side.
_BASE = 1 << 16
# What an id and an n-gram take in the file beside the letters of words, and what its header may.
_ID_BYTES, _BIGRAM_BYTES, _TRIGRAM_BYTES, _HEADER_BYTES = 4, 6, 3, 2_000
# Of what the words leave, bigrams get this share.
_BIGRAM_SHARE = 0.6
Keys = Int64[np.ndarray, "ngrams"]
Logs = Float64[np.ndarray, "ngrams"]


@dataclass(frozen=True)
class _Ngrams:
    """N-grams of one order, ascending.

    Attributes:
        keys: their ids side by side.
        logs: log-probabilities of the last word after the others.
        worth: how much of the texts' log-likelihood is lost without each.
    """

    keys: Keys
    logs: Logs
    worth: Logs

    def best(self, most: int, allowed: Bool[np.ndarray, "ngrams"] | None = None) -> "_Ngrams":
        """At most so many: the worthiest ones, as Seymore and Rosenfeld (1996) prune."""
        worth = self.worth if allowed is None else np.where(allowed, self.worth, -np.inf)
        order = np.argsort(-worth, kind="stable")[: max(most, 0)]
        kept = np.sort(order[worth[order] > 0])
        return _Ngrams(self.keys[kept], self.logs[kept], self.worth[kept])


def build_word_language_model(
    sentences: Iterable[str], max_words: int = MAX_WORDS, max_bytes: int = MAX_BYTES
) -> WordLanguageModel:
    """A trigram model of sentences.

    Args:
        sentences: words with blanks between them, as `text_preparation.spell` writes them.
            Apostrophes around a word are taken as quotation marks.
        max_words: keep at most so many words, the most frequent ones, of those that occur twice.
        max_bytes: the largest file; the least useful n-grams are left out.

    Raises:
        InputError: there is no word, or the words alone take too many bytes.
    """
    texts = [plain_words(sentence) for sentence in sentences]
    words = _frequent_words(texts, min(max_words, _BASE - FIRST_WORD))
    letters = np.frombuffer("\n".join(words).encode(), np.uint8)
    room = max_bytes - letters.size - _ID_BYTES * (len(words) + FIRST_WORD) - _HEADER_BYTES
    if room < 0:
        raise InputError(f"{len(words)} words do not fit into {max_bytes} bytes; ask for fewer")
    unigrams, bigrams, trigrams = _estimate(_token_stream(texts, words), len(words) + FIRST_WORD)
    bigrams = bigrams.best(int(room * _BIGRAM_SHARE) // _BIGRAM_BYTES)
    room -= bigrams.keys.size * _BIGRAM_BYTES
    stored = _positions(bigrams.keys, trigrams.keys // _BASE) >= 0
    trigrams = trigrams.best(room // _TRIGRAM_BYTES, stored)
    return WordLanguageModel({"words": letters, **_packed(unigrams, bigrams, trigrams)})


def plain_words(sentence: str) -> list[str]:
    """The words of a sentence, without apostrophes around them."""
    return [word for word in (part.strip("'") for part in sentence.split()) if word]


def _frequent_words(texts: list[list[str]], most: int) -> list[str]:
    counts = Counter(word for text in texts for word in text)
    if not counts:
        raise InputError("the texts hold no word; give sentences")
    ordered = sorted(counts, key=lambda word: (-counts[word], word))
    return sorted(word for word in ordered[:most] if counts[word] > 1)


def _token_stream(texts: list[list[str]], words: list[str]) -> Int64[np.ndarray, "tokens"]:
    """All sentences in a row, each between two boundaries."""
    ids = {word: FIRST_WORD + index for index, word in enumerate(words)}
    stream: list[int] = []
    for text in texts:
        if text:
            stream += [BOUNDARY, *(ids.get(word, UNKNOWN) for word in text), BOUNDARY]
    return np.array(stream, np.int64)


def _estimate(stream: Int64[np.ndarray, "tokens"], num_ids: int) -> tuple[Logs, _Ngrams, _Ngrams]:
    """Log-probabilities of single words, and all bigrams and trigrams."""
    # Boundaries come in pairs: the second of a pair starts a sentence and follows nothing.
    is_start = np.concatenate(([True], (stream[1:] == BOUNDARY) & (stream[:-1] == BOUNDARY)))
    counts = np.bincount(stream[~is_start], minlength=num_ids)
    discount = _discount(counts)
    shared = discount * (counts > 0).sum() / num_ids
    unigrams = np.log((np.maximum(counts - discount, 0) + shared) / counts.sum())
    pairs = stream[:-1] * _BASE + stream[1:]
    bigrams = _discounted(pairs[~is_start[1:]], lambda keys: unigrams[keys % _BASE])
    crosses = is_start[1:-1] | is_start[2:]
    triples = (pairs[:-1] * _BASE + stream[2:])[~crosses]
    tails = _BASE * _BASE
    trigrams = _discounted(
        triples, lambda keys: bigrams.logs[_positions(bigrams.keys, keys % tails)]
    )
    return unigrams, bigrams, trigrams


def _discount(counts: np.ndarray) -> float:
    """The constant that every count gives up, from how many n-grams occur once and twice."""
    once, twice = int((counts == 1).sum()), int((counts == 2).sum())
    return once / (once + 2 * twice) if once and twice else 0.5


def _discounted(occurrences: Keys, shorter: Callable[[Keys], Logs]) -> _Ngrams:
    """Estimate n-grams of one order from all their occurrences."""
    keys, counts = np.unique(occurrences, return_counts=True)
    _, rows = np.unique(keys // _BASE, return_inverse=True)
    totals, kinds = np.bincount(rows, counts)[rows], np.bincount(rows)[rows]
    discount = _discount(counts)
    backed_off = np.log(discount * kinds / totals) + shorter(keys)
    logs = np.log((counts - discount) / totals + np.exp(backed_off))
    return _Ngrams(keys, logs, counts * (logs - backed_off))


def _positions(keys: Keys, wanted: Keys) -> Int64[np.ndarray, "wanted"]:
    """Where keys are in an ascending row; -1 for those that are not."""
    if not keys.size:
        return np.full(wanted.shape, -1, np.int64)
    found = np.minimum(np.searchsorted(keys, wanted), keys.size - 1)
    return np.where(keys[found] == wanted, found, -1)


def _packed(unigrams: Logs, bigrams: _Ngrams, trigrams: _Ngrams) -> dict[str, np.ndarray]:
    """The tensors of a file. Backoffs are fitted to the rounded costs, so that all sums to one."""
    costs = [_rounded(-logs) for logs in (unigrams, bigrams.logs, trigrams.logs)]
    single, double, triple = (cost / -STEPS for cost in costs)
    contexts = bigrams.keys // _BASE
    backoffs = _rounded(
        HIGHEST_BACKOFF - _backoffs(contexts, unigrams.size, double, single[bigrams.keys % _BASE])
    )
    tails = trigrams.keys % (_BASE * _BASE)
    found = _positions(bigrams.keys, tails)
    lower = (HIGHEST_BACKOFF - backoffs / STEPS)[tails // _BASE] + single[tails % _BASE]
    if bigrams.keys.size:
        lower = np.where(found >= 0, double[found], lower)
    rows = _positions(bigrams.keys, trigrams.keys // _BASE)
    longer = _rounded(HIGHEST_BACKOFF - _backoffs(rows, bigrams.keys.size, triple, lower))
    return {
        "unigram_costs": costs[0],
        "unigram_backoffs": backoffs,
        "bigram_counts": np.bincount(contexts, minlength=unigrams.size).astype(np.uint16),
        "bigram_words": (bigrams.keys % _BASE).astype(np.uint16),
        "bigram_costs": costs[1],
        "bigram_backoffs": longer,
        "trigram_counts": np.bincount(rows, minlength=bigrams.keys.size).astype(np.uint16),
        "trigram_words": (trigrams.keys % _BASE).astype(np.uint16),
        "trigram_costs": costs[2],
    }


def _backoffs(rows: Keys, num_rows: int, logs: Logs, lower: Logs) -> Float64[np.ndarray, "rows"]:
    """What a shorter context's probabilities are scaled by, where a longer one lacks the word."""
    kept = np.bincount(rows, np.exp(logs), num_rows)
    same = np.bincount(rows, np.exp(lower), num_rows)
    floor = 1e-6
    return np.log(np.maximum(1 - kept, floor)) - np.log(np.maximum(1 - same, floor))


def _rounded(costs: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(costs * STEPS), 0, 255).astype(np.uint8)
