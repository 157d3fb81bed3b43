"""Full run configurations, by name.

In the package, because the command `moss-audio train` takes them by name.
"""

from collections.abc import Callable
from dataclasses import replace
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError
from .codec.codec_config import (
    AdversarialConfig,
    CodecOptimizerConfig,
    DiscriminatorConfig,
    LossWeights,
    PartsConfig,
    SemanticConfig,
    SpectraConfig,
    TrainingConfig,
    ValidationConfig,
    WarmStart,
)
from .data.data_config import DataConfig
from .run_config import RunConfig
from .speech.speech_recipes import (
    asr,
    asr_general,
    asr_one_gpu,
    asr_tiny,
    tts,
    tts_general,
    tts_one_gpu,
    tts_tiny,
)

if TYPE_CHECKING:
    from .loop import Loop


# Levels of the bundled model's training data.
_GAIN = (-34.0, -12.0)


def v1() -> TrainingConfig:
    """The paper's run of the 1.77 B model at 24 kHz, both stages (appendix A).

    520,000 steps of about 5 hours of audio without discriminators, then 500,000 of half that with
    them. For many GPUs, under torchrun. docs/training.md lists what the paper leaves open.
    """
    first = 520_000
    return TrainingConfig(
        model="v1",
        max_steps=first + 500_000,
        quantizer_dropout=1.0,
        shard=True,
        recompute=True,
        accumulate=4,
        checkpoint_every=2000,
        data=DataConfig(
            crop_seconds=10.0,
            text_share=0.5,
            text_seconds=(1.0, 30.0),
            batch_seconds=18_000.0,
            batch_change=(first, 0.5),
            workers=8,
        ),
        optimizer=CodecOptimizerConfig(learning_rate=1e-4, warmup_steps=2000, decay_fraction=0.0),
        adversarial=AdversarialConfig(start=first, crop_seconds=2.0),
        semantic=SemanticConfig(llm="Qwen/Qwen2.5-0.5B"),
        warm_start=WarmStart(samples=0),
        validation=ValidationConfig(every=5000, clips=64, num_quantizers=(1, 2, 4, 8, 16, 32)),
    )


def v2() -> TrainingConfig:
    """The run of `v1` for the stereo model at 48 kHz."""
    return replace(v1(), model="v2")


def nano() -> TrainingConfig:
    """The 22 M model at 48 kHz, stereo, on one GPU: no language model, no sharding."""
    return TrainingConfig(
        model="nano",
        max_steps=400_000,
        quantizer_dropout=1.0,
        ema_decay=0.999,
        checkpoint_every=2000,
        data=DataConfig(crop_seconds=4.0, batch_size=64, workers=12),
        optimizer=CodecOptimizerConfig(learning_rate=3e-4, warmup_steps=2000, decay_fraction=0.3),
        adversarial=AdversarialConfig(start=200_000),
        warm_start=WarmStart(steps=10_000, samples=50_000),
        validation=ValidationConfig(every=5000, clips=64, num_quantizers=(1, 2, 4, 8, 16)),
    )


def one_gpu() -> TrainingConfig:
    """A codec of 95 M parameters with every loss on one GPU: `v1` scaled down."""
    first = 20_000
    return TrainingConfig(
        model="one-gpu",
        max_steps=2 * first,
        quantizer_dropout=1.0,
        data=DataConfig(
            crop_seconds=4.8,
            text_share=0.5,
            text_seconds=(1.0, 20.0),
            batch_seconds=120.0,
            workers=12,
        ),
        optimizer=CodecOptimizerConfig(learning_rate=2e-4, warmup_steps=2000, decay_fraction=0.5),
        adversarial=AdversarialConfig(start=first),
        semantic=SemanticConfig(llm="random", width=256, num_layers=4),
        warm_start=WarmStart(samples=0),
        validation=ValidationConfig(every=2000, clips=48, num_quantizers=(1, 2, 4, 8, 16, 32)),
    )


def bundled_stage1() -> TrainingConfig:
    """A codec of the bundled shape by mel distance alone: two hours on two CPU cores, no pitch."""
    return TrainingConfig(
        model="bundled",
        max_steps=13_000,
        decoder_only_from=11_000,
        data=DataConfig(crop_seconds=1.28, batch_size=6),
        optimizer=CodecOptimizerConfig(decay_fraction=0.45),
        warm_start=WarmStart(steps=4000, refit_every=1200),
    )


