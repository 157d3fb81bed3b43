"""The batch of a step: rows of audio (`Batch`) or of codes (`CodedBatch`), with their texts.

Owns their shape and how a batch is divided among passes; does not know where rows come from, nor
how a model pads codes.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Int64, UInt16

from ...errors import TrainingError


@dataclass(frozen=True)
class Batch:
    """Rows of audio and their texts.

    Attributes:
        audio: zero behind the end of each row.
        lengths: samples of each row that are recorded ones, at least 1.
        texts: of each row; empty for a row of audio alone.
        tasks: what each text is: "asr", "ms_asr" or "caption"; empty for a row of audio alone.
        names: what the manifest calls each row's file.
    """

    audio: Float32[np.ndarray, "rows channels samples"]
    lengths: Int64[np.ndarray, " rows"]
    texts: tuple[str, ...]
    tasks: tuple[str, ...]
    names: tuple[str, ...]

    def part(self, index: int, count: int) -> "Batch":
        """The rows of part ``index`` of ``count`` equal ones, in order.

        Raises:
            TrainingError: the rows cannot be shared out equally.
        """
        rows, rest = divmod(len(self.names), count)
        if rest or not rows:
            raise TrainingError(
                f"{len(self.names)} rows cannot be shared out equally to {count}; make "
                f"data.batch_size (or data.row_multiple) a multiple of {count}"
            )
        own = slice(index * rows, (index + 1) * rows)
        return Batch(
            self.audio[own], self.lengths[own], self.texts[own], self.tasks[own], self.names[own]
        )


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
