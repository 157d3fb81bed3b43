"""What a training run is: frozen dataclasses, checked when built.

Knows nothing of how training works. The group ``data`` is `data/config.py`'s; how `key=value`
texts change a configuration is `fields.py`'s.
"""

from dataclasses import dataclass, field, fields

from .data.config import DataConfig
from .fields import as_dict, check_types, override, require

__all__ = [
    "AdversarialConfig",
    "DataConfig",
    "DiscriminatorConfig",
    "LossWeights",
    "OptimizerConfig",
    "PartsConfig",
    "TrainingConfig",
    "ValidationConfig",
    "WarmStart",
    "as_dict",
    "override",
]

ADVERSARIAL_KINDS = ("lsgan", "hinge")
# Seeds are spread over the generators' 64 bits (reconstruction.py).
_LARGEST_SEED = 1 << 40


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW and its schedule: linear warm-up, a plateau, linear decay to zero."""

    learning_rate: float = 1.5e-3
    betas: tuple[float, float] = (0.8, 0.99)
    weight_decay: float = 0.01
    warmup_steps: int = 200
    decay_fraction: float = 0.4
    clip_norm: float = 1.0

    def __post_init__(self) -> None:
        check_types(self)
        require(self.learning_rate > 0, self, "learning_rate", "a number above 0")
        require(all(0 <= beta < 1 for beta in self.betas), self, "betas", "two numbers in [0, 1)")
        require(self.weight_decay >= 0, self, "weight_decay", "0 or more")
        require(self.warmup_steps >= 0, self, "warmup_steps", "0 or more")
        require(0 <= self.decay_fraction <= 1, self, "decay_fraction", "0 to 1")
        require(self.clip_norm > 0, self, "clip_norm", "a number above 0")


@dataclass(frozen=True)
class LossWeights:
    """Weights of the losses (the paper's, A.2)."""

    mel: float = 15.0
    commitment: float = 0.25
    codebook: float = 1.0
    adversarial: float = 1.0
    features: float = 2.0

    def __post_init__(self) -> None:
        check_types(self)
        for item in fields(self):
            require(getattr(self, item.name) >= 0, self, item.name, "0 or more")


@dataclass(frozen=True)
class DiscriminatorConfig:
    """Which discriminators there are.

    Attributes:
        periods: of the multi-period ones.
        windows: samples of the spectrogram windows of the multi-band ones; the hop is a quarter.
        channel_divisor: all channels are divided by this, for small runs.
    """

    periods: tuple[int, ...] = (2, 3, 5, 7, 11)
    windows: tuple[int, ...] = (2048, 1024, 512)
    channel_divisor: int = 1

    def __post_init__(self) -> None:
        check_types(self)
        require(all(p >= 2 for p in self.periods), self, "periods", "whole numbers from 2 on")
        usable = all(w >= 32 and w % 4 == 0 for w in self.windows)
        require(usable, self, "windows", "multiples of 4 from 32 on")
        require(bool(self.periods or self.windows), self, "windows", "one, or a period")
        require(1 <= self.channel_divisor <= 32, self, "channel_divisor", "1 to 32")


@dataclass(frozen=True)
class AdversarialConfig:
    """The stage with discriminators, which are fresh when it begins.

    Attributes:
        start: step from which on they judge and train; 0 for never.
        kind: "lsgan" or "hinge".
        crop_seconds: they judge a random stretch of this length, the same of both; a training
            crop that is shorter is judged whole.
        learning_rate: theirs, constant; the generator's is ``optimizer.learning_rate``.
        betas: of their AdamW, which has no weight decay.
        clip_norm: of their gradients.
        discriminators: which there are.
    """

    start: int = 0
    kind: str = "lsgan"
    crop_seconds: float = 1.0
    learning_rate: float = 1e-4
    betas: tuple[float, float] = (0.8, 0.99)
    clip_norm: float = 10.0
    discriminators: DiscriminatorConfig = field(default_factory=DiscriminatorConfig)

    def __post_init__(self) -> None:
        check_types(self)
        require(self.start >= 0, self, "start", "0 or more")
        require(self.kind in ADVERSARIAL_KINDS, self, "kind", " or ".join(ADVERSARIAL_KINDS))
        require(self.crop_seconds > 0, self, "crop_seconds", "a time above 0")
        require(self.learning_rate > 0, self, "learning_rate", "a number above 0")
        require(all(0 <= beta < 1 for beta in self.betas), self, "betas", "two numbers in [0, 1)")
        require(self.clip_norm > 0, self, "clip_norm", "a number above 0")


@dataclass(frozen=True)
class WarmStart:
    """The first steps train the autoencoder alone, then the quantizer starts from its data.

    Attributes:
        steps: steps without the quantizer; 0 for none.
        noise: noise added to the hidden states meanwhile, relative to their RMS: it leaves
            them about as much room for information as the quantizer will.
        samples: frames that the quantizer is fitted to; 0 keeps its random weights.
        refit_every: fit it anew every so many steps after that, because the encoder moves on
            faster than codebooks learn by gradient; 0 for never again.
    """

    steps: int = 0
    noise: float = 0.3
    samples: int = 20_000
    refit_every: int = 0

    def __post_init__(self) -> None:
        check_types(self)
        for name in ("steps", "noise", "samples", "refit_every"):
            require(getattr(self, name) >= 0, self, name, "0 or more")


@dataclass(frozen=True)
class ValidationConfig:
    """How often to validate, on how much, and at which depths.

    Attributes:
        every: steps between validations.
        clips: clips of the split "valid", spread evenly over it; 0 for no validation.
        max_seconds: length that is measured of each clip.
        num_quantizers: depths; those beyond the model's are taken as its full depth.
    """

    every: int = 1000
    clips: int = 24
    max_seconds: float = 6.0
    num_quantizers: tuple[int, ...] = (8, 16, 32)

    def __post_init__(self) -> None:
        check_types(self)
        require(self.every >= 1, self, "every", "at least 1")
        require(self.clips >= 0, self, "clips", "0 or more")
        require(self.max_seconds > 0, self, "max_seconds", "a time above 0")
        depths = self.num_quantizers
        usable = bool(depths) and all(depth >= 1 for depth in depths)
        require(usable, self, "num_quantizers", "depths from 1 on")


@dataclass(frozen=True)
class PartsConfig:
    """What a run starts from, and what of it is trained.

    Attributes:
        checkpoint: a model folder, a hub id or "bundled" whose weights (and whose configuration,
            in place of ``model``) the run starts from; empty for fresh weights.
        parts: "all"; or "decoder", which freezes encoder and quantizer, so that codes stay what
            they are, and proves it in frozen.json.
    """

    checkpoint: str = ""
    parts: str = "all"

    def __post_init__(self) -> None:
        check_types(self)
        require(self.parts in ("all", "decoder"), self, "parts", "'all' or 'decoder'")
        started = self.parts == "all" or bool(self.checkpoint)
        require(started, self, "parts", "'all' without train.checkpoint: codes need an encoder")


@dataclass(frozen=True)
class TrainingConfig:
    """A whole run.

    Attributes:
        output: folder of the run.
        model: preset name of the codec's configuration; unused with ``train.checkpoint``.
        max_steps: optimiser steps.
        seed: everything random follows from it and the step's number.
        precision: "fp32" or "bf16" (autocast; quantizer and losses stay in float32).
        threads: CPU threads; 0 leaves PyTorch's choice.
        quantizer_dropout: share of rows that use a random prefix of the quantizer's layers.
        decoder_only_from: from this step on only the decoder trains, on a quantizer fitted once
            more to the encoder, which then stays as it is; 0 for never.
        checkpoint_every: steps between checkpoints.
        log_every: steps between lines of progress.
        keep_checkpoints: newest checkpoints kept.
    """

    output: str = ""
    model: str = "bundled"
    max_steps: int = 20_000
    seed: int = 0
    precision: str = "bf16"
    threads: int = 0
    quantizer_dropout: float = 0.5
    decoder_only_from: int = 0
    checkpoint_every: int = 1000
    log_every: int = 50
    keep_checkpoints: int = 2
    train: PartsConfig = field(default_factory=PartsConfig)
    data: DataConfig = field(default_factory=DataConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    losses: LossWeights = field(default_factory=LossWeights)
    adversarial: AdversarialConfig = field(default_factory=AdversarialConfig)
    warm_start: WarmStart = field(default_factory=WarmStart)
    validation: ValidationConfig = field(default_factory=ValidationConfig)

    def __post_init__(self) -> None:
        check_types(self)
        require(self.precision in ("fp32", "bf16"), self, "precision", "'fp32' or 'bf16'")
        for name in ("max_steps", "checkpoint_every", "log_every", "keep_checkpoints"):
            require(getattr(self, name) >= 1, self, name, "at least 1")
        require(0 <= self.seed <= _LARGEST_SEED, self, "seed", "0 to 2**40")
        require(self.threads >= 0, self, "threads", "0 or more")
        after_start = self.decoder_only_from == 0 or self.decoder_only_from >= self.warm_start.steps
        require(after_start, self, "decoder_only_from", "0, or at least warm_start.steps")
        if self.train.checkpoint:
            fresh = self.warm_start.steps == 0 and self.warm_start.samples == 0
            require(fresh, self, "warm_start", "steps=0 and samples=0 with train.checkpoint")
        require(0 <= self.quantizer_dropout <= 1, self, "quantizer_dropout", "0 to 1")