def bundled_stage2() -> TrainingConfig:
    """Stage 1 with a low-band pass-through, then its decoder trained further: the bundled 0.2.

    Starts from ``train.checkpoint``; an hour and a half on two CPU cores.
    """
    return TrainingConfig(
        max_steps=13_000,
        decoder_only_from=1,
        quantizer_dropout=0.7,
        train=PartsConfig(checkpoint="runs/envelope/final"),
        data=DataConfig(crop_seconds=1.28, batch_size=8, gain_db=_GAIN),
        losses=LossWeights(phase=15.0),
        optimizer=CodecOptimizerConfig(learning_rate=6e-4, decay_fraction=0.6),
        warm_start=WarmStart(low_band=700.0, samples=30_000),
        validation=ValidationConfig(every=2500),
    )


def bundled_stage3() -> TrainingConfig:
    """All parts of stage 2 trained together, with EMA codebooks: the bundled 0.3.

    Starts from ``train.checkpoint``; 70 minutes on two CPU cores that have AMX.
    """
    return TrainingConfig(
        max_steps=4900,
        quantizer_dropout=0.7,
        codebook_decay=0.99,
        checkpoint_every=500,
        train=PartsConfig(checkpoint="runs/low_band/final"),
        data=DataConfig(crop_seconds=1.28, batch_size=24, gain_db=_GAIN),
        losses=LossWeights(phase=15.0, commitment=20.0),
        spectra=SpectraConfig(mel_windows=3, phase_windows=1),
        optimizer=CodecOptimizerConfig(kind="muon", learning_rate=7e-4, decay_fraction=0.75),
        warm_start=WarmStart(samples=0),
        validation=ValidationConfig(every=1000),
    )


def bundled() -> TrainingConfig:
    """The model inside the package: stage 3 continued with large batches on a GPU.

    Starts from ``train.checkpoint``; five minutes on an H100.
    """
    return replace(
        bundled_stage3(),
        max_steps=2168,
        train=PartsConfig(checkpoint="runs/together/final"),
        data=DataConfig(
            crop_seconds=1.28,
            batch_size=256,
            gain_db=_GAIN,
            domain_weights=(("speech", 0.84), ("sound", 0.08), ("music", 0.08)),
            cache_hours=30.0,
            workers=14,
        ),
        losses=LossWeights(phase=15.0, commitment=20.0),
        spectra=SpectraConfig(),
        optimizer=CodecOptimizerConfig(kind="muon", learning_rate=9e-4, decay_fraction=0.75),
    )


def bundled_joint() -> TrainingConfig:
    """The bundled model trained further with the paper's losses, in small: joint, then adversarial.

    Reconstruction, linear-frequency magnitudes and a small language model's cross-entropy together,
    with EMA codebooks. In the last 40% of the steps batches are half as large and discriminators
    are trained, in the last 30% the codec is trained against them. Made for one GPU; it was not run
    yet (docs/experiments.md, "Ablations for 0.5").
    """
    first, last, warmup, base = 1400, 600, 200, bundled()
    return replace(
        base,
        max_steps=first + last,
        train=PartsConfig(checkpoint="bundled"),
        data=replace(
            base.data,
            batch_size=8,
            text_share=0.5,
            text_seconds=(0.5, 6.0),
            batch_seconds=320.0,
            batch_change=(first - warmup, 0.5),
        ),
        losses=LossWeights(phase=15.0, stft=15.0, commitment=20.0, semantic=5.0),
        spectra=SpectraConfig(stft_windows=(1024, 2048, 4096), stft_hertz=(0.0, 8000.0)),
        adversarial=AdversarialConfig(
            start=first,
            warmup_steps=warmup,
            learning_rate=5e-4,
            crop_seconds=0.64,
            discriminators=DiscriminatorConfig((2, 3, 5), (2048, 1024, 512), channel_divisor=4),
        ),
        semantic=SemanticConfig(llm="random", width=256, num_layers=4),
        checkpoint_every=200,
        validation=ValidationConfig(every=500),
    )


