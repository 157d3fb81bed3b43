"""The logs of a run: metrics.jsonl, validation.jsonl, TensorBoard, and lines of progress.

Owns the formats; knows nothing of training. Weights & Biases gets the same scalars where a recipe
asks for it.
"""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, TextIO

import numpy as np
import torch
from jaxtyping import Float, UInt8
from matplotlib import colormaps
from torch.utils.tensorboard import SummaryWriter

from ..errors import MissingDependencyError
from ..metrics.signals import magnitude_blocks, mel_filters
from .run_folder import METRICS_NAME, VALIDATION_NAME

# A run shows a point of its curves after so many steps, but so many points at least.
_STEPS_A_POINT = 50
_FEWEST_POINTS = 6


class TensorBoardLog:
    """The TensorBoard log of a run that continues from ``step``.

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
        """Log audio, clipped to +-1."""
        # TensorBoard prints about louder samples, on the standard output.
        clipped = torch.from_numpy(np.clip(mono, -1.0, 1.0))
        self._writer.add_audio(name, clipped[None], step, sampling_rate)

    def picture(self, name: str, picture: UInt8[np.ndarray, "height columns 3"], step: int) -> None:
        """Log an image."""
        self._writer.add_image(name, picture, step, dataformats="HWC")

    def text(self, name: str, text: str, step: int) -> None:
        """Log a text."""
        self._writer.add_text(name, text, step)

    def close(self) -> None:
        """Write what is left to write."""
        self._writer.close()


class Validation(Protocol):
    """The result of a validation."""

    @property
    def scalars(self) -> dict[str, float]:
        """By name; "score" is what the best checkpoint has least of."""

    def show(self, board: TensorBoardLog, step: int) -> None:
        """Log audio, images and texts to TensorBoard."""


class ProgressLog:
    """The logs of a run that continues from ``step``; a context manager that closes them.

    Args:
        folder: folder of the run.
        step: steps made so far; what TensorBoard shows of later ones is withdrawn.
        report: called with lines of progress.
        wandb_project: where on Weights & Biases to log too; empty for nowhere.
        max_steps: the steps of the whole run.

    Raises:
        MissingDependencyError: Weights & Biases is wanted, but not installed.
    """

    def __init__(
        self,
        folder: Path,
        step: int,
        report: Callable[[str], None],
        wandb_project: str = "",
        max_steps: int = 0,
    ) -> None:
        self._max_steps = max_steps
        self._pace = Pace()
        self._folder = folder
        self._report = report
        self._remote = _open_wandb(wandb_project, folder) if wandb_project else None
        self._metrics: TextIO = (folder / METRICS_NAME).open("a", encoding="utf-8")
        self._board = TensorBoardLog(folder / "tensorboard", step, report)

    def __enter__(self) -> "ProgressLog":
        return self

    def __exit__(self, *_: object) -> None:
        self._board.close()
        self._metrics.close()
        if self._remote is not None:
            self._remote.finish()

    def step(self, step: int, scalars: dict[str, float]) -> None:
        """Log a step: as a point of the curves, and a line of progress, only now and then.

        Args:
            step: the steps made so far.
            scalars: what to log, by name.
        """
        show = step % max(1, min(_STEPS_A_POINT, self._max_steps // _FEWEST_POINTS)) == 0
        # Flushed, so that a killed run leaves no checkpoint ahead of its metrics.
        self._metrics.write(json.dumps({"step": step, **scalars}) + "\n")
        self._metrics.flush()
        self._pace.step()
        if show:
            self._show({f"train/{name}": value for name, value in scalars.items()}, step)
        if show or self._pace.line_due():
            parts = " ".join(f"{name} {value:.4g}" for name, value in scalars.items())
            self._report(
                f"step {step}/{self._max_steps} {parts}{self._pace.left(step, self._max_steps)}"
            )
            self._pace.line_shown()

    def validation(self, step: int, result: Validation) -> None:
        """Log a validation."""
        self._show({f"valid/{name}": value for name, value in result.scalars.items()}, step)
        result.show(self._board, step)
        with (self._folder / VALIDATION_NAME).open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **result.scalars}) + "\n")
        parts = " ".join(f"{name} {value:.3f}" for name, value in result.scalars.items())
        self._report(f"valid {step} {parts}")
        self._pace.pause()

    def _show(self, scalars: dict[str, float], step: int) -> None:
        self._board.scalars(scalars, step)
        if self._remote is not None:
            self._remote.log(scalars, step=step)


def _moving_mean(mean: float, value: float) -> float:
    """The mean over about the last ten values; a mean of 0 has had none yet."""
    return 0.9 * mean + 0.1 * value if mean else value


class Pace:
    """Seconds a step, and how long a run will still take."""

    _LONGEST_SILENCE = 10.0

    def __init__(self) -> None:
        self._last = self._last_line = time.monotonic()
        self._seconds = 0.0

    def step(self) -> None:
        """Note that a step has ended."""
        now = time.monotonic()
        self._seconds = _moving_mean(self._seconds, now - self._last)
        self._last = now

    def pause(self) -> None:
        """Leave out of the next step's time what happened since the last one."""
        self._last = time.monotonic()

    def line_due(self) -> bool:
        """Whether the last line of progress is ten seconds old."""
        return self._last - self._last_line >= self._LONGEST_SILENCE

    def line_shown(self) -> None:
        """Note that a line of progress was shown."""
        self._last_line = self._last

    def left(self, step: int, max_steps: int) -> str:
        """The pace and the time left, as the end of a line; empty before it is known."""
        if not self._seconds:
            return ""
        return f", {self._seconds:.3g} s/step, {_duration((max_steps - step) * self._seconds)} left"


