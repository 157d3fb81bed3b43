"""What CAT-TTS is built like, as transformers stores it, and what it is trained on."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import PreTrainedConfig

from ..errors import ConfigError
from ..llm.llm import check_whole, nested_config
from ..speech.sampling import CODE_CHOICES
from .code_loss import CodeLoss
from .text_encoder import SpokenRow

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
    "text_encoder_layers": 0,
    "code_vector_dim": 0,
}


class CatTtsConfig(PreTrainedConfig):
    """Sizes of a `CatTts`; the defaults of the depth Transformer are the paper's.

    Attributes:
        text_config: configuration of the temporal Transformer, a decoder-only model.
        num_quantizers: number of codebooks that the model predicts.
        codebook_size: number of entries of each codebook.
        code_rank: rank of the code embeddings (`CodeEmbedding`); 0 for full tables.
        depth_width: channels of the depth Transformer.
        depth_layers: number of its blocks.
        depth_heads: number of its attention heads.
        depth_key_value_heads: number of its key and value heads; divides ``depth_heads``.
        depth_head_dim: channels of a head.
        depth_feedforward: channels inside its gated feed-forward layers.
        adapter_width: channels inside the gated layers before the depth Transformer and before
            each of its outputs; 0 for plain projections.
        text_encoder_layers: blocks of a text encoder, which conditions both Transformers on the
            phonemes of each frame (`TextEncoder`), for small data sets; 0, as in the paper, for
            text on the time axis.
        guidance: default classifier-free guidance scale.
        code_temperature: default temperature of codes.
        code_choice: default way to choose codes, "sample" or "mean" (`SpeechSampling`).
        code_vector_dim: size of the vectors of codes that the model holds for ``code_choice``
            "mean"; 0 for none.
        hidden_dropout: probability of dropout in training, of the inputs of the temporal
            Transformer, behind its attention and feed-forward layers, and of the states and
            conditions that enter the depth Transformer; 0, as in the paper, for none.
        codec: identity of the codec whose codes the model predicts; empty if unknown.

    Raises:
        ConfigError: a value is out of range, or the language model is unknown.
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
    text_encoder_layers: int = 0
    guidance: float = 1.0
    code_temperature: float = 1.0
    code_choice: str = "sample"
    code_vector_dim: int = 0
    hidden_dropout: float = 0.0
    codec: str = ""

    def __post_init__(self, **kwargs: Any) -> None:
        """Parse the nested configuration and check all values."""
        if self.text_config is not None:
            self.text_config = nested_config(self.text_config)
        super().__post_init__(**kwargs)
        check_whole(self, _LEAST)
        for name in ("guidance", "code_temperature"):
            value = getattr(self, name)
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not number or not 0.001 <= value <= 100:
                raise ConfigError(f"{name} is {value!r}; expected a number from 0.001 to 100")
        dropout = self.hidden_dropout
        if type(dropout) not in (int, float) or not 0 <= dropout < 1:
            raise ConfigError(f"hidden_dropout is {dropout!r}; expected 0 up to 1")
        if self.code_choice not in CODE_CHOICES or (
            self.code_choice == "mean" and not self.code_vector_dim
        ):
            raise ConfigError(
                f"code_choice is {self.code_choice!r}; expected sample, or mean in a model with "
                "code_vector_dim"
            )
        if self.guidance != 1 and not self.text_encoder_layers:
            raise ConfigError(
                f"guidance is {self.guidance:g}; expected 1 where text_encoder_layers is 0: such "
                "a model has no condition to be guided by"
            )
        if self.depth_heads % self.depth_key_value_heads:
            raise ConfigError(
                f"depth_heads is {self.depth_heads}; expected a multiple of "
                f"depth_key_value_heads, which is {self.depth_key_value_heads}"
            )


@dataclass(frozen=True)
class SequenceDropout:
    """Progressive Sequence Dropout: how many codebooks each row of a batch keeps.

    z ~ Bernoulli(probability), K ~ U{1 .. N - 1}: a row keeps the first K codebooks if z is 1,
    else all N (the paper's section 3.3).

    Attributes:
        probability: probability that a row drops codebooks.
        include_full: draw K from 1 .. N instead. With K up to N - 1, as the paper writes it, a
            probability of 1 would never train the last codebook.
        skew: draw K as 1 + floor(M u^skew) instead, u ~ U(0, 1) and M the largest: above 1, small
            numbers are more frequent, so that the first codebooks are trained by more rows.
    """

    probability: float = 1.0
    include_full: bool = True
    skew: float = 1.0

    def draw(self, rows: int, num_quantizers: int, random: torch.Generator) -> Int[Tensor, "rows"]:
        """Number of codebooks that each row keeps."""
        most = num_quantizers if self.include_full else max(1, num_quantizers - 1)
        if self.skew == 1:
            drawn = torch.randint(1, most + 1, (rows,), generator=random)
        else:
            share = torch.rand(rows, generator=random) ** self.skew
            drawn = 1 + (most * share).long().clamp_max(most - 1)
        dropped = torch.rand(rows, generator=random) < self.probability
        return torch.where(dropped, drawn, num_quantizers)


@dataclass(frozen=True)
class TtsBatch:
    """What `CatTts` is trained on in one step.

    Attributes:
        texts: transcript of each row.
        audio_codes: codes, right-padded. Those of codebooks behind the model's count only in soft
            targets, which need them.
        num_frames: number of frames of each row without padding.
        num_quantizers: number of codebooks kept of each row (`SequenceDropout`); None for all.
        scored: frames whose codes count in the loss; None for all that are not padding.
        spoken: what is said in each row, and when; None without a text encoder.
        visible: frames whose codes are an input of later frames; None for all.
        code_loss: how the codes count.
        num_drawn: number of codebooks to draw codes from (`tts.drawn_codes`); 0 for none. Needs
            ``spoken``.
        draw_seed: seed of these draws.
    """

    texts: Sequence[str]
    audio_codes: Int[Tensor, "num_quantizers batch frames"]
    num_frames: Sequence[int]
    num_quantizers: Int[Tensor, "batch"] | None = None
    scored: Bool[Tensor, "batch frames"] | None = None
    spoken: Sequence[SpokenRow] | None = None
    visible: Bool[Tensor, "batch frames"] | None = None
    code_loss: CodeLoss = field(default_factory=CodeLoss)
    num_drawn: int = 0
    draw_seed: int = 0


@dataclass
class TtsOutput:
    """Losses of one batch.

    Attributes:
        codes_loss_sum: cross-entropy, summed over the codes that count, with the weights of their
            codebooks.
        num_codes: number of these codes.
        end_loss_sum: cross-entropy of continue and end, summed over frames and ends.
        num_ends: number of these decisions.
        num_correct: number of codes that the model ranks first, with these weights.
        duration_loss_sum: cross-entropy of the durations of phonemes, summed over these; None
            without a text encoder.
        drawn: drawn codes (`tts.drawn_codes`) of the frames that say the texts, row after row;
            None where none are drawn.
    """

    codes_loss_sum: Float[Tensor, ""]
    num_codes: int
    end_loss_sum: Float[Tensor, ""]
    num_ends: int
    num_correct: Float[Tensor, ""]
    duration_loss_sum: Float[Tensor, ""] | None = None
    drawn: Float[Tensor, "num_drawn frames codebook_size"] | None = None
