"""Adversarial training: the losses of codec and discriminators, and the discriminators' step.

Least squares or hinge, and feature matching: sums over discriminators, as the paper (section 3.2)
writes them, means over each map.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ..distributed import Processes
from .codec_config import TrainingConfig
from .codec_task import MicroBatch
from .discriminators import Discriminators

Audio = Float[Tensor, "rows channels samples"]

# Of the discriminators' AdamW (DAC's), and of the norm of their gradient.
_BETAS = (0.8, 0.99)
_CLIP_NORM = 10.0


def discriminator_loss(
    real: Sequence[Sequence[Tensor]], fake: Sequence[Sequence[Tensor]], kind: str = "lsgan"
) -> Float[Tensor, ""]:
    """The discriminators' loss: real logits towards 1, fake ones towards 0 (hinge: -1).

    Args:
        real: feature maps of recordings, the logits last.
        fake: feature maps of detached reconstructions.
        kind: "lsgan" or "hinge".
    """
    pairs = [(r[-1], f[-1]) for r, f in zip(real, fake, strict=True)]
    if kind == "hinge":
        return _sum([F.relu(1 - r).mean() + F.relu(1 + f).mean() for r, f in pairs])
    return _sum([(1 - r).square().mean() + f.square().mean() for r, f in pairs])


def generator_loss(fake: Sequence[Sequence[Tensor]], kind: str = "lsgan") -> Float[Tensor, ""]:
    """The generator's loss: the logits of its reconstructions towards those of recordings."""
    if kind == "hinge":
        return _sum([-maps[-1].mean() for maps in fake])
    return _sum([(1 - maps[-1]).square().mean() for maps in fake])


def feature_loss(
    real: Sequence[Sequence[Tensor]], fake: Sequence[Sequence[Tensor]]
) -> Float[Tensor, ""]:
    """Feature matching: distance of all feature maps but the logits; the real ones are targets."""
    return _sum(
        [
            F.l1_loss(f, r.detach())
            for reals, fakes in zip(real, fake, strict=True)
            for r, f in zip(reals[:-1], fakes[:-1], strict=True)
        ]
    )


def _sum(losses: list[Tensor]) -> Float[Tensor, ""]:
    return torch.stack(losses).sum()


class Adversary:
    """Discriminators with their optimizer.

    Every process holds all discriminators, however the codec is spread.

    Args:
        config: the recipe.
        sampling_rate: the sampling rate of the audio.
        processes: the processes of the run.
        autocast: makes the context of the recipe's precision on a device.
    """

    def __init__(
        self,
        config: TrainingConfig,
        sampling_rate: int,
        processes: Processes,
        autocast: Callable[[torch.device], torch.autocast],
    ) -> None:
        settings = config.adversarial
        self._settings = settings
        self._samples = round(settings.crop_seconds * sampling_rate)
        self._processes = processes
        self._autocast = autocast
        with torch.random.fork_rng():
            torch.manual_seed(config.seed)
            self.discriminators = Discriminators(settings.discriminators).to(processes.device)
        self.optimizer = torch.optim.AdamW(
            self.discriminators.parameters(),
            lr=settings.learning_rate,
            betas=_BETAS,
            weight_decay=0.0,
            foreach=True,
        )

    def trains_discriminators(self, step: int) -> bool:
        """Whether the discriminators are trained in this step."""
        start = self._settings.start
        return 0 < start <= step + self._settings.warmup_steps

    def trains_codec(self, step: int) -> bool:
        """Whether the codec is trained against the discriminators in this step."""
        return 0 < self._settings.start <= step

    def train_step(self, passes: list[tuple[MicroBatch, Audio]]) -> dict[str, Tensor]:
        """One step of the discriminators over all passes.

        Their weights stay as they are where the gradient is not finite.

        Returns:
            Their loss and their gradient's norm.
        """
        self.discriminators.requires_grad_(requires_grad=True)
        self.optimizer.zero_grad(set_to_none=True)
        losses = [self._backward(rows, estimate.detach()) for rows, estimate in passes]
        self._processes.average_gradients(self.discriminators)
        norm = torch.nn.utils.clip_grad_norm_(self.discriminators.parameters(), _CLIP_NORM)
        if torch.isfinite(norm):
            self.optimizer.step()
        return {
            "discriminator": torch.stack(losses).mean(),
            "discriminator_gradient_norm": norm.detach(),
        }

    def _backward(self, rows: MicroBatch, estimate: Audio) -> Tensor:
        """Add the gradients of one pass, and return its loss."""
        audio, estimate = self._crop(rows.audio, rows), self._crop(estimate, rows)
        with self._autocast(audio.device):
            real, fake = self.discriminators(audio), self.discriminators(estimate)
        loss = discriminator_loss(_logits(real), _logits(fake), self._settings.kind)
        (loss * rows.share).backward()
        return loss.detach()

    def losses(self, rows: MicroBatch, estimate: Audio) -> dict[str, Tensor]:
        """The generator's losses by name; the discriminators get no gradient."""
        audio, estimate = self._crop(rows.audio, rows), self._crop(estimate, rows)
        self.discriminators.requires_grad_(requires_grad=False)
        with self._autocast(audio.device):
            with torch.no_grad():
                real = _in_float32(self.discriminators(audio))
            fake = _in_float32(self.discriminators(estimate))
        return {
            "adversarial": generator_loss(fake, self._settings.kind),
            "features": feature_loss(real, fake),
        }

    def _crop(self, audio: Audio, rows: MicroBatch) -> Audio:
        """A random crop of each row, the same of recording and estimate, before its padding."""
        if audio.shape[-1] <= self._samples:
            return audio
        latest = (rows.lengths - self._samples).clamp_min(0)
        starts = (rows.crop_positions * (latest + 1)).long().clamp_max(latest)
        positions = starts[:, None] + torch.arange(self._samples, device=audio.device)
        return audio.gather(-1, positions[:, None].expand(-1, audio.shape[1], -1))


def _logits(maps: list[list[Tensor]]) -> list[list[Tensor]]:
    """The last map of each alone: copies of all maps would fill a GPU."""
    return [[of_one[-1].float()] for of_one in maps]


def _in_float32(maps: list[list[Tensor]]) -> list[list[Tensor]]:
    return [[item.float() for item in of_one] for of_one in maps]
