"""The parts of a codec's run, built from its recipe: codec, language model, task, optimizers.

Owns what follows from a recipe, and the checks that need the model; knows nothing of steps.
"""

from pathlib import Path

import torch
from torch import nn

from ...checkpoint.codec_checkpoint import Checkpoint, load_codec
from ...checkpoint.stored_weights import find_checkpoint
from ...config import CodecConfig, preset
from ...errors import ConfigError
from ...llm import load_language_model, make_text, random_language_model
from ...model.codec import Codec
from ...model.transformer import Block, Transformer
from ...semantic import SemanticHead
from ..distributed import Processes
from ..initialization.sample_rate import at_rate, config_at_rate
from ..optim import make_optimizer
from .adversarial import Adversary
from .codec_config import SemanticConfig, SpectraConfig, TrainingConfig
from .codec_state import SEMANTIC_NAME, Training, load_semantic
from .codec_task import CodecTask
from .ema_codebooks import EmaCodebooks, WeightAverage
from .losses import NUM_MEL_WINDOWS, NUM_PHASE_WINDOWS

# Modules of the task that are trained or frozen as one.
PARTS = ("encoder", "quantizer", "decoder", "semantic")


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
        decay = config.codebook_decay
        task.codebooks = EmaCodebooks(codec.quantizer, decay, config.seed)
    for stage in _stages(codec):
        stage.recomputes = config.recompute
    called = processes.distribute(task, _blocks(task) if processes.sharded else [])
    training = Training(
        task=task,
        optimizer=make_optimizer(task, config.optimizer, config.optimizer.kind),
        adversary=_adversary(config, chosen, processes, task),
        mean=WeightAverage(codec, config.ema_decay) if config.ema_decay else None,
    )
    task.train()
    return training, called


def part_of(task: CodecTask, name: str) -> nn.Module | None:
    """The module of `PARTS` that is called so."""
    if name == "semantic":
        return task.semantic
    module: nn.Module | None = getattr(task.codec, name)
    return module


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
        text = make_text(config.tokenizer or "bytes")
        model = random_language_model(
            config.width, config.num_layers, config.num_heads, text.num_tokens, seed
        )
        return SemanticHead(model, text, width, seed)
    source = config.tokenizer or config.llm
    text = make_text(source)
    model = load_language_model(config.llm, config.init == "pretrained", seed)
    known = model.get_input_embeddings().num_embeddings
    if text.num_tokens > known:
        raise ConfigError(
            f"the tokenizer has {text.num_tokens} tokens, but {config.llm!r} knows {known}; set "
            "semantic.tokenizer to the one it was made with"
        )
    return SemanticHead(model, text, width, seed)


def _adversary(
    config: TrainingConfig, chosen: CodecConfig, processes: Processes, task: CodecTask
) -> Adversary | None:
    if not config.adversarial.start:
        return None
    return Adversary(config, chosen.sampling_rate, processes, task.autocast)


def _stages(codec: Codec) -> list[Transformer]:
    return [module for module in codec.modules() if isinstance(module, Transformer)]


def _blocks(task: CodecTask) -> list[nn.Module]:
    """The modules that are sharded one by one: all blocks of codec and language model."""
    blocks: list[nn.Module] = [m for m in task.codec.modules() if isinstance(m, Block)]
    if task.semantic is not None:
        model = task.semantic.language_model.base_model
        if not hasattr(model, "layers"):
            raise ConfigError(
                f"shard is set, but a {type(model).__name__} keeps its layers in an unknown place; "
                "set shard=False, or take a language model such as Qwen2"
            )
        blocks += list(model.layers)
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
    _check_windows(config.spectra)
    rows = codec.quantizer.codebook_size
    if 0 < config.warm_start.samples < rows:
        raise ConfigError(
            f"warm_start.samples is {config.warm_start.samples}; expected 0, or at least one "
            f"frame for each of the codebook's {rows} rows"
        )
    if config.adversarial.start:
        _check_discriminator_crop(config, codec.sampling_rate)


def _check_windows(spectra: SpectraConfig) -> None:
    for name, there in (("mel", NUM_MEL_WINDOWS), ("phase", NUM_PHASE_WINDOWS)):
        wanted = getattr(spectra, f"{name}_windows")
        if wanted > there:
            raise ConfigError(
                f"spectra.{name}_windows is {wanted}; expected at most the {there} that there are"
            )


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
