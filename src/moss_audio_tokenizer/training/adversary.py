"""The adversary of a run: discriminators with their optimiser, and what they tell the decoder.

Owns one step of theirs and the stretch of audio that they judge; the losses are
`adversarial.py`'s, the architecture `discriminators.py`'s.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager

import torch
from jaxtyping import Float
from torch import Tensor

from .adversarial import discriminator_loss, feature_loss, generator_loss
from .config import TrainingConfig
from .discriminators import Discriminators


class Adversary:
    """Judges reconstructions beside recordings.

    Args:
        config: the recipe.
        sampling_rate: of the audio.
        autocast: the precision of the recipe.
    """

    def __init__(
        self,
        config: TrainingConfig,
        sampling_rate: int,
        autocast: Callable[[], AbstractContextManager[object]],
    ) -> None:
        settings = config.adversarial
        self._settings = settings
        self._seed = config.seed
        self._samples = round(settings.crop_seconds * sampling_rate)
        self._autocast = autocast
        with torch.random.fork_rng():
            torch.manual_seed(config.seed)
            self.discriminators = Discriminators(settings.discriminators)
        self.optimizer = torch.optim.AdamW(
            self.discriminators.parameters(),
            lr=settings.learning_rate,
            betas=settings.betas,
            weight_decay=0.0,
            foreach=True,
        )

    def active(self, step: int) -> bool:
        """Whether it takes part in this step."""
        return 0 < self._settings.start <= step

    def train_step(
        self,
        audio: Float[Tensor, "batch channels samples"],
        estimate: Float[Tensor, "batch channels samples"],
        step: int,
    ) -> dict[str, Tensor]:
        """Teach the discriminators to tell both apart: their loss and their gradient's norm.

        They are left as they were where either is not finite.
        """
        audio, estimate = self._stretch(audio, step), self._stretch(estimate.detach(), step)
        self.discriminators.requires_grad_(requires_grad=True)
        with self._autocast():
            real, fake = self.discriminators(audio), self.discriminators(estimate)
        loss = discriminator_loss(_in_float32(real), _in_float32(fake), self._settings.kind)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(
            self.discriminators.parameters(), self._settings.clip_norm
        )
        if torch.isfinite(norm):
            self.optimizer.step()
        return {"discriminator": loss.detach(), "discriminator_gradient_norm": norm.detach()}

    def losses(
        self,
        audio: Float[Tensor, "batch channels samples"],
        estimate: Float[Tensor, "batch channels samples"],
        step: int,
    ) -> dict[str, Tensor]:
        """What the codec is told, by name; the discriminators get no gradient."""
        audio, estimate = self._stretch(audio, step), self._stretch(estimate, step)
        self.discriminators.requires_grad_(requires_grad=False)
        with self._autocast():
            with torch.no_grad():
                real = self.discriminators(audio)
            fake = self.discriminators(estimate)
        real, fake = _in_float32(real), _in_float32(fake)
        return {
            "adversarial": generator_loss(fake, self._settings.kind),
            "features": feature_loss(real, fake),
        }

    def _stretch(self, audio: Tensor, step: int) -> Tensor:
        """The same place of both signals, drawn from the seed and the step."""
        latest = audio.shape[-1] - self._samples
        if latest <= 0:
            return audio
        random = torch.Generator().manual_seed(self._seed * 1_000_003 + step)
        start = int(torch.randint(latest + 1, (1,), generator=random))
        return audio[..., start : start + self._samples]


def _in_float32(maps: list[list[Tensor]]) -> list[list[Tensor]]:
    return [[item.float() for item in of_one] for of_one in maps]
