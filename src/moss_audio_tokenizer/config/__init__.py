"""Configurations of codecs, and the presets; standard library only."""

from .codec import CodecConfig, PatchStage, QuantizerConfig, Stage, TransformerStage
from .presets import PRESETS, preset
from .released import codec_config_from_released, released_from_codec_config

__all__ = [
    "PRESETS",
    "CodecConfig",
    "PatchStage",
    "QuantizerConfig",
    "Stage",
    "TransformerStage",
    "codec_config_from_released",
    "preset",
    "released_from_codec_config",
]
