"""Configuration of CAT-ASR, as transformers stores it."""

from typing import Any

from transformers import PreTrainedConfig

from ..llm.llm import check_whole, nested_config


class CatAsrConfig(PreTrainedConfig):
    """Sizes of a `CatAsr`.

    Attributes:
        text_config: configuration of the decoder-only language model, with its text tokens.
        num_quantizers: number of codebooks that the model can read.
        codebook_size: number of entries of each codebook.
        code_rank: rank of the code embeddings (`CodeEmbedding`); 0 for full tables.
        frame_scores: add a CTC head on the states of the frames, trained by a second loss
            (`AsrOutput.frame_loss`) and decoded with ``num_beams=0``.
        codec: identity of the codec whose codes the model reads; empty if unknown.

    Raises:
        ConfigError: a value is out of range, or the language model is unknown.
    """

    model_type = "cat-asr"

    text_config: dict | PreTrainedConfig | None = None
    num_quantizers: int = 32
    codebook_size: int = 1024
    code_rank: int = 0
    frame_scores: bool = False
    codec: str = ""

    def __post_init__(self, **kwargs: Any) -> None:
        """Parse the nested configuration and check all values."""
        if self.text_config is not None:
            self.text_config = nested_config(self.text_config)
        super().__post_init__(**kwargs)
        check_whole(self, {"num_quantizers": 1, "codebook_size": 1, "code_rank": 0})
