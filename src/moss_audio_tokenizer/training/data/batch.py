"""The batch of a step: rows of audio, with what is known of each.

Owns its shape and how it is shared out; does not know where rows come from.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Int64

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