def _duration(seconds: float) -> str:
    """A duration in the unit that suits it."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


class Throughput:
    """Audio a second and use of the device, over the last steps.

    Args:
        operations: of one second of audio, forward and backward.
        peak: operations a second of all devices together.
    """

    def __init__(self, operations: float, peak: float) -> None:
        self._operations = operations
        self._peak = peak
        self._last = time.monotonic()
        self._rate = 0.0

    def step(self, audio_seconds: float) -> dict[str, float]:
        """After a step over so much audio: ``audio_seconds_per_second`` and ``utilization``."""
        now = time.monotonic()
        self._rate = _moving_mean(self._rate, audio_seconds / max(now - self._last, 1e-9))
        self._last = now
        return {
            "audio_seconds_per_second": self._rate,
            "utilization": self._rate * self._operations / self._peak,
        }


def _open_wandb(project: str, folder: Path) -> Any:
    try:
        import wandb
    except ImportError as error:
        raise MissingDependencyError(
            "wandb is set, but Weights & Biases is not installed: pip install wandb"
        ) from error
    return wandb.init(project=project, dir=str(folder), resume="allow")


_WINDOW = 1024
_NUM_MELS = 96
_RANGE_DECIBELS = 80.0


def compared(
    reference: Float[np.ndarray, "samples"], estimate: Float[np.ndarray, "samples"], rate: int
) -> UInt8[np.ndarray, "height columns 3"]:
    """The log-mel spectrogram of a recording above that of its estimate, on one scale."""
    pictures = [_decibels(audio, rate) for audio in (reference, estimate)]
    top = pictures[0].max()
    levels = [np.clip((p - top) / _RANGE_DECIBELS + 1, 0, 1)[::-1] for p in pictures]
    line = np.ones((2, levels[0].shape[1]))
    coloured = colormaps["magma"](np.concatenate((levels[0], line, levels[1])))
    return (coloured[..., :3] * 255).astype(np.uint8)


def _decibels(audio: np.ndarray, rate: int) -> Float[np.ndarray, "mels columns"]:
    filters = mel_filters(rate, _WINDOW, _NUM_MELS).T
    blocks = [b @ filters for b in magnitude_blocks(audio, _WINDOW, _WINDOW // 4)]
    return 20 * np.log10(np.maximum(np.concatenate(blocks), 1e-5)).T
