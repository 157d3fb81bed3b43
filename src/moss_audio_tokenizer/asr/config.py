"""What a CAT-ASR model is built like, in the manner of transformers."""

from typing import Any

from transformers import PreTrainedConfig

from ..language.nested import check_whole, nested_config


class CatAsrConfig(PreTrainedConfig):
    """Configuration of a `CatAsr`.

    Attributes:
        text_config: of the decoder-only model inside; its tokens are those of the texts.
        num_quantizers: layers of codes that it can be given.
        codebook_size: rows of each.
        code_rank: of the code tables, see `CodeEmbedding`; 0 for whole tables.
        frame_scores: frames also score tokens themselves, for a loss that helps small data
            (`AsrOutput.frame_loss`), and to read by with ``num_beams=0``.
        codec: identity of the codec whose codes it reads; empty where nobody noted it.

    Raises:
        ConfigError: a number cannot be, or there is no such language model.
    """

    model_type = "cat-asr"

    text_config: dict | PreTrainedConfig | None = None
    num_quantizers: int = 32
    codebook_size: int = 1024
    code_rank: int = 0
    frame_scores: bool = False
    codec: str = ""

    def __post_init__(self, **kwargs: Any) -> None:
        """Make the nested configuration, and refuse what cannot be built."""
        if self.text_config is not None:
            self.text_config = nested_config(self.text_config)
        super().__post_init__(**kwargs)
        check_whole(self, {"num_quantizers": 1, "codebook_size": 1, "code_rank": 0})
