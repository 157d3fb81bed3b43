"""What a CAT-TTS model is built like, in the manner of transformers."""

from typing import Any

from transformers import PreTrainedConfig

from ..errors import ConfigError
from ..language.nested import check_whole, nested_config

_LEAST = {
    "num_quantizers": 1,
    "codebook_size": 2,
    "code_rank": 0,
    "depth_width": 1,
    "depth_layers": 1,
    "depth_heads": 1,
    "depth_key_value_heads": 1,
    "depth_head_dim": 1,
    "depth_feedforward": 1,
    "adapter_width": 0,
}


class CatTtsConfig(PreTrainedConfig):
    """Configuration of a `CatTts`; the depth defaults are those of the published recipe.

    Attributes:
        text_config: of the temporal Transformer, a decoder-only model.
        num_quantizers: layers of codes that it speaks.
        codebook_size: rows of each.
        code_rank: of the code tables, see `CodeEmbedding`; 0 for whole tables.
        depth_width: channels of the depth Transformer.
        depth_layers: its blocks.
        depth_heads: its heads.
        depth_key_value_heads: its heads of keys and values; ``depth_heads`` is a multiple.
        depth_head_dim: channels of a head.
        depth_feedforward: channels inside its gated feed-forward layers.
        adapter_width: channels inside the gated layers before the depth Transformer and before
            each of its outputs; 0 puts plain projections there.
        place_inputs: both Transformers are told which token is being said, and speech goes through
            the text token by token, without leaving any out (`PlaceGuide`): for small data.
        guidance: with which it speaks unless it is asked otherwise (`SpeechSampling`).
        codec: identity of the codec whose codes it speaks; empty where nobody noted it.

    Raises:
        ConfigError: a number cannot be, or there is no such language model.
    """

    model_type = "cat-tts"

    text_config: dict | PreTrainedConfig | None = None
    num_quantizers: int = 32
    codebook_size: int = 1024
    code_rank: int = 0
    depth_width: int = 1536
    depth_layers: int = 4
    depth_heads: int = 16
    depth_key_value_heads: int = 8
    depth_head_dim: int = 128
    depth_feedforward: int = 8960
    adapter_width: int = 2048
    place_inputs: bool = False
    guidance: float = 1.0
    codec: str = ""

    def __post_init__(self, **kwargs: Any) -> None:
        """Make the nested configuration, and refuse what cannot be built."""
        if self.text_config is not None:
            self.text_config = nested_config(self.text_config)
        super().__post_init__(**kwargs)
        check_whole(self, _LEAST)
        number = isinstance(self.guidance, int | float) and not isinstance(self.guidance, bool)
        if not number or not 0 < self.guidance <= 100:
            raise ConfigError(
                f"guidance is {self.guidance!r}; expected a number above 0, up to 100"
            )
        if self.guidance != 1 and not self.place_inputs:
            raise ConfigError(
                f"guidance is {self.guidance:g}; expected 1 where place_inputs is false: there is "
                "nothing to be led by"
            )
        if self.depth_heads % self.depth_key_value_heads:
            raise ConfigError(
                f"depth_heads is {self.depth_heads}; expected a multiple of "
                f"depth_key_value_heads, which is {self.depth_key_value_heads}"
            )
