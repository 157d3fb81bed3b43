"""Ready-made configurations: the released models, the paper's scaling family, and ours.

Sources: the published configuration files (v1, v2); the paper's section 5 and the parameter
counts it gives (scaling family); the published parameter count of Nano.
"""

from collections.abc import Callable
from dataclasses import replace

from ..errors import ConfigError
from .codec import CodecConfig, PatchStage, QuantizerConfig, Stage, TransformerStage

# The quantizer of every released model, 768 -> 512 -> 768, of 32 codebooks.
_RELEASED = QuantizerConfig(768, 512, 768)


def _alternating(*stages: TransformerStage) -> tuple[Stage, ...]:
    """An encoder: a patch before every Transformer stage, 240 samples before the first."""
    patches = (240, *[2] * (len(stages) - 1))
    pairs = zip(patches, stages, strict=True)
    return tuple(item for size, stage in pairs for item in (PatchStage(size), stage))


def _mirror(stages: tuple[Stage, ...]) -> tuple[Stage, ...]:
    """The decoder that runs ``stages`` backwards, with inputs and outputs swapped."""
    return tuple(_swap(stage) for stage in reversed(stages))


def _swap(stage: Stage) -> Stage:
    if isinstance(stage, PatchStage):
        return stage
    inputs, outputs = stage.output_dimension, stage.input_dimension
    return replace(stage, input_dimension=inputs, output_dimension=outputs)


def _mono(
    encoder: tuple[Stage, ...],
    quantizer: QuantizerConfig = _RELEASED,
    decoder: tuple[Stage, ...] = (),
) -> CodecConfig:
    """A codec at 24 kHz; its decoder mirrors the encoder unless one is given."""
    return CodecConfig(24_000, 1920, encoder, decoder or _mirror(encoder), quantizer)


def _stereo(encoder: tuple[Stage, ...], quantizer: QuantizerConfig = _RELEASED) -> CodecConfig:
    """A codec at 48 kHz, its two channels interleaved."""
    return CodecConfig(48_000, 3840, encoder, _mirror(encoder), quantizer, number_channels=2)


def _stage(
    inputs: int, outputs: int, width: int, layers: int, seconds: float = 10.0
) -> TransformerStage:
    """Heads of 64 channels, feed-forward layers of four times the width."""
    heads = width // 64
    return TransformerStage(inputs, outputs, width, heads, layers, 4 * width, seconds)


