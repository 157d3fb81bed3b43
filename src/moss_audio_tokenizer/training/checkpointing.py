"""Atomic checkpoint folders, shared by all trainers.

Owns the folder layout ``checkpoints/step-NNNNNN/`` and ``final/``, what every checkpoint has
(state.json, the state of an optimizer), and which of them are kept. Everything else in one is
written by the kind of run. Safetensors and JSON only.
"""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ..checkpoint.codec_checkpoint import write_json
from ..checkpoint.stored_weights import CONFIG_NAME
from ..errors import TrainingError, one_line
from ..files import atomic_path
from .distributed import Processes, spread_like, whole
from .optim import Optimizing

OPTIMIZER_NAME = "optimizer.safetensors"
STATE_NAME = "state.json"
FINAL_NAME = "final"

_FILE_NAMES = (CONFIG_NAME, OPTIMIZER_NAME, STATE_NAME)
_FOLDER_NAME = re.compile(r"step-(\d+)")
_MOMENTS = ("exp_avg", "exp_avg_sq", "step", "momentum_buffer")
_OF_ADAMW, _OF_MUON = set(_MOMENTS[:3]), {_MOMENTS[3]}

# The newest checkpoints, which a run keeps.
_NUM_KEPT = 2

# Writes into a new folder what a kind of run saves there.
Fill = Callable[[Path], None]


def checkpoint_folder(output: Path, step: int) -> Path:
    """The folder of the checkpoint after ``step`` steps."""
    return output / "checkpoints" / f"step-{step:06d}"


def save_checkpoint(output: Path, state: dict[str, Any], fill: Fill, processes: Processes) -> Path:
    """Write the checkpoint of ``state["step"]``, which appears under its name once it is complete.

    Args:
        output: the folder of the run.
        state: the content of state.json.
        fill: a function that writes everything else; called in the first process alone.
        processes: the processes of the run.

    Raises:
        TrainingError: it cannot be written; what was there stays.
    """

    def fill_all(folder: Path) -> None:
        fill(folder)
        write_json(folder / STATE_NAME, state)

    return _save(checkpoint_folder(output, state["step"]), fill_all, processes)


def save_final(output: Path, fill: Fill, processes: Processes) -> Path:
    """Write the folder ``final``, the model to use, in the way of `save_checkpoint`."""
    return _save(output / FINAL_NAME, fill, processes)


def _save(target: Path, fill: Fill, processes: Processes) -> Path:
    def write() -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with atomic_path(target, error=TrainingError, replace_folder=True) as folder:
                folder.mkdir()
                fill(folder)
        except (SafetensorError, OSError) as error:
            raise TrainingError(
                f"{target} cannot be written ({one_line(error, 200)}); make room and continue with "
                "--resume"
            ) from error

    processes.at_first(write)
    return target


def newest_run(output: Path) -> Path | None:
    """The newest complete checkpoint of a run, if there is one."""
    whole_ones = _whole_runs(output)
    return whole_ones[-1] if whole_ones else None


def saved_state(folder: Path) -> dict[str, Any]:
    """The step that a whole checkpoint was made after, and the best validation until then."""
    try:
        state: dict[str, Any] = json.loads((folder / STATE_NAME).read_text(encoding="utf-8"))
        int(state["step"])
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise unreadable(folder / STATE_NAME, error) from error
    return state


def _whole_runs(output: Path) -> list[Path]:
    """Checkpoints with all of their files, oldest first."""
    found = (output / "checkpoints").glob("step-*")
    complete = [
        (int(match[1]), folder)
        for folder in found
        if (match := _FOLDER_NAME.fullmatch(folder.name))
        and all((folder / name).is_file() for name in _FILE_NAMES)
        and any(folder.glob("model*.safetensors"))
    ]
    return [folder for _, folder in sorted(complete)]


def prune_runs(output: Path, best: int | None = None) -> None:
    """Remove all but the newest two whole checkpoints and that of step ``best``."""
    kept = set(_whole_runs(output)[-_NUM_KEPT:])
    folder = output / "checkpoints"
    if best is not None:
        kept.add(folder / f"step-{int(best):06d}")
    for found in (*folder.glob("step-*"), *folder.glob(".moss-*.partial")):
        if found not in kept:
            shutil.rmtree(found)


def load_optimizer(folder: Path, name: str, module: nn.Module, optimizer: Optimizing) -> None:
    """Restore a module's optimizer from the file ``name`` of a checkpoint.

    Raises:
        TrainingError: the file is damaged, or the checkpoint belongs to another model.
    """
    saved = read_tensors(folder, name)
    for own, parameter in module.named_parameters():
        moments = [key for key in _MOMENTS if f"{own}/{key}" in saved]
        if not moments:  # it has had no gradient yet
            continue
        if set(moments) not in (_OF_ADAMW, _OF_MUON):
            raise TrainingError(f"{folder} has no whole state of an optimizer for {own}")
        shapes = [saved[f"{own}/{key}"].shape for key in moments if key != "step"]
        if any(shape != parameter.shape for shape in shapes):
            raise TrainingError(f"{folder} belongs to another model: {own} differs in shape")
        # Copies lie in memory as the originals did: what lies elsewhere may round elsewhere.
        values = {key: saved.pop(f"{own}/{key}") for key in moments}
        optimizer.state[parameter] = {
            key: value.clone() if key == "step" else spread_like(value, parameter)
            for key, value in values.items()
        }
    if saved:
        raise TrainingError(f"{folder} belongs to another model, one with {min(saved)!r}")


def write_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """Save tensors by name, contiguous or not."""
    save_file({name: value.contiguous() for name, value in tensors.items()}, path)


def read_tensors(folder: Path, name: str) -> dict[str, Tensor]:
    """The tensors in the file ``name`` of a checkpoint.

    Raises:
        TrainingError: the file is missing or damaged.
    """
    try:
        return load_file(folder / name)
    except (SafetensorError, OSError) as error:
        raise unreadable(folder / name, error) from error


def unreadable(path: Path, error: Exception) -> TrainingError:
    """What to raise about a damaged file of a checkpoint."""
    reason = one_line(error, 200)
    return TrainingError(
        f"{path} cannot be read ({type(error).__name__}: {reason}); remove {path.parent} to "
        "continue from the checkpoint before it"
    )


def optimizer_tensors(module: nn.Module, optimizer: Optimizing) -> dict[str, Tensor]:
    """Optimizer state of every parameter on the CPU. Collective: every rank must call this."""
    return {
        f"{name}/{key}": whole(value.detach()).cpu().clone()
        for name, parameter in module.named_parameters()
        for key, value in optimizer.state.get(parameter, {}).items()
    }
