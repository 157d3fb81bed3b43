"""The configuration in the manner of transformers: the keys of released config.json files."""

from typing import Any

from transformers import PreTrainedConfig

from ..config import CodecConfig, codec_config_from_released, preset, released_from_codec_config
from ..config.released import ALIASES


class MossAudioTokenizerConfig(PreTrainedConfig):
    """Configuration of a `MossAudioTokenizerModel`; the defaults are the released v1 model.

    Takes the keys of released config.json files, with their aliases; `from_codec_config` and
    `preset` build one from this package's own dataclasses.

    Raises:
        ConfigError: the keys do not describe a codec, or ask for what no release uses.
    """

    model_type = "moss-audio-tokenizer"
    attribute_map = ALIASES

    sampling_rate: int = 24_000
    downsample_rate: int = 1920
    causal_transformer_context_duration: float = 10.0
    encoder_kwargs: list | None = None
    decoder_kwargs: list | None = None
    reversed_decoder_kwargs: list | None = None
    quantizer_type: str = "rlfq"
    quantizer_kwargs: dict | None = None
    code_dim: int | None = None
    number_channels: int = 1
    enable_channel_interleave: bool | None = None
    always_project: bool | None = None
    attention_implementation: str = "sdpa"
    compute_dtype: str = "fp32"
    codec_weight_dtype: str = "fp32"
    lengths: str = "ceil"
    version: str | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        """Fill in the defaults and refuse what cannot be built."""
        if self.encoder_kwargs is None:
            for key, value in released_from_codec_config(preset("v1")).items():
                setattr(self, key, value)
        super().__post_init__(**kwargs)
        self._codec = codec_config_from_released(self._released(), self.always_project)

    def _released(self) -> dict[str, Any]:
        names = codec_keys()
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}

    @classmethod
    def from_codec_config(cls, config: CodecConfig, **kwargs: Any) -> "MossAudioTokenizerConfig":
        """Wrap a `CodecConfig`."""
        return cls(**{**released_from_codec_config(config), **kwargs})

    @classmethod
    def preset(cls, name: str) -> "MossAudioTokenizerConfig":
        """The configuration of a preset such as "v1", "v2", "nano" or "bundled"."""
        return cls.from_codec_config(preset(name))

    @property
    def codec(self) -> CodecConfig:
        """The checked configuration that the model is built from."""
        return self._codec

    @property
    def num_quantizers(self) -> int:
        """Layers of codes."""
        return self._codec.quantizer.num_quantizers

    @property
    def codebook_size(self) -> int:
        """Entries of each codebook."""
        return self._codec.quantizer.codebook_size

    @property
    def frame_rate(self) -> float:
        """Frames of codes a second."""
        return self.sampling_rate / self.downsample_rate

    def to_dict(self) -> dict[str, Any]:
        """Plain values for config.json."""
        values: dict[str, Any] = super().to_dict()
        values.pop("_codec", None)
        return values


def codec_keys() -> tuple[str, ...]:
    """The keys that say what the codec computes."""
    return (*released_from_codec_config(preset("bundled")), "reversed_decoder_kwargs")
