"""What a step computes from a batch: the codec's forward pass and every loss but the adversarial.

Owns the objective (spectral, commitment and codebook losses, semantic cross-entropy, the warm
start); knows nothing of data, optimizers, processes or files. One module with one forward pass, so
that it can be distributed as it is. Source: the paper's section 3.2.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ...model.codec import Codec
from ...semantic import SemanticHead
from .codec_config import TrainingConfig
from .ema_codebooks import EmaCodebooks
from .losses import MelLoss, PhaseLoss
from .micro_batches import MicroBatch
from .spectral_losses import InstantaneousFrequencyLoss, StftLoss

# Relative to the RMS of hidden states: leaves about as much room for information as the quantizer.
_WARM_START_NOISE = 0.3


class CodecTask(nn.Module):
    """A codec with its losses.

    Args:
        codec: the whole codec.
        semantic: the language model on its codes, if there is one.
        config: the recipe.

    Attributes:
        codebooks: the moving averages of the codebooks, if these are not trained by gradient; set
            once the task is on its device.
    """

    def __init__(self, codec: Codec, semantic: SemanticHead | None, config: TrainingConfig) -> None:
        super().__init__()
        self.codec = codec
        self.semantic = semantic
        self.config = config
        self.mel_loss = MelLoss(codec.config.sampling_rate)
        rate, spectra = codec.config.sampling_rate, config.spectra
        self.phase_loss = PhaseLoss(rate, spectra.phase_hertz)
        self.stft_loss = StftLoss(rate, spectra.stft_windows, spectra.stft_hertz)
        self.frequency_loss = InstantaneousFrequencyLoss(
            rate, spectra.frequency_windows, spectra.frequency_hertz
        )
        self.codebooks: EmaCodebooks | None = None

    def forward(
        self, rows: MicroBatch, num_tokens: float = 1.0
    ) -> tuple[Float[Tensor, "rows channels samples"], dict[str, Tensor]]:
        """The estimate, and every loss that needs no discriminator by name.

        All are means over rows, so that passes and processes with as many rows each can be
        averaged; the semantic one is divided by ``num_tokens``, the mean of the target tokens of
        all passes. Terms without a weight are logged but not optimized.
        """
        with self.autocast(rows.audio.device):
            hidden = self.codec.require_encoder()(rows.audio)
        losses: dict[str, Tensor] = {}
        if rows.active is None:
            decoder_input = self._noisy(hidden.float(), rows.noise_seeds)
        else:
            valid = rows.valid().float() if rows.padded else None
            output = self.codec.quantizer(hidden, rows.active, valid)
            if self.codebooks is not None and torch.is_grad_enabled():
                self.codebooks.note(output, rows.active, valid)
            decoder_input = output.hidden
            losses |= {"commitment": output.commitment_loss, "codebook": output.codebook_loss}
        with self.autocast(rows.audio.device):
            estimate = self.codec.require_decoder()(decoder_input)
            losses |= self._semantic_losses(decoder_input, rows, num_tokens)
        return estimate, losses | self._spectral_losses(estimate, rows)

    def _spectral_losses(self, estimate: Tensor, rows: MicroBatch) -> dict[str, Tensor]:
        """Distances of the estimate from the recordings; those beside mel only with a weight."""
        weights, audio = self.config.losses, rows.audio
        lengths = rows.lengths if rows.padded else None
        losses = {"mel": self.mel_loss(estimate, audio, lengths, rows.mel_windows)}
        if weights.phase:
            known = self._phase_weights(rows)
            losses["phase"] = self.phase_loss(estimate, audio, lengths, known, rows.phase_windows)
        if weights.stft:
            losses["stft"] = self.stft_loss(estimate, audio, lengths)
        if weights.instantaneous_frequency:
            frequency = self.frequency_loss(estimate, audio, lengths)
            losses["instantaneous_frequency"] = frequency
        return losses

    def total(self, losses: dict[str, Tensor]) -> Float[Tensor, ""]:
        """The weighted sum of the losses that have a weight."""
        weights = vars(self.config.losses)
        weighted = [weights[name] * value for name, value in losses.items() if name in weights]
        return torch.stack(weighted).sum()

    def autocast(self, device: torch.device) -> torch.autocast:
        """The precision of the recipe; quantizer and losses are computed in float32."""
        bf16 = self.config.precision == "bf16"
        return torch.autocast(device.type, torch.bfloat16, enabled=bf16)

    def _phase_weights(self, rows: MicroBatch) -> Float[Tensor, "rows"] | None:
        """The weight of the phase loss in each row: the fewer quantizer layers, the less.

        Where the codes do not determine a phase, silence is what minimizes this loss.
        """
        if rows.active is None:
            return None
        return (rows.active / self.codec.config.quantizer.num_quantizers).square()

    def _noisy(self, hidden: Tensor, seeds: list[int]) -> Tensor:
        """Hidden states with noise in proportion to a row's RMS, whatever their scale."""
        noise = torch.stack(
            [torch.randn(hidden.shape[1:], generator=_seeded(seed)) for seed in seeds]
        ).to(hidden.device)
        # Silence has no hidden states at all, and the root no slope at zero.
        rms = (hidden.square().mean((1, 2), keepdim=True) + 1e-12).sqrt()
        return hidden + _WARM_START_NOISE * rms * noise

    def _semantic_losses(
        self, hidden: Tensor, rows: MicroBatch, num_tokens: float
    ) -> dict[str, Tensor]:
        if self.semantic is None:
            return {}
        output = self.semantic(hidden, rows.num_frames, rows.texts, rows.tasks)
        return {
            "semantic": output.loss_sum / num_tokens,
            "token_accuracy": output.num_correct / num_tokens,
        }


def _seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
