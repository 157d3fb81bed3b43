"""The decoder: quantized hidden states to waveform."""

from jaxtyping import Float
from torch import Tensor

from ..config import CodecConfig
from .patchify import Unpatchify, deinterleave
from .stack import StageStack


class Decoder(StageStack):
    """Frames through causal Transformer stages, unfolded to raw patches of the waveform."""

    def __init__(self, config: CodecConfig) -> None:
        super().__init__(config, config.decoder, config.decoder_rates, Unpatchify)
        self.num_channels = config.number_channels

    def forward(
        self, hidden: Float[Tensor, "batch frames width"]
    ) -> Float[Tensor, "batch channels samples"]:
        """Audio of frames."""
        return deinterleave(self.run(hidden), self.num_channels)
