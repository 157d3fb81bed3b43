"""What a training run of a codec is: frozen dataclasses, checked when built.

Knows nothing of how training works. `run_config.py` has what every run has, `data/data_config.py`
the group ``data``.
"""

from dataclasses import dataclass, field, fields

from ...errors import ConfigError
from ..data.data_config import DataConfig
from ..run_config import (
    OptimizerConfig,
    RunConfig,
    ValidationSchedule,
    check_types,
    num_heads,
    require,
)

ADVERSARIAL_KINDS = ("lsgan", "hinge")
OPTIMIZERS = ("adamw", "muon")
# What trains, by the name of the choice.
TRAINED_PARTS = {
    "all": ("encoder", "quantizer", "decoder", "semantic"),
    "after_encoder": ("quantizer", "decoder", "semantic"),
    "decoder": ("decoder",),
    "semantic": ("semantic",),
}


@dataclass(frozen=True)
class LossWeights:
    """Weights of the losses.

    Those of the paper (appendix A.2) are ``mel``, ``commitment``, ``codebook``, ``adversarial``,
    ``features`` and ``semantic``; the others are not in the paper, and off by default.

    Attributes:
        mel: weight of the log-mel distance.
        phase: weight of the distance of complex spectra of low frequencies.
        stft: weight of the distance of linear-frequency magnitudes at several resolutions.
        instantaneous_frequency: weight of the distance of phase advances from frame to frame.
        commitment: weight of the quantizer's commitment loss.
        codebook: weight of the quantizer's codebook loss.
        adversarial: weight of the generator's adversarial loss.
        features: weight of the feature-matching loss.
        semantic: weight of the language model's cross-entropy.
    """

    mel: float = 15.0
    phase: float = 0.0
    stft: float = 0.0
    instantaneous_frequency: float = 0.0
    commitment: float = 0.25
    codebook: float = 1.0
    adversarial: float = 1.0
    features: float = 2.0
    semantic: float = 20.0

    def __post_init__(self) -> None:
        check_types(self)
        for item in fields(self):
            require(getattr(self, item.name) >= 0, self, item.name, "0 or more")


@dataclass(frozen=True)
class SpectraConfig:
    """What the spectral losses look at.

    Attributes:
        mel_windows: the number of windows, drawn in each step, that ``losses.mel`` is measured
            with and that stand for all; 0 takes all of them.
        phase_windows: the same number for ``losses.phase``.
        phase_hertz: the highest frequency of ``losses.phase``.
        stft_windows: the window lengths of ``losses.stft`` in samples.
        stft_hertz: the lowest and the highest frequency of ``losses.stft``; 0 for the highest is
            the Nyquist frequency.
        frequency_hertz: the same frequencies for ``losses.instantaneous_frequency``.
    """

    mel_windows: int = 0
    phase_windows: int = 0
    phase_hertz: float = 700.0
    stft_windows: tuple[int, ...] = (512, 1024, 2048, 4096)
    stft_hertz: tuple[float, float] = (0.0, 0.0)
    frequency_hertz: tuple[float, float] = (700.0, 0.0)

    def __post_init__(self) -> None:
        check_types(self)
        for name in ("mel_windows", "phase_windows"):
            require(getattr(self, name) >= 0, self, name, "0 or more")
        require(self.phase_hertz > 0, self, "phase_hertz", "a frequency above 0")
        lengths = self.stft_windows
        usable = bool(lengths) and all(n >= 16 and n % 4 == 0 for n in lengths)
        usable = usable and len(set(lengths)) == len(lengths)
        require(usable, self, "stft_windows", "different multiples of 4 from 16 on")
        for name in ("stft_hertz", "frequency_hertz"):
            low, high = getattr(self, name)
            usable = low >= 0 and (high == 0 or high > low)
            require(usable, self, name, "(lowest, highest) in Hz, or a highest of 0")


