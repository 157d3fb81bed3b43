"""What is said in each frame of speech, decided before the first: durations and conditions.

Owns the way from phonemes to the condition of every frame, in NumPy, for models with a text
encoder (`tts.text_encoder`); the loop of generation is `tts_generation`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Int64

from .phonemes import TICKS, Schedule


@dataclass(frozen=True)
class EncodedText:
    """A text, read by a text encoder.

    Attributes:
        duration_scores: logits of each token's duration, from 0 ticks on.
        conditions: what each token adds to a frame by its first, second and third tick.
        remaining: what the number of ticks that a token still lasts adds.
    """

    duration_scores: Float32[np.ndarray, "tokens durations"]
    conditions: Float32[np.ndarray, "tokens ticks width"]
    remaining: Float32[np.ndarray, "ticks counts width"]

    def frames(self) -> Float32[np.ndarray, "frames width"]:
        """The condition of each frame; at least one frame."""
        ticks = median_durations(self.duration_scores)
        ticks[-1] = max(ticks[-1], TICKS if not ticks[:-1].any() else 0)
        schedule = Schedule.of(ticks)
        rows = np.arange(TICKS)
        said = self.conditions[schedule.tokens, rows] + self.remaining[rows, schedule.left]
        return said.sum(1)


def median_durations(
    scores: Float32[np.ndarray, "tokens durations"],
) -> Int64[np.ndarray, " tokens"]:
    """The median of each predicted distribution: rare long durations do not move it."""
    shares = np.exp(scores - scores.max(-1, keepdims=True))
    below = np.cumsum(shares, -1) < shares.sum(-1, keepdims=True) / 2
    return below.sum(-1).astype(np.int64)


class FramePlan:
    """The conditions of a batch, which also say how long each row is.

    Args:
        rows: conditions of the frames of each row.

    Attributes:
        lengths: number of frames of each row.
    """

    def __init__(self, rows: Sequence[Float32[np.ndarray, "_ width"]]) -> None:
        self.lengths = np.array([len(row) for row in rows], np.int64)
        longest = int(self.lengths.max())
        self._conditions = np.stack(
            [np.pad(row, ((0, longest + 1 - len(row)), (0, 0))) for row in rows]
        )

    def at(self, frame: int) -> Float32[np.ndarray, "rows width"]:
        """The condition of a frame; zero for rows that are over."""
        return self._conditions[:, frame]

    def ended(self, frame: int) -> Bool[np.ndarray, "rows"]:
        """Rows that are over before a frame."""
        return self.lengths <= frame