def smoke() -> TrainingConfig:
    """A trial of the whole machinery, every loss and both stages, in a minute on two CPU cores.

    Where the data have no texts, set ``semantic.llm= data.text_share=0``.
    """
    return TrainingConfig(
        model="tiny",
        max_steps=60,
        precision="fp32",
        checkpoint_every=20,
        data=DataConfig(
            crop_seconds=0.64,
            batch_size=4,
            text_share=0.7,
            text_seconds=(0.5, 3.0),
            batch_seconds=6.0,
        ),
        optimizer=CodecOptimizerConfig(warmup_steps=5),
        losses=LossWeights(phase=5.0, semantic=1.0),
        warm_start=WarmStart(low_band=50.0, steps=20, samples=512),
        adversarial=AdversarialConfig(
            start=45,
            crop_seconds=0.32,
            discriminators=DiscriminatorConfig((2, 3), (512,), channel_divisor=16),
        ),
        semantic=SemanticConfig(llm="random"),
        validation=ValidationConfig(every=20, clips=4, num_quantizers=(1, 2, 4)),
    )


def decoder() -> TrainingConfig:
    """Fine-tuning of the bundled model's decoder on your recordings; its codes do not change."""
    return TrainingConfig(
        max_steps=1000,
        checkpoint_every=250,
        train=PartsConfig(checkpoint="bundled", parts="decoder"),
        data=DataConfig(crop_seconds=1.28, batch_size=6),
        optimizer=CodecOptimizerConfig(learning_rate=3e-4, warmup_steps=50, decay_fraction=0.5),
        warm_start=WarmStart(samples=0),
        validation=ValidationConfig(every=250),
    )


def semantic_head() -> TrainingConfig:
    """A small language model that predicts texts from the codes of the bundled model."""
    return TrainingConfig(
        max_steps=2000,
        checkpoint_every=500,
        train=PartsConfig(checkpoint="bundled", parts="semantic"),
        data=DataConfig(
            crop_seconds=1.28, text_share=1.0, text_seconds=(0.5, 12.0), batch_seconds=24.0
        ),
        optimizer=CodecOptimizerConfig(learning_rate=1e-3, warmup_steps=100, decay_fraction=0.5),
        semantic=SemanticConfig(llm="random", width=128, num_layers=2),
        warm_start=WarmStart(samples=0),
        validation=ValidationConfig(every=500, clips=8),
    )


_ALL: tuple[Callable[[], RunConfig], ...] = (
    *(asr, asr_general, asr_one_gpu, asr_tiny),
    *(bundled, bundled_joint, bundled_stage1, bundled_stage2, bundled_stage3),
    *(decoder, nano, one_gpu, semantic_head, smoke),
    *(tts, tts_general, tts_one_gpu, tts_tiny),
    *(v1, v2),
)
RECIPES = {make.__name__: make for make in _ALL}
# Earlier names of recipes, which still work.
ALIASES = {
    "envelope": "bundled_stage1",
    "low_band": "bundled_stage2",
    "reader": "semantic_head",
    "together": "bundled_stage3",
}


def recipe(name: str) -> RunConfig:
    """The recipe called ``name``, or that was called so in earlier versions.

    Raises:
        ConfigError: there is none of that name.
    """
    name = ALIASES.get(name, name)
    if name not in RECIPES:
        near = get_close_matches(name, [*RECIPES, *ALIASES], 1)
        meant = f"did you mean {near[0]}? " if near else ""
        raise ConfigError(f"no recipe {name!r}; {meant}There are {', '.join(RECIPES)}")
    return RECIPES[name]()


def trainer_for(
    config: RunConfig, resume: bool = False, report: Callable[[str], None] = print
) -> "Loop[Any, Any]":
    """A run of the kind of its recipe, ready to `run`; arguments and errors are `Loop`'s."""
    from .codec.codec_trainer import CodecTrainer
    from .speech.asr_task import AsrTrainer
    from .speech.tts_trainer import TtsTrainer

    trainers: dict[str, type[Loop[Any, Any]]] = {
        "asr": AsrTrainer,
        "codec": CodecTrainer,
        "tts": TtsTrainer,
    }
    return trainers[config.kind](config, resume, report)
