"""The encoder: waveform to hidden states, patch by patch."""

from jaxtyping import Float
from torch import Tensor

from ..config import CodecConfig
from .patchify import Patchify, interleave
from .stack import StageStack


class Encoder(StageStack):
    """Raw patches of the waveform through causal Transformer stages, to frames."""

    def __init__(self, config: CodecConfig) -> None:
        super().__init__(config, config.encoder, config.encoder_rates, Patchify)

    def forward(
        self, audio: Float[Tensor, "batch channels samples"]
    ) -> Float[Tensor, "batch frames width"]:
        """Hidden states of whole frames of audio."""
        return self.run(interleave(audio))