@dataclass(frozen=True)
class DiscriminatorConfig:
    """Which discriminators there are.

    Attributes:
        periods: the periods of the multi-period discriminators; may be empty.
        windows: the window lengths of the multi-band discriminators in samples; may be empty. The
            hop is a quarter of each.
        channel_divisor: the number that all channels are divided by, for small runs: periods=(),
            windows=(1024,) and 8 fit a CPU.
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

    @property
    def least_samples(self) -> int:
        """The shortest audio that they take: they mirror 3/8 of a window, and to whole hops."""
        return max(*self.periods, *(5 * window // 8 for window in self.windows), 1)


@dataclass(frozen=True)
class AdversarialConfig:
    """The stage with discriminators, which start from random weights.

    Attributes:
        start: the step from which on the codec is trained against them; 0 for never.
        warmup_steps: the number of steps before ``start`` in which the discriminators alone are
            trained on the codec's reconstructions, whose own losses do not change. Nothing
            without ``start``.
        learning_rate: their learning rate, which is constant.
        kind: "lsgan" or "hinge".
        crop_seconds: the length of the random crop that they see, the same of recording and
            reconstruction; a shorter row is seen whole.
        discriminators: which discriminators there are.
    """

    start: int = 0
    warmup_steps: int = 0
    learning_rate: float = 1e-4
    kind: str = "lsgan"
    crop_seconds: float = 1.0
    discriminators: DiscriminatorConfig = field(default_factory=DiscriminatorConfig)

    def __post_init__(self) -> None:
        check_types(self)
        require(self.start >= 0, self, "start", "0 or more")
        require(self.warmup_steps >= 0, self, "warmup_steps", "0 or more")
        require(self.learning_rate > 0, self, "learning_rate", "above 0")
        require(self.kind in ADVERSARIAL_KINDS, self, "kind", " or ".join(ADVERSARIAL_KINDS))
        require(self.crop_seconds > 0, self, "crop_seconds", "a time above 0")


@dataclass(frozen=True)
class WarmStart:
    """The first steps train the autoencoder alone, then the quantizer starts from its data.

    Attributes:
        low_band: the frequency in Hz below which encoder and decoder pass the waveform through
            from the first step on; 0 for none.
        steps: the number of steps without the quantizer; 0 for none.
        samples: the number of frames that the quantizer is fitted to; 0 keeps its random weights.
        refit_every: the number of steps after which it is fitted again, because the encoder changes
            faster than codebooks learn by gradient; 0 for never.
    """

    low_band: float = 0.0
    steps: int = 0
    samples: int = 20_000
    refit_every: int = 0

    def __post_init__(self) -> None:
        check_types(self)
        for name in ("low_band", "steps", "samples", "refit_every"):
            require(getattr(self, name) >= 0, self, name, "0 or more")


@dataclass(frozen=True)
class ValidationConfig(ValidationSchedule):
    """How often to validate, on how much, and with how many quantizer layers.

    Attributes:
        num_quantizers: the numbers of layers; those beyond the model's stand for all of its layers.
    """

    num_quantizers: tuple[int, ...] = (8, 16, 32)

    def __post_init__(self) -> None:
        super().__post_init__()
        usable = bool(self.num_quantizers) and min(self.num_quantizers) >= 1
        require(usable, self, "num_quantizers", "numbers of layers from 1 on")


@dataclass(frozen=True)
class SemanticConfig:
    """The language model that predicts texts from the codes in training; not a part of the codec.

    Attributes:
        llm: the folder or hub id of a decoder-only model of transformers; "random" for a small one
            with random weights, empty for none.
        init: "pretrained" weights, or "random" ones in the shape that ``llm`` names.
        width: the width of the model called "random", whose tokens are UTF-8 bytes.
        num_layers: the number of its layers.
    """

    llm: str = ""
    init: str = "pretrained"
    width: int = 64
    num_layers: int = 1

    def __post_init__(self) -> None:
        check_types(self)
        require(self.init in ("pretrained", "random"), self, "init", "'pretrained' or 'random'")
        for name in ("width", "num_layers"):
            require(getattr(self, name) >= 1, self, name, "at least 1")
        multiple = 2 * num_heads(self.width)
        require(self.width % multiple == 0, self, "width", f"a multiple of {multiple}")


@dataclass(frozen=True)
class PartsConfig:
    """What a run starts from, and which parts are trained.

    Attributes:
        checkpoint: the model folder, a hub id or "bundled" whose weights (and whose configuration,
            in place of ``model``) the run starts from; empty for fresh weights.
        parts: "all"; "after_encoder", which freezes the encoder; "decoder", which freezes encoder
            and quantizer, so that codes stay what they are; "semantic", which trains the language
            model alone on a frozen codec. frozen.json verifies what was frozen.
        sampling_rate: the rate to convert the checkpoint to, with patches longer or shorter in
            proportion; 0 leaves it.
    """

    checkpoint: str = ""
    parts: str = "all"
    sampling_rate: int = 0

    def __post_init__(self) -> None:
        check_types(self)
        known = ", ".join(map(repr, TRAINED_PARTS))
        require(self.parts in TRAINED_PARTS, self, "parts", f"one of {known}")
        started = self.parts == "all" or bool(self.checkpoint)
        require(started, self, "parts", "'all' without train.checkpoint: codes need an encoder")
        require(self.sampling_rate >= 0, self, "sampling_rate", "0, or samples a second")
        extended = self.sampling_rate == 0 or bool(self.checkpoint)
        require(extended, self, "sampling_rate", "0 without train.checkpoint")


@dataclass(frozen=True)
class CodecOptimizerConfig(OptimizerConfig):
    """The optimizer of a codec.

    Attributes:
        kind: "adamw", or "muon" for the matrices of the Transformer blocks (Jordan et al. 2024),
            with AdamW for everything else.
    """

    kind: str = "adamw"

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.kind in OPTIMIZERS, self, "kind", " or ".join(map(repr, OPTIMIZERS)))


@dataclass(frozen=True)
class TrainingConfig(RunConfig):
    """A whole run of a codec; with ``bf16`` its quantizer stays in float32.

    Attributes:
        model: the preset name of the codec's configuration; unused with ``train.checkpoint``.
        recompute: whether activations of Transformer blocks are computed again in the backward
            pass instead of kept (activation checkpointing).
        ema_decay: the decay of a moving average of the codec's weights, which is then validated
            and saved as the final model; 0 for none.
        quantizer_dropout: the share of rows that use a random prefix of the quantizer's layers.
        codebook_decay: the decay with which each codebook entry is a moving average of the vectors
            that select it; entries that are hardly ever selected are replaced, and the projections
            of the layers stay as they were fitted. 0 trains all of them by gradient, as the paper
            does.
        decoder_only_from: the step from which on only the decoder trains, on a quantizer that is
            fitted once more to the encoder; 0 for never.
    """

    model: str = "bundled"
    recompute: bool = False
    ema_decay: float = 0.0
    quantizer_dropout: float = 0.5
    codebook_decay: float = 0.0
    decoder_only_from: int = 0
    train: PartsConfig = field(default_factory=PartsConfig)
    data: DataConfig = field(default_factory=DataConfig)
    optimizer: CodecOptimizerConfig = field(default_factory=CodecOptimizerConfig)
    losses: LossWeights = field(default_factory=LossWeights)
    spectra: SpectraConfig = field(default_factory=SpectraConfig)
    adversarial: AdversarialConfig = field(default_factory=AdversarialConfig)
    semantic: SemanticConfig = field(default_factory=SemanticConfig)
    warm_start: WarmStart = field(default_factory=WarmStart)
    validation: ValidationConfig = field(default_factory=ValidationConfig)

    kind = "codec"

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("ema_decay", "codebook_decay"):
            require(0 <= getattr(self, name) < 1, self, name, "0, or a number below 1")
        after_start = self.decoder_only_from == 0 or self.decoder_only_from >= self.warm_start.steps
        require(after_start, self, "decoder_only_from", "0, or at least warm_start.steps")
        if self.train.checkpoint:
            start = self.warm_start
            fits = start.steps == 0 and (start.samples == 0 or start.low_band > 0)
            expected = "steps=0, and samples=0 without low_band, with train.checkpoint"
            require(fits, self, "warm_start", expected)
            whole = self.train.parts == "all" or start.low_band == 0
            require(whole, self, "warm_start", "low_band=0 where not all parts are trained")
        whole = not (self.shard and self.optimizer.kind == "muon")
        require(whole, self, "shard", "False with optimizer.kind=muon")
        require(0 <= self.quantizer_dropout <= 1, self, "quantizer_dropout", "0 to 1")
        followed = not (self.shard and self.codebook_decay)
        require(followed, self, "codebook_decay", "0 with shard")
        fitted = self.codebook_decay == 0 or self.warm_start.samples or self.train.checkpoint
        expected = "0 without warm_start.samples and without train.checkpoint"
        require(bool(fitted), self, "codebook_decay", expected)
        self._check_semantic()

    def _check_semantic(self) -> None:
        reads = bool(self.semantic.llm)
        if self.train.parts == "semantic" and not reads:
            raise ConfigError(
                "train.parts is 'semantic' without semantic.llm; name a language model"
            )
        if self.data.text_share > 0 and not reads:
            raise ConfigError(
                f"data.text_share is {self.data.text_share:g} without semantic.llm; name a "
                "language model, or set data.text_share=0"
            )
        if reads and not self.data.text_share > 0:
            raise ConfigError(
                "semantic.llm is set, but data.text_share is 0; set the share of rows with text, "
                "or semantic.llm= to train without texts"
            )

    def trains(self, part: str) -> bool:
        """Whether "encoder", "quantizer", "decoder" or "semantic" is trained at all."""
        return part in TRAINED_PARTS[self.train.parts]
