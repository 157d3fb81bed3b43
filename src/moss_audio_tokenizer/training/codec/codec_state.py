"""Everything that trains in a codec's run: built from its recipe, saved in its checkpoints.

Owns what follows from a recipe, the checks that need the model, and the files beside those that
every checkpoint has; `checkpointing.py` writes their folders. Knows nothing of steps.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from ...checkpoint.codec_checkpoint import Checkpoint, load_codec, save_codec
from ...checkpoint.stored_weights import CONFIG_NAME, find_checkpoint
from ...config import CodecConfig, preset
from ...errors import CheckpointError, ConfigError, TrainingError
from ...llm import load_language_model, make_text, random_language_model
from ...model.codec import Codec
from ...model.transformer import Block, Transformer
from ...semantic import SemanticHead
from ..checkpointing import (
    OPTIMIZER_NAME,
    Fill,
    load_optimizer,
    optimizer_tensors,
    read_tensors,
    unreadable,
    write_tensors,
)
from ..distributed import Processes, set_state, transformer_layers, whole_state
from ..optim import Optimizing, WeightAverage, make_optimizer
from ..run_config import num_heads
from .adversarial import Adversary
from .codebooks import EmaCodebooks
from .codec_config import SemanticConfig, TrainingConfig
from .codec_task import CodecTask
from .discriminators import load_discriminators, save_discriminators
from .losses import NUM_MEL_WINDOWS, NUM_PHASE_WINDOWS
from .sample_rate import at_rate, config_at_rate

DISCRIMINATORS_NAME = "discriminators.safetensors"
DISCRIMINATORS_OPTIMIZER_NAME = "discriminators-optimizer.safetensors"
SEMANTIC_NAME = "semantic.safetensors"
MEAN_NAME = "mean.safetensors"
CODEBOOKS_NAME = "codebooks.safetensors"


def codec_config(config: TrainingConfig) -> CodecConfig:
    """The model that a recipe trains.

    Raises:
        ConfigError: the recipe asks for what this model cannot do.
    """
    if config.train.checkpoint:
        with Checkpoint(find_checkpoint(config.train.checkpoint, {})) as opened:
            chosen = opened.codec_config()
        if config.train.sampling_rate:
            chosen = config_at_rate(chosen, config.train.sampling_rate)
    else:
        chosen = preset(config.model)
    _check_fit(config, chosen)
    return chosen


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


def assemble(
    config: TrainingConfig, chosen: CodecConfig, processes: Processes
) -> tuple[Training, nn.Module]:
    """Everything that trains, as it is before the first step, and what to call for a step."""
    codec = _codec(config, chosen)
    semantic = _semantic(config.semantic, chosen, config.seed)
    if semantic is not None and config.train.checkpoint:
        folder = Path(find_checkpoint(config.train.checkpoint, {}))
        if (folder / SEMANTIC_NAME).is_file():
            load_semantic(folder, semantic)
    task = CodecTask(codec, semantic, config).to(processes.device)
    if config.codebook_decay:
        task.codebooks = EmaCodebooks(codec.quantizer, config.codebook_decay, config.seed)
    for stage in codec.modules():
        if isinstance(stage, Transformer):
            stage.recomputes = config.recompute
    called = processes.distribute(task, _blocks(task) if processes.sharded else [])
    adversary = None
    if config.adversarial.start:
        adversary = Adversary(config, chosen.sampling_rate, processes, task.autocast)
    training = Training(
        task=task,
        optimizer=make_optimizer(task, config.optimizer, config.optimizer.kind),
        adversary=adversary,
        mean=WeightAverage(codec, config.ema_decay) if config.ema_decay else None,
    )
    task.train()
    return training, called


def _codec(config: TrainingConfig, chosen: CodecConfig) -> Codec:
    codec = Codec(chosen)
    if not config.train.checkpoint:
        codec.initialize(torch.Generator().manual_seed(config.seed))
        return codec
    with Checkpoint(find_checkpoint(config.train.checkpoint, {})) as opened:
        loaded = load_codec(opened)
    # Copied, not taken over: memory mapped from a file may round otherwise, and goes away.
    codec.load_state_dict(at_rate(loaded, chosen).state_dict())
    return codec


def _semantic(config: SemanticConfig, codec: CodecConfig, seed: int) -> SemanticHead | None:
    if not config.llm:
        return None
    width = codec.quantizer.output_dim
    if config.llm == "random":
        text, heads = make_text("bytes"), num_heads(config.width)
        model = random_language_model(config.width, config.num_layers, heads, text.num_tokens, seed)
        return SemanticHead(model, text, width, seed)
    text = make_text(config.llm)
    model = load_language_model(config.llm, config.init == "pretrained", seed)
    known = model.get_input_embeddings().num_embeddings
    if text.num_tokens > known:
        raise ConfigError(
            f"the tokenizer of {config.llm!r} has {text.num_tokens} tokens, but its model knows "
            f"{known}; set semantic.llm to a folder with the tokenizer it was made with"
        )
    return SemanticHead(model, text, width, seed)


def _blocks(task: CodecTask) -> list[nn.Module]:
    """The modules that are sharded one by one: all blocks of codec and language model."""
    blocks: list[nn.Module] = [m for m in task.codec.modules() if isinstance(m, Block)]
    if task.semantic is not None:
        blocks += transformer_layers(task.semantic.language_model)
    return blocks


def _check_fit(config: TrainingConfig, codec: CodecConfig) -> None:
    """Validate the fields of a recipe that depend on the loaded model."""
    samples = config.data.crop_seconds * codec.sampling_rate
    frames = max(1, round(samples / codec.downsample_rate))
    fitting = frames * codec.downsample_rate
    if abs(samples - fitting) > 1e-6 * fitting:
        raise ConfigError(
            f"data.crop_seconds is {config.data.crop_seconds:g}, which is "
            f"{samples / codec.downsample_rate:g} frames; expected a whole number of frames of "
            f"{codec.downsample_rate / codec.sampling_rate:g} s, such as "
            f"{fitting / codec.sampling_rate:g}"
        )
    for name, there in (("mel", NUM_MEL_WINDOWS), ("phase", NUM_PHASE_WINDOWS)):
        wanted = getattr(config.spectra, f"{name}_windows")
        if wanted > there:
            raise ConfigError(
                f"spectra.{name}_windows is {wanted}; expected at most the {there} that there are"
            )
    entries = codec.quantizer.codebook_size
    if 0 < config.warm_start.samples < entries:
        raise ConfigError(
            f"warm_start.samples is {config.warm_start.samples}; expected 0, or at least one "
            f"frame for each of the codebook's {entries} entries"
        )
    if config.adversarial.start:
        _check_discriminator_crop(config, codec.sampling_rate)


def _check_discriminator_crop(config: TrainingConfig, sampling_rate: int) -> None:
    """Check that the shortest crop of the discriminators is long enough for them."""
    settings, data = config.adversarial, config.data
    key = "data.text_seconds" if data.text_share else "data.crop_seconds"
    whole = data.text_seconds[0] if data.text_share else data.crop_seconds
    if settings.crop_seconds < whole:
        key = "adversarial.crop_seconds"
    samples = round(min(settings.crop_seconds, whole) * sampling_rate)
    least = settings.discriminators.least_samples
    if samples < least:
        raise ConfigError(
            f"{key} gives discriminators {samples} samples; expected at least {least}, the longest "
            "period and 5/8 of the longest window: make it longer, or shorten "
            "adversarial.discriminators.periods and .windows"
        )


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
        tensors[DISCRIMINATORS_OPTIMIZER_NAME] = optimizer_tensors(
            run.adversary.discriminators, run.adversary.optimizer
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
    own = adversary.discriminators
    if saved.config != own.config:
        raise TrainingError(f"{folder} has other discriminators than the recipe: {saved.config}")
    own.load_state_dict(saved.state_dict())
    load_optimizer(folder, DISCRIMINATORS_OPTIMIZER_NAME, own, adversary.optimizer)
