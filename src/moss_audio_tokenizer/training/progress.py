"""What a run tells of itself: metrics.jsonl, validation.jsonl, TensorBoard, lines of progress.

Owns the formats; knows nothing of training.
"""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import torch
from torch.utils.tensorboard import SummaryWriter

from .run_folder import METRICS_NAME, VALIDATION_NAME
from .validation import ValidationResult


class ProgressLog:
    """The logs of a run that goes on from ``step``; a context manager that closes them.

    Args:
        folder: folder of the run.
        step: steps made so far; what TensorBoard shows of later ones is withdrawn.
        step_seconds: audio that a step reads.
        report: called with lines of progress.
    """

    def __init__(
        self, folder: Path, step: int, step_seconds: float, report: Callable[[str], None]
    ) -> None:
        self._folder = folder
        self._first = step
        self._step_seconds = step_seconds
        self._report = report
        self._started = time.monotonic()
        self._metrics: TextIO = (folder / METRICS_NAME).open("a", encoding="utf-8")
        self._board: Any = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)

    def __enter__(self) -> "ProgressLog":
        return self

    def __exit__(self, *_: object) -> None:
        self._board.close()
        self._metrics.close()

    def step(self, step: int, scalars: dict[str, float], show: bool) -> None:
        """Note a step; with ``show`` also on the board and as a line of progress."""
        speed = (step - self._first) / (time.monotonic() - self._started)
        seconds = speed * self._step_seconds
        line = json.dumps({"step": step, **scalars, "audio_seconds_per_second": seconds})
        # Flushed, so that a killed run leaves no checkpoint ahead of its metrics.
        self._metrics.write(line + "\n")
        self._metrics.flush()
        if not show:
            return
        for name, value in scalars.items():
            self._board.add_scalar(f"train/{name}", value, step)
        parts = " ".join(f"{name} {value:.4g}" for name, value in scalars.items())
        self._report(f"step {step} {parts} | {speed:.2f} steps/s, {seconds:.1f} audio s/s")

    def validation(self, step: int, result: ValidationResult, sampling_rate: int) -> None:
        """Note a validation, with its reconstruction to listen to."""
        for name, value in result.scalars.items():
            self._board.add_scalar(f"valid/{name}", value, step)
        # TensorBoard prints about louder samples, on the standard output.
        estimate = torch.from_numpy(np.clip(result.estimate, -1.0, 1.0))
        self._board.add_audio("estimate", estimate[None], step, sampling_rate)
        with (self._folder / VALIDATION_NAME).open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **result.scalars}) + "\n")
        parts = " ".join(f"{name} {value:.3f}" for name, value in result.scalars.items())
        self._report(f"valid {step} {parts}")
