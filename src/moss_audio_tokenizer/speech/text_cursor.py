"""The text position of each row while speech is generated with an alignment.

Moves token by token without a skip, so that no word can be left out; how long a token lasts is
the model's prediction (`tts.text_alignment`).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int64


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
    def token(self) -> Int64[np.ndarray, "rows"]:
        """The current token of each row."""
        return self._token_at(self._position)

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
        return FrameAlignment(self.token, begins, self._remaining)

    def _token_at(self, position: np.ndarray) -> np.ndarray:
        return np.take_along_axis(self._ids, position[:, None], 1)[:, 0]
