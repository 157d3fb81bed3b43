"""Rows of codes with their texts, and the batch of a step.

Owns their shape and how a batch is shared out; does not know where rows come from, nor how a model
pads them.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt16

from ...errors import TrainingError


@dataclass(frozen=True)
class Segment:
    """A clip in a row: its text, and how many frames it has."""

    text: str
    frames: int


@dataclass(frozen=True, eq=False)
class CodedRow:
    """Codes of one clip, or of several of one speaker, one after another.

    Attributes:
        codes: of the layers in use.
        segments: the clips, in order; one alone can be cut off as a prompt.
        speaker: whose voice it is; empty where that is not known.
        name: what the manifests call the clips.
    """

    codes: UInt16[np.ndarray, "num_quantizers frames"]
    segments: tuple[Segment, ...]
    speaker: str
    name: str

    @property
    def text(self) -> str:
        """What is said, with a blank between clips."""
        return " ".join(segment.text for segment in self.segments)

    @property
    def num_frames(self) -> int:
        """Frames of all clips."""
        return int(self.codes.shape[1])


@dataclass(frozen=True, eq=False)
class CodedBatch:
    """Rows of unequal lengths.

    Attributes:
        rows: in no particular order.
        frame_rate: frames a second.
    """

    rows: tuple[CodedRow, ...]
    frame_rate: float

    @property
    def names(self) -> tuple[str, ...]:
        """Of every row."""
        return tuple(row.name for row in self.rows)

    @property
    def audio_seconds(self) -> float:
        """Of all rows together."""
        return sum(row.num_frames for row in self.rows) / self.frame_rate

    def part(self, index: int, count: int) -> "CodedBatch":
        """The rows of part ``index`` of ``count`` equal ones, in order.

        Raises:
            TrainingError: the rows cannot be shared out equally.
        """
        rows, rest = divmod(len(self.rows), count)
        if rest or not rows:
            raise TrainingError(
                f"{len(self.rows)} rows cannot be shared out equally to {count}; make "
                f"data.row_multiple a multiple of {count}"
            )
        return CodedBatch(self.rows[index * rows : (index + 1) * rows], self.frame_rate)
