"""Which text token belongs to which frame: alignment by CTC, and the cursor of generation.

Owns connectionist temporal classification in NumPy: greedy decoding, the Viterbi search in its
lattice (Graves et al. 2006), and word times. Speech that is generated with an alignment moves
through its text token by token without a skip, so that no word can be left out; how long a token
lasts is the model's prediction (`tts.text_alignment`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Bool, Float, Int64

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
    frame_rate: float,
    first_second: float = 0.0,
) -> list[Word]:
    """The words of a transcript with their times, by forced alignment.

    A causal model emits a token when it is over: a word lasts from the last token of the word
    before to its own last token.

    Args:
        text: transcript.
        scores: CTC log-probabilities of its recording.
        tokens: text tokens of the model.
        frame_rate: frames a second.
        first_second: start of the recording.
    """
    ids, words = tokens.encode(text), text.split()
    if not ids or not words:
        return []
    steps = token_steps(scores, ids, tokens.num_tokens)
    ends = [0] * len(words)
    for count, step in enumerate(steps.tolist(), start=1):
        index = len(tokens.decode(ids[:count]).split()) - 1
        ends[min(max(index, 0), len(words) - 1)] = step + 1
    times = np.minimum(np.maximum.accumulate(ends), len(scores) - 1) / frame_rate
    return [
        Word(word, float(start) + first_second, float(end) + first_second)
        for word, start, end in zip(words, [0.0, *times[:-1]], times, strict=True)
    ]


def heard_word_times(
    text: str,
    scores: Float[np.ndarray, "steps classes"],
    tokens: TextCodec,
    step_rate: float,
    first_second: float = 0.0,
) -> list[Word]:
    """The words of a transcript with their times, by forced alignment.

    A bidirectional model emits a token within its sound: a word lasts from its first token to its
    last.

    Args:
        text: transcript.
        scores: CTC log-probabilities of its recording.
        tokens: text tokens of the model.
        step_rate: steps a second.
        first_second: start of the recording.
    """
    ids, words = tokens.encode(text), text.split()
    if not ids or not words:
        return []
    spans: dict[int, tuple[int, int]] = {}
    for count, step in enumerate(token_steps(scores, ids, tokens.num_tokens).tolist(), start=1):
        before = tokens.decode(ids[:count])
        index = min(len(before.split()), len(words)) - 1
        if before and not before[-1].isspace():
            spans[index] = (spans.get(index, (step,))[0], step + 1)
    return [
        Word(words[index], first / step_rate + first_second, end / step_rate + first_second)
        for index, (first, end) in sorted(spans.items())
    ]


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


@dataclass(frozen=True)
class FrameAlignment:
    """The alignment condition of one frame.

    Attributes:
        tokens: text token of each row.
        begins: whether the frame is the first of its token.
        remaining: number of frames of the same token that follow.
    """

    tokens: Int64[np.ndarray, "rows"]
    begins: Bool[np.ndarray, "rows"]
    remaining: Int64[np.ndarray, "rows"]


class TextCursor:
    """Position of each row in its text.

    Args:
        tokens: text tokens of each row, followed by the end token.
        first: index of the token that each row says first.
    """

    def __init__(self, tokens: Sequence[Sequence[int]], first: Sequence[int]) -> None:
        self._last = np.array([len(row) - 1 for row in tokens], np.int64)
        self._ids = np.zeros((len(tokens), max(map(len, tokens))), np.int64)
        for row, ids in enumerate(tokens):
            self._ids[row, : len(ids)] = ids
        # Before the first token, at the end of what came before it.
        self._position = np.array(list(first), np.int64) - 1
        self._remaining = np.zeros(len(tokens), np.int64)

    @property
    def next_token(self) -> Int64[np.ndarray, "rows"]:
        """The token that would begin in the next frame."""
        return self._token_at(np.minimum(self._position + 1, self._last))

    @property
    def may_end(self) -> Bool[np.ndarray, "rows"]:
        """Rows whose last token is over."""
        ends = (self._position == self._last - 1) & (self._remaining == 0)
        may: np.ndarray = (self._position == self._last) | ends
        return may

    def step(self, durations: Int64[np.ndarray, "rows"]) -> FrameAlignment:
        """Move to the next frame.

        Args:
            durations: number of frames behind the first, for rows whose next token begins now.
        """
        begins = (self._remaining == 0) & (self._position < self._last)
        self._position = self._position + begins
        following = np.maximum(self._remaining - 1, 0)
        self._remaining = np.where(begins, durations, following)
        return FrameAlignment(self._token_at(self._position), begins, self._remaining)

    def _token_at(self, position: np.ndarray) -> np.ndarray:
        return np.take_along_axis(self._ids, position[:, None], 1)[:, 0]
