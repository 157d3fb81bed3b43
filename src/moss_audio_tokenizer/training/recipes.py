"""Full run configurations, by name."""

from collections.abc import Callable

from ..errors import ConfigError
from .config import (
    AdversarialConfig,
    DataConfig,
    DiscriminatorConfig,
    OptimizerConfig,
    PartsConfig,
    TrainingConfig,
    ValidationConfig,
    WarmStart,
)


def bundled() -> TrainingConfig:
    """The model inside the package: about two hours on two CPU cores."""
    return TrainingConfig(
        model="bundled",
        max_steps=13_000,
        decoder_only_from=11_000,
        data=DataConfig(crop_seconds=1.28, batch_size=6),
        optimizer=OptimizerConfig(decay_fraction=0.45),
        warm_start=WarmStart(steps=4000, refit_every=1200),
    )


def smoke() -> TrainingConfig:
    """A trial of the whole machinery, both stages, on two CPU cores in about a minute."""
    return TrainingConfig(
        model="tiny",
        max_steps=50,
        precision="fp32",
        checkpoint_every=20,
        log_every=10,
        data=DataConfig(crop_seconds=0.64, batch_size=4),
        optimizer=OptimizerConfig(warmup_steps=5),
        warm_start=WarmStart(steps=20, samples=512),
        adversarial=AdversarialConfig(
            start=40,
            crop_seconds=0.32,
            discriminators=DiscriminatorConfig((2, 3), (512,), channel_divisor=16),
        ),
        validation=ValidationConfig(every=20, clips=4, max_seconds=2.0, num_quantizers=(1, 2, 4)),
    )


def decoder() -> TrainingConfig:
    """The bundled model's decoder on recordings of one's own; its codes stay what they are."""
    return TrainingConfig(
        max_steps=1000,
        checkpoint_every=250,
        train=PartsConfig(checkpoint="bundled", parts="decoder"),
        data=DataConfig(crop_seconds=1.28, batch_size=6),
        optimizer=OptimizerConfig(learning_rate=3e-4, warmup_steps=50, decay_fraction=0.5),
        warm_start=WarmStart(samples=0),
        validation=ValidationConfig(every=250),
    )


RECIPES: dict[str, Callable[[], TrainingConfig]] = {
    "bundled": bundled,
    "decoder": decoder,
    "smoke": smoke,
}


def recipe(name: str) -> TrainingConfig:
    """The recipe called ``name``.

    Raises:
        ConfigError: there is none of that name.
    """
    if name not in RECIPES:
        raise ConfigError(f"no recipe {name!r}; there are {', '.join(RECIPES)}")
    return RECIPES[name]()
