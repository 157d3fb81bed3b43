"""TensorBoard, and lines of progress beside it: where the results of a validation are shown.

Owns how things are shown; knows nothing of what they mean.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch.utils.tensorboard import SummaryWriter


class Board:
    """The board of a run that goes on from ``step``.

    Args:
        folder: for TensorBoard's events.
        step: steps made so far; what is shown of later ones is withdrawn.
        report: called with lines of progress.
    """

    def __init__(self, folder: Path, step: int, report: Callable[[str], None]) -> None:
        self.report = report
        self._writer: Any = SummaryWriter(str(folder), purge_step=step + 1)

    def scalars(self, values: dict[str, float], step: int) -> None:
        """Curves by name."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def audio(
        self, name: str, mono: Float[np.ndarray, " samples"], sampling_rate: int, step: int
    ) -> None:
        """Something to listen to, clipped to +-1."""
        # TensorBoard prints about louder samples, on the standard output.
        clipped = torch.from_numpy(np.clip(mono, -1.0, 1.0))
        self._writer.add_audio(name, clipped[None], step, sampling_rate)

    def picture(self, name: str, picture: UInt8[np.ndarray, "height columns 3"], step: int) -> None:
        """Something to look at."""
        self._writer.add_image(name, picture, step, dataformats="HWC")

    def text(self, name: str, text: str, step: int) -> None:
        """Something to read."""
        self._writer.add_text(name, text, step)

    def close(self) -> None:
        """Write what is left to write."""
        self._writer.close()
