"""Checkpoints of a run: everything that trains and its moments, whole or not at all.

Owns the folder layout ``checkpoints/step-NNNNNN/``. Safetensors and JSON only.
"""

import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ..errors import CheckpointError, ConfigError, TrainingError
from ..files import atomic_path
from ..model.checkpoint import (
    CONFIG_NAME,
    Checkpoint,
    load_codec,
    save_codec,
    write_json,
)
from ..model.codec import Codec
from .adversary import Adversary
from .codec_task import CodecTask
from .discriminators import load_discriminators, save_discriminators
from .moving_mean import MovingMean
from .processes import Processes, set_state, spread_like, whole, whole_state

OPTIMIZER_NAME = "optimizer.safetensors"
DISCRIMINATORS_NAME = "discriminators.safetensors"
DISCRIMINATORS_OPTIMIZER_NAME = "discriminators-optimizer.safetensors"
SEMANTIC_NAME = "semantic.safetensors"
MEAN_NAME = "mean.safetensors"
STATE_NAME = "state.json"

_FILE_NAMES = (CONFIG_NAME, OPTIMIZER_NAME, STATE_NAME)
_FOLDER_NAME = re.compile(r"step-(\d+)")
_MOMENTS = ("exp_avg", "exp_avg_sq", "step")


@dataclass
class Training:
    """What a run holds in memory.

    Attributes:
        task: codec and language model.
        optimizer: theirs.
        adversary: discriminators with their optimiser, if there are any.
        mean: running mean of the codec's weights, if one is kept.
    """

    task: CodecTask
    optimizer: torch.optim.Optimizer
    adversary: Adversary | None = None
    mean: MovingMean | None = None

    @torch.no_grad()
    def shipped_codec(self, processes: Processes, mean: bool = True) -> Codec:
        """A whole codec to measure and to save; all processes must ask.

        Args:
            processes: those of the run.
            mean: the running mean of the weights, where one is kept.
        """
        codec = self.task.codec
        averaged = self.mean if mean else None
        if averaged is None and not processes.sharded:
            return codec
        plain = Codec(codec.config)
        plain.load_state_dict(whole_state(codec) if averaged is None else averaged.whole_state())
        return plain.to(processes.device)


def save_run(output: Path, run: Training, state: dict[str, Any], processes: Processes) -> Path:
    """Write the checkpoint of ``state["step"]``; it appears under its name only once it is whole.

    Raises:
        TrainingError: it cannot be written; what was there stays.
    """
    codec = run.shipped_codec(processes, mean=False)
    tensors = {OPTIMIZER_NAME: _optimizer_tensors(run.task, run.optimizer)}
    if run.task.semantic is not None:
        tensors[SEMANTIC_NAME] = whole_state(run.task.semantic)
    if run.mean is not None:
        tensors[MEAN_NAME] = run.mean.whole_state()
    if run.adversary is not None:
        judges = run.adversary.discriminators
        tensors[DISCRIMINATORS_OPTIMIZER_NAME] = _optimizer_tensors(judges, run.adversary.optimizer)
    target = output / "checkpoints" / f"step-{state['step']:06d}"
    processes.at_first(lambda: _write(target, codec, tensors, run.adversary, state))
    return target


def _write(
    target: Path,
    codec: Codec,
    tensors: dict[str, dict[str, Tensor]],
    adversary: Adversary | None,
    state: dict[str, Any],
) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with _written(target) as folder:
        save_codec(codec, folder)
        for name, items in tensors.items():
            save_file({key: value.contiguous() for key, value in items.items()}, folder / name)
        if adversary is not None:
            save_discriminators(adversary.discriminators, folder / DISCRIMINATORS_NAME)
        write_json(folder / STATE_NAME, state)


