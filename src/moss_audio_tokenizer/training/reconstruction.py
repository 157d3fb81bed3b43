"""The reconstruction stage: one step from a batch of audio to named losses.

Owns the objective (mel, commitment and codebook losses, quantizer dropout, warm start);
knows nothing of data, optimisers or files. Source: training.md sections 1 and 2.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..model.codec import Codec
from .config import TrainingConfig
from .losses import MelLoss


class ReconstructionTask:
    """Losses of a codec on batches of audio."""

    def __init__(self, codec: Codec, config: TrainingConfig) -> None:
        self.codec = codec
        self.config = config
        self.mel_loss = MelLoss(codec.config.sampling_rate)

    def losses(
        self, audio: Float[Tensor, "batch channels samples"], step: int
    ) -> dict[str, Tensor]:
        """The losses of `reconstruct` by name, and their weighted ``total``."""
        losses = self.reconstruct(audio, step)[1]
        return losses | {"total": self.total(losses)}

    def total(self, losses: dict[str, Tensor]) -> Float[Tensor, ""]:
        """The weighted sum of named losses."""
        weights = self.config.losses
        return sum(
            (getattr(weights, name) * value for name, value in losses.items()),
            start=torch.zeros(()),
        )

    def reconstruct(
        self, audio: Float[Tensor, "batch channels samples"], step: int
    ) -> tuple[Float[Tensor, "batch channels samples"], dict[str, Tensor]]:
        """The estimate, and every loss that needs no discriminator by name.

        All randomness comes from the seed and the step, so that a resumed run repeats it.
        """
        random = torch.Generator().manual_seed(self.config.seed * 1_000_003 + step)
        with self.autocast():
            hidden = self.codec.require_encoder()(audio)
        losses: dict[str, Tensor] = {}
        if step < self.config.warm_start.steps:
            decoder_input = self._noisy(hidden.float(), random)
        else:
            decoder_input, losses = self._quantized(hidden, random)
        with self.autocast():
            estimate = self.codec.require_decoder()(decoder_input)
        losses["mel"] = self.mel_loss(estimate, audio)
        return estimate, losses

    def autocast(self) -> torch.autocast:
        """The precision of the recipe; losses leave it."""
        bf16 = self.config.precision == "bf16"
        return torch.autocast("cpu", torch.bfloat16, enabled=bf16)

    def _noisy(self, hidden: Tensor, random: torch.Generator) -> Tensor:
        """Hidden states with noise in proportion to their RMS, which no scaling can outrun."""
        noise = torch.randn(hidden.shape, generator=random)
        return hidden + self.config.warm_start.noise * hidden.square().mean().sqrt() * noise

    def _quantized(
        self, hidden: Tensor, random: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor]]:
        active = self._active_layers(len(hidden), random)
        output = self.codec.quantizer(hidden, active)
        return output.hidden, {
            "commitment": output.commitment_loss,
            "codebook": output.codebook_loss,
        }

    def _active_layers(self, rows: int, random: torch.Generator) -> Int[Tensor, "batch"]:
        """Quantizer dropout: a share of the rows keeps a random prefix of 1 .. N layers."""
        layers = self.codec.quantizer.config.num_quantizers
        prefix = torch.randint(1, layers + 1, (rows,), generator=random)
        dropped = torch.rand(rows, generator=random) < self.config.quantizer_dropout
        return torch.where(dropped, prefix, layers)
