"""What a codec is: the stages of its encoder and decoder, and its quantizer.

Frozen, checked when built, free of any framework. Knows nothing of the key names that
released config.json files use (`released.py` translates them), nor of tensors.
"""

from dataclasses import dataclass, field
from math import isfinite, prod

from ..errors import ConfigError

QUANTIZER_TYPES = ("rlfq", "rvq")
# Far above any model; keeps a damaged config.json from asking for impossible tensors.
_LARGEST_COUNT = 1 << 20


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ConfigError(message)


def _require_counts(owner: object, *names: str) -> None:
    for name in names:
        value = getattr(owner, name)
        _require(
            isinstance(value, int) and not isinstance(value, bool) and 0 < value <= _LARGEST_COUNT,
            f"{type(owner).__name__}.{name} is {value!r}; expected 1 to {_LARGEST_COUNT}",
        )


def _require_positive(owner: object, *names: str) -> None:
    for name in names:
        value = getattr(owner, name)
        number = isinstance(value, int | float) and not isinstance(value, bool)
        _require(
            number and isfinite(value) and value > 0,
            f"{type(owner).__name__}.{name} is {value!r}; expected a finite number above 0",
        )


@dataclass(frozen=True)
class PatchStage:
    """Folds ``patch_size`` steps into channels (encoder) or back (decoder)."""

    patch_size: int

    def __post_init__(self) -> None:
        _require_counts(self, "patch_size")


@dataclass(frozen=True)
class TransformerStage:
    """A stack of causal, windowed Transformer blocks at one rate.

    Attributes:
        input_dimension: channels that come in.
        output_dimension: channels that go out.
        d_model: width of the blocks.
        num_heads: attention heads; ``d_model / num_heads`` must be even (rotary pairs).
        num_layers: blocks.
        dim_feedforward: hidden width of the feed-forward part.
        context_seconds: a step attends to itself and the steps before it within this time.
        max_period: longest rotary period, in steps (divided by 2 pi).
        layer_scale: value that both layer scales of a block start from.
        always_project: have an input and an output projection even between equal
            dimensions (the v2 family does, v1 does not).
    """

    input_dimension: int
    output_dimension: int
    d_model: int
    num_heads: int
    num_layers: int
    dim_feedforward: int
    context_seconds: float
    max_period: float = 10_000.0
    layer_scale: float = 0.01
    always_project: bool = False

    def __post_init__(self) -> None:
        _require_counts(self, "input_dimension", "output_dimension", "d_model", "num_heads")
        _require_counts(self, "num_layers", "dim_feedforward")
        _require_positive(self, "context_seconds", "max_period")
        _require(
            self.d_model % (2 * self.num_heads) == 0,
            f"TransformerStage: d_model {self.d_model} does not split into {self.num_heads} "
            "heads of even size; change d_model or num_heads",
        )

    @property
    def projects_input(self) -> bool:
        """Whether a linear layer leads from ``input_dimension`` to ``d_model``."""
        return self.always_project or self.input_dimension != self.d_model

    @property
    def projects_output(self) -> bool:
        """Whether a linear layer leads from ``d_model`` to ``output_dimension``."""
        return self.always_project or self.output_dimension != self.d_model


Stage = PatchStage | TransformerStage


@dataclass(frozen=True)
class QuantizerConfig:
    """The residual quantizer.

    Attributes:
        input_dim: width of the encoder's output.
        rvq_dim: width of the residual.
        output_dim: width of the decoder's input.
        num_quantizers: layers.
        codebook_size: rows of each codebook.
        codebook_dim: width of a row.
        quantizer_type: ``rlfq`` picks the nearest row by direction, ``rvq`` by distance.
    """

    input_dim: int
    rvq_dim: int
    output_dim: int
    num_quantizers: int = 32
    codebook_size: int = 1024
    codebook_dim: int = 8
    quantizer_type: str = "rlfq"

    def __post_init__(self) -> None:
        _require_counts(self, "input_dim", "rvq_dim", "output_dim")
        _require_counts(self, "num_quantizers", "codebook_size", "codebook_dim")
        _require(
            2 <= self.codebook_size <= 65_536,
            f"QuantizerConfig.codebook_size is {self.codebook_size}; expected 2 to 65536",
        )
        _require(
            self.quantizer_type in QUANTIZER_TYPES,
            f"QuantizerConfig.quantizer_type is {self.quantizer_type!r}; "
            f"expected one of {', '.join(QUANTIZER_TYPES)}",
        )