@contextmanager
def _written(target: Path) -> Iterator[Path]:
    """A folder to fill, which becomes ``target`` when it is whole."""
    try:
        with atomic_path(target, error=TrainingError, replace_folder=True) as folder:
            folder.mkdir()
            yield folder
    except (SafetensorError, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise TrainingError(
            f"{target} cannot be written ({reason}); make room and go on with --resume"
        ) from error


def write_final(output: Path, run: Training, processes: Processes) -> Path:
    """The folder ``final``: the model to use, and what only further training needs."""
    final = output / "final"
    codec = run.shipped_codec(processes)
    semantic = None if run.task.semantic is None else whole_state(run.task.semantic)

    def write() -> None:
        with _written(final) as folder:
            save_codec(codec, folder)
            if semantic is not None:
                save_file(semantic, folder / SEMANTIC_NAME)
            if run.adversary is not None:
                save_discriminators(run.adversary.discriminators, folder / DISCRIMINATORS_NAME)

    processes.at_first(write)
    return final


def newest_run(output: Path) -> Path | None:
    """The newest whole checkpoint of a run, if there is one."""
    whole_ones = _whole_runs(output)
    return whole_ones[-1] if whole_ones else None


def saved_state(folder: Path) -> dict[str, Any]:
    """The step that a whole checkpoint was made after, and the best validation until then."""
    try:
        state: dict[str, Any] = json.loads((folder / STATE_NAME).read_text(encoding="utf-8"))
        int(state["step"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _unreadable(folder / STATE_NAME, error) from error
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


def prune_runs(output: Path, keep: int, best: int | None = None) -> None:
    """Remove all but the newest ``keep`` whole checkpoints and that of step ``best``."""
    kept = set(_whole_runs(output)[-keep:])
    folder = output / "checkpoints"
    if best is not None:
        kept.add(folder / f"step-{best:06d}")
    for found in (*folder.glob("step-*"), *folder.glob(".moss-*.partial")):
        if found not in kept:
            shutil.rmtree(found)


def load_run(folder: Path, run: Training) -> None:
    """Restore everything from a checkpoint of the same recipe.

    Raises:
        TrainingError: it is damaged, or belongs to another model.
    """
    try:
        with Checkpoint(folder) as opened:
            saved = load_codec(opened)
    except (CheckpointError, ConfigError) as error:
        raise _unreadable(folder / CONFIG_NAME, error) from error
    if saved.config != run.task.codec.config:
        raise TrainingError(
            f"{folder} holds another model than the recipe names; start a run in another output=DIR"
        )
    set_state(run.task.codec, saved.state_dict())
    if run.task.semantic is not None:
        load_semantic(folder, run.task.semantic)
    if run.mean is not None:
        run.mean.load(_tensors(folder, MEAN_NAME))
    load_optimizer(folder, OPTIMIZER_NAME, run.task, run.optimizer)
    if run.adversary is not None:
        _load_adversary(folder, run.adversary)


def load_semantic(folder: Path, semantic: nn.Module) -> None:
    """Restore a language model with its adapter from a checkpoint or a ``final``."""
    set_state(semantic, _tensors(folder, SEMANTIC_NAME))


def _load_adversary(folder: Path, adversary: Adversary) -> None:
    try:
        saved = load_discriminators(folder / DISCRIMINATORS_NAME)
    except CheckpointError as error:
        raise TrainingError(str(error)) from error
    if saved.config != adversary.discriminators.config:
        raise TrainingError(f"{folder} has other discriminators than the recipe: {saved.config}")
    adversary.discriminators.load_state_dict(saved.state_dict())
    load_optimizer(
        folder, DISCRIMINATORS_OPTIMIZER_NAME, adversary.discriminators, adversary.optimizer
    )


def load_optimizer(
    folder: Path, name: str, module: nn.Module, optimizer: torch.optim.Optimizer
) -> None:
    """Restore a module's optimiser from the file ``name`` of a checkpoint.

    Raises:
        TrainingError: the file is damaged, or the checkpoint belongs to another model.
    """
    saved = _tensors(folder, name)
    for own, parameter in module.named_parameters():
        if f"{own}/{_MOMENTS[0]}" not in saved:  # it has had no gradient yet
            continue
        if any(f"{own}/{key}" not in saved for key in _MOMENTS) or (
            saved[f"{own}/{_MOMENTS[0]}"].shape != parameter.shape
        ):
            raise TrainingError(f"{folder} belongs to another model: {own} differs in shape")
        # Copies lie in memory as the originals did: what lies elsewhere may round elsewhere.
        state = {key: spread_like(saved.pop(f"{own}/{key}"), parameter) for key in _MOMENTS[:2]}
        state["step"] = saved.pop(f"{own}/step").clone()
        optimizer.state[parameter] = state
    if saved:
        raise TrainingError(f"{folder} belongs to another model, one with {min(saved)!r}")


def _tensors(folder: Path, name: str) -> dict[str, Tensor]:
    try:
        return load_file(folder / name)
    except (SafetensorError, OSError) as error:
        raise _unreadable(folder / name, error) from error


def _unreadable(path: Path, error: Exception) -> TrainingError:
    reason = " ".join(str(error).split())[:200]
    return TrainingError(
        f"{path} cannot be read ({type(error).__name__}: {reason}); remove {path.parent} to go on "
        "from the checkpoint before it"
    )


def _optimizer_tensors(module: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Moments of every parameter that has some, whole, on the CPU; all processes must ask."""
    return {
        f"{name}/{key}": whole(value.detach()).cpu().clone()
        for name, parameter in module.named_parameters()
        for key, value in optimizer.state.get(parameter, {}).items()
    }
