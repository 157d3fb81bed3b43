"""Which text token belongs to which frame: connectionist temporal classification in NumPy.

Owns greedy decoding, the Viterbi search in the lattice of CTC (Graves et al. 2006), and the times
of words.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Float, Int64

from .tokens import TextCodec

_IMPOSSIBLE = -np.inf


@dataclass(frozen=True)
class Word:
    """A recognized word.

    Attributes:
        text: the word.
        start_seconds: its start.
        end_seconds: its end.
    """

    text: str
    start_seconds: float
    end_seconds: float


def greedy_tokens(scores: Float[np.ndarray, "steps classes"], blank: int) -> list[int]:
    """The most probable class of each step, without blanks and repeats."""
    best = scores.argmax(-1).tolist()
    return [token for before, token in pairwise([blank, *best]) if token not in (before, blank)]


def word_times(
    text: str,
    scores: Float[np.ndarray, "steps classes"],
    tokens: TextCodec,
    step_rate: float,
    first_second: float = 0.0,
    causal: bool = True,
) -> list[Word]:
    """The words of a transcript with their times, by forced alignment.

    A causal model emits a token when it is over: a word lasts from the last token of the word
    before to its own last token. A bidirectional model emits a token within its sound: a word
    lasts from its first token to its last.

    Args:
        text: transcript.
        scores: CTC log-probabilities of its recording.
        tokens: text tokens of the model.
        step_rate: steps a second.
        first_second: start of the recording.
        causal: whether the model sees no step after the one that it scores.
    """
    ids, words = tokens.encode(text), text.split()
    if not ids or not words:
        return []
    spans: dict[int, tuple[int, int]] = {}
    for count, step in enumerate(token_steps(scores, ids, tokens.num_tokens).tolist(), start=1):
        before = tokens.decode(ids[:count])
        if causal or before[-1:].strip():  # the word before a space ends before it
            index = min(max(len(before.split()), 1), len(words)) - 1
            spans[index] = (spans.get(index, (step,))[0], step + 1)
    if causal:
        spans = _without_gaps(spans, len(words), len(scores) - 1)
    return [
        Word(words[index], first / step_rate + first_second, end / step_rate + first_second)
        for index, (first, end) in sorted(spans.items())
    ]


def _without_gaps(
    spans: dict[int, tuple[int, int]], num_words: int, last_step: int
) -> dict[int, tuple[int, int]]:
    """Spans that begin where the span before them ends."""
    given = [spans.get(index, (0, 0))[1] for index in range(num_words)]
    ends = np.minimum(np.maximum.accumulate(given), last_step).tolist()
    return dict(enumerate(pairwise([0, *ends])))


def token_steps(
    scores: Float[np.ndarray, "steps classes"], ids: Sequence[int], blank: int
) -> Int64[np.ndarray, " tokens"]:
    """The step at which the most likely path emits each token.

    Args:
        scores: log-probabilities of the classes in each step.
        ids: token ids, in order.
        blank: class of steps that emit no token.

    Returns:
        Ascending steps; evenly spaced where there are more tokens than steps.
    """
    steps, count = len(scores), len(ids)
    repeats = sum(a == b for a, b in pairwise(ids))
    if count + repeats > steps:
        return np.linspace(0, steps - 1, count).round().astype(np.int64)
    classes = np.full(2 * count + 1, blank)
    classes[1::2] = ids
    # The blank between two different tokens may be skipped.
    skips = np.zeros(len(classes), bool)
    skips[3::2] = classes[3::2] != classes[1:-2:2]
    came_from = np.zeros((steps, len(classes)), np.int64)
    best = np.full(len(classes), _IMPOSSIBLE)
    best[:2] = scores[0, classes[:2]]
    for step in range(1, steps):
        moves = np.stack([best, _shifted(best, 1), np.where(skips, _shifted(best, 2), _IMPOSSIBLE)])
        came_from[step] = moves.argmax(0)
        best = moves.max(0) + scores[step, classes]
    return _first_steps(came_from, len(classes) - 1 - int(best[-2:].argmax() == 0), count)


def _shifted(values: np.ndarray, by: int) -> np.ndarray:
    return np.concatenate((np.full(by, _IMPOSSIBLE), values))[: len(values)]


def _first_steps(came_from: np.ndarray, state: int, count: int) -> Int64[np.ndarray, " tokens"]:
    """Backtrack: the first step in the state of each token."""
    emitted = np.zeros(count, np.int64)
    for step in range(len(came_from) - 1, -1, -1):
        if state % 2:
            emitted[state // 2] = step
        state -= int(came_from[step, state])
    return emitted
