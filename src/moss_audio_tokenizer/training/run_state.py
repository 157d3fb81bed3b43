"""Checkpoints of a run: model, optimiser and step, whole or not at all.

Owns the folder layout ``checkpoints/step-NNNNNN/``. Safetensors and JSON only.
"""

import json
import re
import shutil
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ..errors import CheckpointError, TrainingError
from ..files import atomic_path
from ..model.checkpoint import CONFIG_NAME, WEIGHTS_NAME, save_codec, write_json
from ..model.codec import Codec
from .adversary import Adversary
from .discriminators import load_discriminators, save_discriminators

OPTIMIZER_NAME = "optimizer.safetensors"
DISCRIMINATORS_NAME = "discriminators.safetensors"
DISCRIMINATORS_OPTIMIZER_NAME = "discriminators-optimizer.safetensors"
STATE_NAME = "state.json"

_FILE_NAMES = (WEIGHTS_NAME, CONFIG_NAME, OPTIMIZER_NAME, STATE_NAME)
_FOLDER_NAME = re.compile(r"step-(\d+)")
_MOMENTS = ("exp_avg", "exp_avg_sq", "step")


def save_run(
    output: Path,
    codec: Codec,
    optimizer: torch.optim.Optimizer,
    step: int,
    adversary: Adversary | None = None,
) -> Path:
    """Write the checkpoint of ``step``; it appears under its name only once it is whole."""
    target = output / "checkpoints" / f"step-{step:06d}"
    target.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(target, error=TrainingError, replace_folder=True) as folder:
        folder.mkdir()
        save_codec(codec, folder)
        save_file(_optimizer_tensors(codec, optimizer), folder / OPTIMIZER_NAME)
        if adversary is not None:
            judges = adversary.discriminators
            save_discriminators(judges, folder / DISCRIMINATORS_NAME)
            moments = _optimizer_tensors(judges, adversary.optimizer)
            save_file(moments, folder / DISCRIMINATORS_OPTIMIZER_NAME)
        write_json(folder / STATE_NAME, {"step": step})
    return target


def newest_run(output: Path) -> Path | None:
    """The newest whole checkpoint of a run, if there is one."""
    whole = _whole_runs(output)
    return whole[-1] if whole else None


def saved_step(folder: Path) -> int:
    """The step that a whole checkpoint was made after."""
    step: int = json.loads((folder / STATE_NAME).read_text(encoding="utf-8"))["step"]
    return step


def _whole_runs(output: Path) -> list[Path]:
    """Checkpoints with all of their files, oldest first."""
    found = (output / "checkpoints").glob("step-*")
    whole = [
        (int(match[1]), folder)
        for folder in found
        if (match := _FOLDER_NAME.fullmatch(folder.name))
        and all((folder / name).is_file() for name in _FILE_NAMES)
    ]
    return [folder for _, folder in sorted(whole)]


def prune_runs(output: Path, keep: int) -> None:
    """Remove all but the newest ``keep`` whole checkpoints, and what killed saves left over."""
    kept = set(_whole_runs(output)[-keep:])
    folder = output / "checkpoints"
    for found in (*folder.glob("step-*"), *folder.glob(".moss-*.partial")):
        if found not in kept:
            shutil.rmtree(found)


def load_adversary(folder: Path, adversary: Adversary) -> None:
    """Restore discriminators and their optimiser from a checkpoint.

    Raises:
        TrainingError: the checkpoint has none, others, or damaged ones.
    """
    try:
        saved = load_discriminators(folder / DISCRIMINATORS_NAME)
    except CheckpointError as error:
        raise TrainingError(str(error)) from error
    if saved.config != adversary.discriminators.config:
        raise TrainingError(f"{folder} has other discriminators than the recipe: {saved.config}")
    adversary.discriminators.load_state_dict(saved.state_dict())
    load_optimizer(
        folder, adversary.discriminators, adversary.optimizer, DISCRIMINATORS_OPTIMIZER_NAME
    )


def load_optimizer(
    folder: Path,
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    name: str = OPTIMIZER_NAME,
) -> None:
    """Restore a module's optimiser from a file of a checkpoint.

    Raises:
        TrainingError: the file is damaged, or the checkpoint belongs to another model.
    """
    try:
        saved = load_file(folder / name)
    except (SafetensorError, OSError) as error:
        raise TrainingError(
            f"{folder / name} cannot be read ({error}); remove {folder} to go on from "
            "the checkpoint before it"
        ) from error
    for own, parameter in module.named_parameters():
        if f"{own}/{_MOMENTS[0]}" not in saved:  # it has had no gradient yet
            continue
        if any(f"{own}/{key}" not in saved for key in _MOMENTS) or (
            saved[f"{own}/{_MOMENTS[0]}"].shape != parameter.shape
        ):
            raise TrainingError(f"{folder} belongs to another model: {own} differs in shape")
        # Copies lie in memory as the originals did: what lies elsewhere may round elsewhere.
        optimizer.state[parameter] = {key: saved.pop(f"{own}/{key}").clone() for key in _MOMENTS}
    if saved:
        raise TrainingError(f"{folder} belongs to another model, one with {min(saved)!r}")


def _optimizer_tensors(module: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    return {
        f"{name}/{key}": value.detach().clone()
        for name, parameter in module.named_parameters()
        for key, value in optimizer.state.get(parameter, {}).items()
    }
