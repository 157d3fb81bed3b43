"""What a codec's run holds in memory, and which files of a checkpoint it lies in.

Owns the files beside those that every checkpoint has; `checkpointing.py` makes their folders whole.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from ...checkpoint.codec_checkpoint import Checkpoint, load_codec, save_codec
from ...checkpoint.stored_weights import CONFIG_NAME
from ...errors import CheckpointError, ConfigError, TrainingError
from ...model.codec import Codec
from ..checkpointing import (
    OPTIMIZER_NAME,
    Fill,
    load_optimizer,
    optimizer_tensors,
    read_tensors,
    unreadable,
    write_tensors,
)
from ..distributed import Processes, set_state, whole_state
from ..optim import Optimizing
from .adversarial import Adversary
from .codec_task import CodecTask
from .discriminators import load_discriminators, save_discriminators
from .ema_codebooks import WeightAverage

DISCRIMINATORS_NAME = "discriminators.safetensors"
DISCRIMINATORS_OPTIMIZER_NAME = "discriminators-optimizer.safetensors"
SEMANTIC_NAME = "semantic.safetensors"
MEAN_NAME = "mean.safetensors"
CODEBOOKS_NAME = "codebooks.safetensors"


@dataclass
class Training:
    """What a run holds in memory.

    Attributes:
        task: the codec and the language model.
        optimizer: the optimizer of both.
        adversary: the discriminators with their optimizer, if there are any.
        mean: the moving average of the codec's weights, if there is one.
    """

    task: CodecTask
    optimizer: Optimizing
    adversary: Adversary | None = None
    mean: WeightAverage | None = None

    @torch.no_grad()
    def shipped_codec(self, processes: Processes, mean: bool = True) -> Codec:
        """A whole codec to measure and to save. Collective: every rank must call this.

        Args:
            processes: the processes of the run.
            mean: whether to take the moving average of the weights, where there is one.
        """
        codec = self.task.codec
        averaged = self.mean if mean else None
        if averaged is None and not processes.sharded:
            return codec
        plain = Codec(codec.config)
        plain.load_state_dict(whole_state(codec) if averaged is None else averaged.whole_state())
        return plain.to(processes.device)


def checkpoint_files(run: Training, processes: Processes) -> Fill:
    """Everything that trains, gathered from all processes. Collective: every rank must call this.

    Returns:
        What writes it into a folder.
    """
    codec = run.shipped_codec(processes, mean=False)
    tensors = {OPTIMIZER_NAME: optimizer_tensors(run.task, run.optimizer)}
    if run.task.semantic is not None:
        tensors[SEMANTIC_NAME] = whole_state(run.task.semantic)
    if run.mean is not None:
        tensors[MEAN_NAME] = run.mean.whole_state()
    if run.task.codebooks is not None:
        tensors[CODEBOOKS_NAME] = {"shares": run.task.codebooks.shares.cpu()}
    if run.adversary is not None:
        discriminators = run.adversary.discriminators
        tensors[DISCRIMINATORS_OPTIMIZER_NAME] = optimizer_tensors(
            discriminators, run.adversary.optimizer
        )
    return lambda folder: _fill(folder, codec, tensors, run.adversary)


def final_files(run: Training, processes: Processes) -> Fill:
    """The codec to use, and what only further training needs, in the way of `checkpoint_files`."""
    codec = run.shipped_codec(processes)
    semantic = run.task.semantic
    tensors = {} if semantic is None else {SEMANTIC_NAME: whole_state(semantic)}
    return lambda folder: _fill(folder, codec, tensors, run.adversary)


def _fill(
    folder: Path,
    codec: Codec,
    tensors: dict[str, dict[str, Tensor]],
    adversary: Adversary | None,
) -> None:
    save_codec(codec, folder)
    for name, items in tensors.items():
        write_tensors(folder / name, items)
    if adversary is not None:
        save_discriminators(adversary.discriminators, folder / DISCRIMINATORS_NAME)


def load_run(folder: Path, run: Training) -> None:
    """Restore everything from a checkpoint of the same recipe.

    Raises:
        TrainingError: it is damaged, or belongs to another model.
    """
    try:
        with Checkpoint(folder) as opened:
            saved = load_codec(opened)
    except (CheckpointError, ConfigError) as error:
        raise unreadable(folder / CONFIG_NAME, error) from error
    if saved.config != run.task.codec.config:
        raise TrainingError(
            f"{folder} holds another model than the recipe names; start a run in another output=DIR"
        )
    set_state(run.task.codec, saved.state_dict())
    if run.task.semantic is not None:
        load_semantic(folder, run.task.semantic)
    if run.mean is not None:
        run.mean.load(read_tensors(folder, MEAN_NAME))
    if run.task.codebooks is not None:
        run.task.codebooks.shares.copy_(read_tensors(folder, CODEBOOKS_NAME)["shares"])
    load_optimizer(folder, OPTIMIZER_NAME, run.task, run.optimizer)
    if run.adversary is not None:
        _load_adversary(folder, run.adversary)


def load_semantic(folder: Path, semantic: nn.Module) -> None:
    """Restore a language model with its adapter from a checkpoint or a ``final``."""
    set_state(semantic, read_tensors(folder, SEMANTIC_NAME))


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
