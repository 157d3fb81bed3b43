"""What a run tells of itself: metrics.jsonl, validation.jsonl, boards, lines of progress.

Owns the formats; knows nothing of training. TensorBoard is `board.py`'s; Weights & Biases gets the
same scalars where it is asked for.
"""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, TextIO

from ..errors import MissingDependencyError
from .board import Board
from .run_folder import METRICS_NAME, VALIDATION_NAME


class Validation(Protocol):
    """What a kind of run found in a validation."""

    @property
    def scalars(self) -> dict[str, float]:
        """By name; "score" is what the best checkpoint has least of."""

    def show(self, board: Board, step: int) -> None:
        """Put on the board what there is to look at, to listen to and to read."""


class ProgressLog:
    """The logs of a run that goes on from ``step``; a context manager that closes them.

    Args:
        folder: folder of the run.
        step: steps made so far; what TensorBoard shows of later ones is withdrawn.
        report: called with lines of progress.
        wandb_project: where on Weights & Biases to log too; empty for nowhere.

    Raises:
        MissingDependencyError: Weights & Biases is wanted, but not installed.
    """

    def __init__(
        self, folder: Path, step: int, report: Callable[[str], None], wandb_project: str = ""
    ) -> None:
        self._folder = folder
        self._report = report
        self._remote = _open_wandb(wandb_project, folder) if wandb_project else None
        self._metrics: TextIO = (folder / METRICS_NAME).open("a", encoding="utf-8")
        self._board = Board(folder / "tensorboard", step, report)

    def __enter__(self) -> "ProgressLog":
        return self

    def __exit__(self, *_: object) -> None:
        self._board.close()
        self._metrics.close()
        if self._remote is not None:
            self._remote.finish()

    def step(self, step: int, scalars: dict[str, float], show: bool) -> None:
        """Note a step; with ``show`` also on the boards and as a line of progress."""
        # Flushed, so that a killed run leaves no checkpoint ahead of its metrics.
        self._metrics.write(json.dumps({"step": step, **scalars}) + "\n")
        self._metrics.flush()
        if show:
            self._show({f"train/{name}": value for name, value in scalars.items()}, step)
            parts = " ".join(f"{name} {value:.4g}" for name, value in scalars.items())
            self._report(f"step {step} {parts}")

    def validation(self, step: int, result: Validation) -> None:
        """Note a validation, with whatever it has to show."""
        self._show({f"valid/{name}": value for name, value in result.scalars.items()}, step)
        result.show(self._board, step)
        with (self._folder / VALIDATION_NAME).open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **result.scalars}) + "\n")
        parts = " ".join(f"{name} {value:.3f}" for name, value in result.scalars.items())
        self._report(f"valid {step} {parts}")

    def _show(self, scalars: dict[str, float], step: int) -> None:
        self._board.scalars(scalars, step)
        if self._remote is not None:
            self._remote.log(scalars, step=step)


class Throughput:
    """Audio a second and use of the device, over the last steps.

    Args:
        operations: of one second of audio, forward and backward.
        peak: operations a second of all devices together.
    """

    _MOMENTUM = 0.9

    def __init__(self, operations: float, peak: float) -> None:
        self._operations = operations
        self._peak = peak
        self._last = time.monotonic()
        self._rate = 0.0

    def step(self, audio_seconds: float) -> dict[str, float]:
        """After a step over so much audio: ``audio_seconds_per_second`` and ``utilisation``."""
        now = time.monotonic()
        rate = audio_seconds / max(now - self._last, 1e-9)
        self._last = now
        blend = self._MOMENTUM if self._rate else 0.0
        self._rate = blend * self._rate + (1 - blend) * rate
        return {
            "audio_seconds_per_second": self._rate,
            "utilisation": self._rate * self._operations / self._peak,
        }


def _open_wandb(project: str, folder: Path) -> Any:
    try:
        import wandb
    except ImportError as error:
        raise MissingDependencyError(
            "wandb is set, but Weights & Biases is not installed: pip install wandb"
        ) from error
    return wandb.init(project=project, dir=str(folder), resume="allow")
