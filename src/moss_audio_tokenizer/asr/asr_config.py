"""Sizes of a CAT-ASR model, and the losses that it returns."""

from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedConfig

from ..errors import ConfigError
from ..llm.bidirectional import HEAD_DIM
from ..llm.llm import check_whole, nested_config
from .frame_encoder import LEAST_LAYERS, MOST_ENCODER_LAYERS


class CatAsrConfig(PreTrainedConfig):
    """Sizes of a `CatAsr`.

    Attributes:
        text_config: configuration of the decoder-only language model, with its text tokens; None
            with an encoder.
        num_quantizers: number of codebooks that the model can read.
        codebook_size: number of entries of each codebook.
        code_rank: rank of the code embeddings (`CodeEmbedding`); 0 for full tables.
        frame_scores: add a CTC head on the states of the frames, trained by a second loss
            (`AsrOutput.frame_loss`) and decoded with ``num_beams=0``. An encoder always has one.
        encoder_layers: number of blocks of the bidirectional encoder that takes the place of the
            language model (`FrameEncoder`), 3 or more; 0, as in the paper, for none.
        encoder_width: its channels, a multiple of 64.
        encoder_dropout: its probability of dropout.
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
    encoder_layers: int = 0
    encoder_width: int = 256
    encoder_dropout: float = 0.1
    codec: str = ""

    def __post_init__(self, **kwargs: Any) -> None:
        """Parse the nested configuration and check all values."""
        if self.text_config is not None:
            self.text_config = nested_config(self.text_config)
        super().__post_init__(**kwargs)
        check_whole(self, {"num_quantizers": 1, "codebook_size": 1, "code_rank": 0})
        check_whole(self, {"encoder_layers": 0}, most=MOST_ENCODER_LAYERS)
        check_whole(self, {"encoder_width": 1})
        if self.encoder_layers:
            self._check_encoder()

    def _check_encoder(self) -> None:
        layers, width, dropout = self.encoder_layers, self.encoder_width, self.encoder_dropout
        if layers < LEAST_LAYERS or width % HEAD_DIM:
            raise ConfigError(
                f"encoder_layers is {layers} and encoder_width {width}; expected {LEAST_LAYERS} or "
                f"more, or 0 for none, and a multiple of {HEAD_DIM}"
            )
        if not isinstance(dropout, float | int) or not 0 <= dropout < 1:
            raise ConfigError(f"encoder_dropout is {dropout!r}; expected 0 up to 1")
        if self.text_config is not None or self.frame_scores:
            raise ConfigError(
                "encoder_layers is given beside text_config or frame_scores; expected an encoder "
                "or a language model, not both"
            )


@dataclass
class AsrOutput:
    """Losses of one batch.

    Attributes:
        loss_sum: cross-entropy, summed over the target tokens; with an encoder, CTC loss of the
            texts, summed over rows.
        num_tokens: number of target tokens, end tokens of a language model included.
        num_correct: number of target tokens that the model ranks first; None with an encoder.
        frame_loss: CTC loss of the texts by the frames, summed over rows (Graves et al. 2006);
            None without a CTC head beside a language model.
        phoneme_loss: CTC loss of the phonemes, summed over rows whose words the lexicon has; None
            without such a row.
    """

    loss_sum: Float[Tensor, ""]
    num_tokens: int
    num_correct: Float[Tensor, ""] | None = None
    frame_loss: Float[Tensor, ""] | None = None
    phoneme_loss: Float[Tensor, ""] | None = None
