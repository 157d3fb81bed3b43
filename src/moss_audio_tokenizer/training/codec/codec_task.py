"""What a step computes from a batch: the codec's forward pass and every loss but the adversarial.

Owns the micro-batches of a step, all that is random in them, and the objective (spectral,
commitment and codebook losses, semantic cross-entropy, the warm start); knows nothing of data,
optimizers, processes or files. Source: the paper's section 3.2.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ...config import CodecConfig
from ...model.codec import Codec
from ...semantic import SemanticHead
from ..data.audio_data import Batch
from .codebooks import EmaCodebooks
from .codec_config import TrainingConfig
from .losses import (
    FREQUENCY_WINDOWS,
    NUM_MEL_WINDOWS,
    NUM_PHASE_WINDOWS,
    InstantaneousFrequencyLoss,
    MelLoss,
    PhaseLoss,
    StftLoss,
)

# Relative to the RMS of hidden states: leaves about as much room for information as the quantizer.
_WARM_START_NOISE = 0.3


@dataclass
class MicroBatch:
    """The rows of one pass as tensors.

    Attributes:
        audio: whole frames, right-padded with zeros.
        lengths: the number of samples of each row that are not padding.
        padded: whether any row has padding.
        num_frames: the number of frames of each row that hold such samples.
        active: the number of quantizer layers in use; None while the quantizer is bypassed.
        noise_seeds: the seed of each row for the noise of the warm start.
        crop_positions: where in each row the discriminators' crop begins, from 0 to 1.
        mel_windows: indices of the windows that the mel loss uses; None for all.
        phase_windows: the same for the phase loss.
        texts: the transcript of each row; empty where there is none.
        tasks: the task of each row with a text.
        share: the weight of this pass in its step.
    """

    audio: Float[Tensor, "rows channels samples"]
    lengths: Int[Tensor, "rows"]
    padded: bool
    num_frames: list[int]
    active: Int[Tensor, "rows"] | None
    noise_seeds: list[int]
    crop_positions: Float[Tensor, "rows"]
    mel_windows: list[int] | None
    phase_windows: list[int] | None
    texts: Sequence[str]
    tasks: Sequence[str]
    share: float

    def valid(self, total: int) -> Bool[Tensor, "rows frames"]:
        """Which of ``total`` frames are not padding."""
        counts = torch.tensor(self.num_frames, device=self.audio.device)
        return torch.arange(total, device=self.audio.device) < counts[:, None]


class MicroBatchPlanner:
    """Draws what is random in a step, from the seed, the step and a row's index in the whole batch.

    So neither a resumed run nor the number of processes changes it.

    Args:
        config: the recipe.
        codec: the configuration of the codec in training.
        device: the device that computes.
        rank: the rank of this process.
        world: the number of processes.
    """

    def __init__(
        self,
        config: TrainingConfig,
        codec: CodecConfig,
        device: torch.device,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self._config, self._codec, self._device = config, codec, device
        self._rank, self._world = rank, world

    def passes(self, batch: Batch, step: int) -> list[MicroBatch]:
        """The passes that this process makes over its share of a step's batch."""
        config, spectra, hop = self._config, self._config.spectra, self._codec.downsample_rate
        mine = len(batch.names)
        random = torch.Generator().manual_seed(config.seed * 1_000_003 + step)
        active = self._active_layers(mine * self._world, random)
        crop_positions = torch.rand(mine * self._world, generator=random)
        mel_windows = _drawn(spectra.mel_windows, NUM_MEL_WINDOWS, random)
        phase_windows = _drawn(spectra.phase_windows, NUM_PHASE_WINDOWS, random)
        made = []
        for index in range(config.accumulate):
            part = batch.part(index, config.accumulate)
            count, lengths = len(part.names), torch.from_numpy(part.lengths)
            first = self._rank * mine + index * count
            own = slice(first, first + count)
            micro_batch = MicroBatch(
                audio=torch.from_numpy(part.audio).to(self._device),
                lengths=lengths.to(self._device),
                padded=bool((lengths < part.audio.shape[-1]).any()),
                num_frames=[-(-int(length) // hop) for length in lengths],
                active=active[own].to(self._device) if step >= config.warm_start.steps else None,
                noise_seeds=[_mixed(config.seed, step, first + row) for row in range(count)],
                crop_positions=crop_positions[own].to(self._device),
                mel_windows=mel_windows,
                phase_windows=phase_windows,
                texts=part.texts,
                tasks=part.tasks,
                share=1 / config.accumulate,
            )
            made.append(micro_batch)
        return made

    def _active_layers(self, rows: int, random: torch.Generator) -> Int[Tensor, "rows"]:
        """Quantizer dropout: a share of the rows keeps a random prefix of 1 .. N layers."""
        layers = self._codec.quantizer.num_quantizers
        prefix = torch.randint(1, layers + 1, (rows,), generator=random)
        dropped = torch.rand(rows, generator=random) < self._config.quantizer_dropout
        return torch.where(dropped, prefix, layers)


def _drawn(wanted: int, there: int, random: torch.Generator) -> list[int] | None:
    """Indices of ``wanted`` of ``there`` windows; None where all are wanted."""
    if not 0 < wanted < there:
        return None
    return torch.randperm(there, generator=random)[:wanted].tolist()


def _mixed(seed: int, step: int, row: int) -> int:
    """Mixes (seed, step, row) into one 63-bit seed."""
    return ((seed * 1_000_003 + step) * 65_537 + row) % (1 << 63)


class CodecTask(nn.Module):
    """A codec with its losses: one module with one forward pass, so that it can be distributed.

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
        rate, spectra = codec.config.sampling_rate, config.spectra
        self.mel_loss = MelLoss(rate)
        self.phase_loss = PhaseLoss(rate, spectra.phase_hertz)
        self.stft_loss = StftLoss(rate, spectra.stft_windows, spectra.stft_hertz)
        self.frequency_loss = InstantaneousFrequencyLoss(
            rate, FREQUENCY_WINDOWS, spectra.frequency_hertz
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
            valid = rows.valid(hidden.shape[1]).float() if rows.padded else None
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
            losses["phase"] = self.phase_loss(estimate, audio, lengths, rows.phase_windows, known)
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
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        noise = torch.stack([torch.randn(hidden.shape[1:], generator=g) for g in generators])
        # Silence has no hidden states at all, and the root no slope at zero.
        rms = (hidden.square().mean((1, 2), keepdim=True) + 1e-12).sqrt()
        return hidden + _WARM_START_NOISE * rms * noise.to(hidden.device)

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
