"""A word language model from sentences: counts, smoothing and pruning, by NumPy.

Interpolated absolute discounting (Ney, Essen and Kneser, 1994): every count gives up a constant,
which the shorter context shares out. Not Kneser-Ney, whose counts of contexts mislead a pruned
model. Owns no file; `word_language_model.py` is what comes out.
"""

from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
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

MAX_BYTES = 4_500_000
MAX_WORDS = 55_000
# By how much the counts of a sentence may be multiplied.
WEIGHTS = range(1, 1001)
# Ids are 16 bits; a row of keys is the ids of an n-gram side by side.
_BASE = 1 << 16
# What an id and an n-gram take in the file beside the letters of words, and what its header may.
_ID_BYTES, _BIGRAM_BYTES, _TRIGRAM_BYTES, _HEADER_BYTES = 4, 6, 3, 2_000
# Of what the words leave, bigrams get this share.
_BIGRAM_SHARE = 0.5
Keys = Int64[np.ndarray, "ngrams"]
Logs = Float64[np.ndarray, "ngrams"]
Tokens = Int64[np.ndarray, "tokens"]


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
    sentences: Iterable[str] | Mapping[str, int],
    max_words: int = MAX_WORDS,
    max_bytes: int = MAX_BYTES,
) -> WordLanguageModel:
    """A trigram model of sentences.

    Args:
        sentences: words with blanks between them, as `text_preparation.spell` writes them.
            Apostrophes around a word are taken as quotation marks. A mapping gives each a weight,
            a whole number of `WEIGHTS`, by which its counts are multiplied. The discount is found
            for the sentences of each weight separately, from their counts without it, since a
            sentence that is weighted is not one that was seen often.
        max_words: keep at most so many words, the most frequent ones, of those that occur twice.
            The weight counts here: a word that occurs once, in a sentence of weight 2 or more, is
            known.
        max_bytes: the largest file; the least useful n-grams are left out.

    Raises:
        InputError: there is no word, a weight is wrong, or the words alone take too many bytes.
    """
    texts = _by_weight(sentences)
    words = _frequent_words(texts, min(max_words, _BASE - FIRST_WORD))
    letters = np.frombuffer("\n".join(words).encode(), np.uint8)
    room = max_bytes - letters.size - _ID_BYTES * (len(words) + FIRST_WORD) - _HEADER_BYTES
    if room < 0:
        raise InputError(f"{len(words)} words do not fit into {max_bytes} bytes; ask for fewer")
    streams = {weight: _token_stream(part, words) for weight, part in texts.items()}
    streams = {weight: stream for weight, stream in streams.items() if stream.size}
    unigrams, bigrams, trigrams = _estimate(streams, len(words) + FIRST_WORD)
    bigrams = bigrams.best(int(room * _BIGRAM_SHARE) // _BIGRAM_BYTES)
    room -= bigrams.keys.size * _BIGRAM_BYTES
    stored = _positions(bigrams.keys, trigrams.keys // _BASE) >= 0
    trigrams = trigrams.best(room // _TRIGRAM_BYTES, stored)
    return WordLanguageModel({"words": letters, **_packed(unigrams, bigrams, trigrams)})


def _by_weight(sentences: Iterable[str] | Mapping[str, int]) -> dict[int, list[str]]:
    if not isinstance(sentences, Mapping):
        return {1: list(sentences)}
    texts: dict[int, list[str]] = {}
    for sentence, weight in sentences.items():
        if weight not in WEIGHTS:
            raise InputError(
                f"the weight of {sentence[:60]!r} is {weight}; give a whole number from "
                f"{WEIGHTS[0]} to {WEIGHTS[-1]:,}"
            )
        texts.setdefault(weight, []).append(sentence)
    return texts


def plain_words(sentence: str) -> list[str]:
    """The words of a sentence, without apostrophes around them."""
    return [word for word in (part.strip("'") for part in sentence.split()) if word]


def _frequent_words(texts: Mapping[int, list[str]], most: int) -> list[str]:
    counts: Counter[str] = Counter()
    for weight, part in texts.items():
        found = Counter(word for text in part for word in plain_words(text))
        counts.update({word: weight * count for word, count in found.items()})
    if not counts:
        raise InputError("the texts hold no word; give sentences")
    ordered = sorted(counts, key=lambda word: (-counts[word], word))
    return sorted(word for word in ordered[:most] if counts[word] > 1)


def _token_stream(texts: list[str], words: list[str]) -> Tokens:
    """All sentences in a row, each between two boundaries."""
    ids = {word: FIRST_WORD + index for index, word in enumerate(words)}
    # Two bytes a word, since a corpus of many books does not fit into memory as lists.
    stream = array("H")
    for text in texts:
        found = [ids.get(word, UNKNOWN) for word in plain_words(text)]
        if found:
            stream.extend((BOUNDARY, *found, BOUNDARY))
    return np.frombuffer(stream, np.uint16).astype(np.int64)


def _estimate(streams: Mapping[int, Tokens], num_ids: int) -> tuple[Logs, _Ngrams, _Ngrams]:
    """Log-probabilities of single words, and all bigrams and trigrams, of streams by weight."""
    kept, total = np.zeros(num_ids), 0.0
    pairs, triples = dict[int, Keys](), dict[int, Keys]()
    for weight, stream in streams.items():
        # Boundaries come in pairs: the second of a pair starts a sentence and follows nothing.
        is_start = np.concatenate(([True], (stream[1:] == BOUNDARY) & (stream[:-1] == BOUNDARY)))
        counts = np.bincount(stream[~is_start], minlength=num_ids)
        kept += weight * np.maximum(counts - _discount(counts), 0)
        total += weight * counts.sum()
        two = stream[:-1] * _BASE + stream[1:]
        pairs[weight] = two[~is_start[1:]]
        triples[weight] = (two[:-1] * _BASE + stream[2:])[~(is_start[1:-1] | is_start[2:])]
    unigrams = np.log((kept + (total - kept.sum()) / num_ids) / total)
    bigrams = _discounted(pairs, lambda keys: unigrams[keys % _BASE])
    tails = _BASE * _BASE
    trigrams = _discounted(
        triples, lambda keys: bigrams.logs[_positions(bigrams.keys, keys % tails)]
    )
    return unigrams, bigrams, trigrams


def _discount(counts: np.ndarray) -> float:
    """The constant that every count gives up, from how many n-grams occur once and twice."""
    once, twice = int((counts == 1).sum()), int((counts == 2).sum())
    return once / (once + 2 * twice) if once and twice else 0.5


def _discounted(occurrences: Mapping[int, Keys], shorter: Callable[[Keys], Logs]) -> _Ngrams:
    """Estimate n-grams of one order from all their occurrences, by weight."""
    found = {weight: np.unique(part, return_counts=True) for weight, part in occurrences.items()}
    keys = np.unique(np.concatenate([part for part, _ in found.values()]))
    counts, kept = np.zeros(keys.size), np.zeros(keys.size)
    for weight, (part, times) in found.items():
        places = np.searchsorted(keys, part)
        counts[places] += weight * times
        kept[places] += weight * (times - _discount(times))
    contexts = keys // _BASE
    rows = np.concatenate(([0], np.cumsum(contexts[1:] != contexts[:-1])))
    totals, rest = np.bincount(rows, counts)[rows], np.bincount(rows, counts - kept)[rows]
    backed_off = np.log(rest / totals) + shorter(keys)
    logs = np.log(kept / totals + np.exp(backed_off))
    return _Ngrams(keys, logs, kept * (logs - backed_off))


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
