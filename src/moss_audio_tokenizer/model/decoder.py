"""The decoder: quantized hidden states to waveform."""

from jaxtyping import Float
from torch import Tensor, nn

from ..config import CodecConfig, PatchStage
from .cache import StackState
from .patchify import Unpatchify, deinterleave
from .stack import StageStack
from .transformer import Transformer


class Decoder(StageStack):
    """Frames through causal Transformer stages, unfolded to raw patches of the waveform."""

    def __init__(self, config: CodecConfig) -> None:
        stages: list[nn.Module] = []
        for stage, rate in zip(config.decoder, config.decoder_rates, strict=True):
            if isinstance(stage, PatchStage):
                stages.append(Unpatchify(stage.patch_size))
            else:
                stages.append(Transformer(stage, config.context_steps(stage, rate)))
        super().__init__(stages)
        self.num_channels = config.number_channels

    def forward(
        self, hidden: Float[Tensor, "batch frames width"], state: StackState | None = None
    ) -> Float[Tensor, "batch channels samples"]:
        """Audio of frames; with a state, of a stream's next frames."""
        return deinterleave(self.run(hidden, state), self.num_channels)