def _v1_layout(first: int, second: int, third: int, last: int) -> CodecConfig:
    """Four stages at 100 / 50 / 25 / 12.5 Hz; the scaling family varies only the widths."""

    def stage(inputs: int, outputs: int, width: int, layers: int, hidden: int) -> TransformerStage:
        return TransformerStage(inputs, outputs, width, width // 64, layers, hidden, 10.0)

    return _mono(
        _alternating(
            stage(240, 384, first, 12, 3072),
            stage(768, 384, second, 12, 3072),
            stage(768, 640, third, 12, 3072),
            stage(1280, 768, last, 32, 5120),
        )
    )


def v1() -> CodecConfig:
    """MOSS-Audio-Tokenizer: 1.77 B parameters, 24 kHz mono."""
    return _v1_layout(768, 768, 768, 1280)


def scaling(width: int) -> CodecConfig:
    """A member of the paper's scaling family: v1 with one width in all four stages."""
    return _v1_layout(width, width, width, width)


def _projecting(stages: tuple[Stage, ...]) -> tuple[Stage, ...]:
    """Stages with projections between equal dimensions too, as the v2 family has them."""
    return tuple(
        replace(stage, always_project=True) if isinstance(stage, TransformerStage) else stage
        for stage in stages
    )


def v2() -> CodecConfig:
    """MOSS-Audio-Tokenizer v2: 2.12 B parameters, 48 kHz stereo, a window for each stage."""
    encoder = _alternating(
        _stage(240, 384, 768, 12, 1.0),
        _stage(768, 384, 768, 12, 2.0),
        _stage(768, 384, 768, 12, 4.0),
        _stage(768, 384, 768, 12, 8.0),
        _stage(768, 640, 768, 12, 10.0),
        _stage(1280, 768, 1280, 32, 10.0),
    )
    return _stereo(_projecting(encoder))


def nano() -> CodecConfig:
    """MOSS-Audio-Tokenizer Nano: 22 M parameters, 48 kHz stereo, 16 quantizers."""
    encoder = _alternating(
        _stage(240, 384, 256, 4, 4.0),
        _stage(768, 384, 256, 2, 6.0),
        _stage(768, 384, 256, 2, 8.0),
        _stage(768, 192, 256, 4, 10.0),
    )
    return _stereo(_projecting((*encoder, PatchStage(4))), replace(_RELEASED, num_quantizers=16))


def nano_24k() -> CodecConfig:
    """The Nano's size with v1's rates and windows, 24 kHz mono: a yardstick for speed."""
    encoder = _alternating(
        _stage(240, 384, 256, 4),
        _stage(768, 384, 256, 2),
        _stage(768, 384, 256, 2),
        _stage(768, 768, 256, 4),
    )
    return _mono(encoder, replace(_RELEASED, num_quantizers=16))


def one_gpu() -> CodecConfig:
    """A codec of 95 M parameters, for one GPU: v1 scaled down (not one of the paper's sizes)."""
    encoder = _alternating(
        _stage(240, 384, 384, 4),
        _stage(768, 384, 384, 4),
        _stage(768, 384, 384, 4),
        _stage(768, 512, 512, 8),
    )
    return _mono(encoder, QuantizerConfig(512, 512, 512))


def _bundled_layout(
    widths: tuple[int, ...], num_heads: int | None, quantizer: QuantizerConfig
) -> CodecConfig:
    """Our layout: a decoder deeper than its encoder, at the rates of v1.

    One window of 1.28 s in every stage, so that training crops of that length show the model
    every distance that it will meet.
    """

    def stage(inputs: int, outputs: int, width: int, layers: int) -> TransformerStage:
        heads = num_heads or width // 64
        return TransformerStage(inputs, outputs, width, heads, layers, 4 * width, 1.28)

    encoder = _alternating(
        stage(240, 192, widths[0], 2),
        stage(384, 192, widths[1], 1),
        stage(384, 256, widths[2], 1),
        stage(512, 256, widths[3], 2),
    )
    backwards = _alternating(
        stage(256, 240, widths[7], 3),
        stage(256, 512, widths[6], 1),
        stage(256, 512, widths[5], 1),
        stage(256, 512, widths[4], 2),
    )
    return _mono(encoder, quantizer, tuple(reversed(backwards)))


def bundled() -> CodecConfig:
    """The model inside the package: 24 kHz mono, small enough to train and run on a CPU."""
    widths = (192, 192, 256, 256, 256, 256, 256, 256)
    return _bundled_layout(widths, None, QuantizerConfig(256, 256, 256))


def tiny() -> CodecConfig:
    """The bundled layout at width 32, 4 quantizers of 64 rows: for trials, not for listening."""
    quantizer = QuantizerConfig(256, 256, 256, num_quantizers=4, codebook_size=64)
    return _bundled_layout((32,) * 8, 2, quantizer)


def study(width: int) -> CodecConfig:
    """A small member of our layout for comparisons: 8 quantizers of 256 rows."""
    quantizer = QuantizerConfig(256, 256, 256, num_quantizers=8, codebook_size=256)
    return _bundled_layout((width,) * 8, width // 16, quantizer)


PRESETS: dict[str, Callable[[], CodecConfig]] = {
    "v1": v1,
    "v2": v2,
    "nano": nano,
    "nano-24k": nano_24k,
    "one-gpu": one_gpu,
    "bundled": bundled,
    "tiny": tiny,
    "study-32": lambda: study(32),
    "study-64": lambda: study(64),
    "study-128": lambda: study(128),
    "study-256": lambda: study(256),
    "scaling-319m": lambda: scaling(256),
    "scaling-505m": lambda: scaling(384),
    "scaling-710m": lambda: scaling(512),
    "scaling-1169m": lambda: scaling(768),
}


def preset(name: str) -> CodecConfig:
    """The configuration called ``name``.

    Raises:
        ConfigError: there is none of that name; the message lists those there are.
    """
    if name not in PRESETS:
        raise ConfigError(f"no preset {name!r}; there are {', '.join(PRESETS)}")
    return PRESETS[name]()
