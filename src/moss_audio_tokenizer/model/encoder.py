"""The encoder: waveform to hidden states, patch by patch."""

from jaxtyping import Float
from torch import Tensor, nn

from ..config import CodecConfig, PatchStage
from .cache import StackState
from .patchify import Patchify, interleave
from .stack import StageStack
from .transformer import Transformer


class Encoder(StageStack):
    """Raw patches of the waveform through causal Transformer stages, to frames."""

    def __init__(self, config: CodecConfig) -> None:
        stages: list[nn.Module] = []
        for stage, rate in zip(config.encoder, config.encoder_rates, strict=True):
            if isinstance(stage, PatchStage):
                stages.append(Patchify(stage.patch_size))
            else:
                stages.append(Transformer(stage, config.context_steps(stage, rate)))
        super().__init__(stages)

    def forward(
        self, audio: Float[Tensor, "batch channels samples"], state: StackState | None = None
    ) -> Float[Tensor, "batch frames width"]:
        """Hidden states of whole frames of audio; with a state, of a stream's next frames."""
        return self.run(interleave(audio), state)