@dataclass(frozen=True)
class CodecConfig:
    """A whole codec: rates, encoder stages, quantizer, decoder stages.

    Attributes:
        sampling_rate: samples a second and channel.
        number_channels: 1, or 2 for interleaved stereo.
        downsample_rate: samples a frame and channel.
        encoder: stages from the waveform to the quantizer.
        decoder: stages from the quantizer to the waveform.
        quantizer: the residual quantizer.
        frame_rate: frames of codes a second.
        encoder_rates: steps a second at which each stage works (a patch stage: after it).
        decoder_rates: likewise.
    """

    sampling_rate: int
    downsample_rate: int
    encoder: tuple[Stage, ...]
    decoder: tuple[Stage, ...]
    quantizer: QuantizerConfig
    number_channels: int = 1
    frame_rate: float = field(init=False, repr=False, compare=False)
    encoder_rates: tuple[float, ...] = field(init=False, repr=False, compare=False)
    decoder_rates: tuple[float, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        _require_counts(self, "sampling_rate", "downsample_rate", "number_channels")
        _require(
            self.number_channels <= 2,
            f"CodecConfig.number_channels is {self.number_channels}; expected 1 or 2",
        )
        self._check_projections()
        self._check_patches("encoder", self.encoder)
        self._check_patches("decoder", self.decoder)
        last = self._check_dimensions("encoder", self.encoder, 1, folds=True)
        self._check_link("encoder's output", last, "quantizer.input_dim", self.quantizer.input_dim)
        last = self._check_dimensions("decoder", self.decoder, self.quantizer.output_dim, False)
        self._check_link("decoder's output", last, "the waveform", 1)
        object.__setattr__(self, "frame_rate", self.sampling_rate / self.downsample_rate)
        object.__setattr__(self, "encoder_rates", self._rates(self.encoder, self.stream_rate, True))
        object.__setattr__(self, "decoder_rates", self._rates(self.decoder, self.frame_rate, False))

    def _check_projections(self) -> None:
        """Released files, and the weights' names, know one answer for the whole codec."""
        stages = [
            stage for stage in self.encoder + self.decoder if isinstance(stage, TransformerStage)
        ]
        _require(
            len({stage.always_project for stage in stages}) <= 1,
            "always_project differs between stages; set it in all of them or in none",
        )

    def _check_patches(self, name: str, stages: tuple[Stage, ...]) -> None:
        patches = [stage.patch_size for stage in stages if isinstance(stage, PatchStage)]
        expected = self.downsample_rate * self.number_channels
        _require(
            prod(patches) == expected,
            f"{name}: patch sizes {patches} multiply to {prod(patches)}; expected "
            f"downsample_rate x number_channels = {expected}",
        )

    def _check_dimensions(
        self, name: str, stages: tuple[Stage, ...], width: int, folds: bool
    ) -> int:
        for index, stage in enumerate(stages):
            if isinstance(stage, TransformerStage):
                where = f"{name}[{index}].input_dimension"
                self._check_link(
                    f"{name} before stage {index}", width, where, stage.input_dimension
                )
                width = stage.output_dimension
            elif folds:
                width *= stage.patch_size
            else:
                self._check_link(f"{name}[{index}] patch", width % stage.patch_size, "remainder", 0)
                width //= stage.patch_size
        return width

    @staticmethod
    def _check_link(left: str, got: int, right: str, expected: int) -> None:
        _require(got == expected, f"{left} has {got} channels, but {right} is {expected}")

    @staticmethod
    def _rates(stages: tuple[Stage, ...], rate: float, folds: bool) -> tuple[float, ...]:
        rates = []
        for stage in stages:
            if isinstance(stage, PatchStage):
                rate = rate / stage.patch_size if folds else rate * stage.patch_size
            rates.append(rate)
        return tuple(rates)

    @property
    def stream_rate(self) -> float:
        """Samples a second of the (interleaved) stream that the encoder reads."""
        return float(self.sampling_rate * self.number_channels)

    def context_steps(self, stage: TransformerStage, rate: float) -> int:
        """Steps of ``stage`` that a step sees, itself included, at ``rate`` steps a second."""
        return max(1, round(stage.context_seconds * rate))
