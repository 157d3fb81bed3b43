"""How a code is drawn from its scores, and all the chance in it.

Owns the settings of generation; the operations on scores are transformers'. Chance is drawn row
by row from a seed of the row's own, so that a row's codes do not depend on the others beside it.
"""

from dataclasses import dataclass
from numbers import Real
from typing import cast

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import (
    LogitsProcessorList,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from ..errors import InputError


@dataclass(frozen=True)
class SpeechSampling:
    """How speech is generated; the defaults are those published for the local 1.7 B model.

    Attributes:
        do_sample: False takes the first code of each layer, and then nothing below counts but
            the penalty, guidance and the limits.
        temperature: of codes.
        top_k: codes that stay in question, 0 for all.
        top_p: share of the probability that stays in question.
        repetition_penalty: of codes that the layer has had in this speech; 1 for none.
        end_temperature: of the decision to go on or to end, and of how long a token lasts; 0 takes
            what is likeliest.
        guidance: how much clearer codes follow the place in the text than they would by
            themselves, in a model that is told its place and was trained with ``place_dropout``:
            scores are moved away from those of a model that is told nothing, so many times as
            far as what is told moves them (Ho and Salimans 2022). 1 leaves them; others
            compute twice as many rows. 0 for the model's own.
        max_frames: generated at most.
        num_quantizers: layers that are spoken; 0 for all that the model has.
        seed: of the first row; the others' follow.

    Raises:
        InputError: a value that cannot be.
    """

    do_sample: bool = True
    temperature: float = 1.0
    top_k: int = 50
    top_p: float = 0.95
    repetition_penalty: float = 1.1
    end_temperature: float = 1.0
    guidance: float = 0.0
    max_frames: int = 250
    num_quantizers: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("top_k", "max_frames", "num_quantizers", "seed"):
            if type(getattr(self, name)) is not int:
                raise InputError(f"{name} is {getattr(self, name)!r}; expected a whole number")
        for name in ("temperature", "top_p", "repetition_penalty", "end_temperature", "guidance"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, Real):
                raise InputError(f"{name} is {value!r}; expected a number")
        for name, usable, expected in (
            ("temperature", 0 < self.temperature < 100, "above 0"),
            ("top_k", self.top_k >= 0, "0 or more"),
            ("top_p", 0 < self.top_p <= 1, "above 0, up to 1"),
            ("repetition_penalty", 0.1 <= self.repetition_penalty <= 10, "0.1 to 10"),
            ("end_temperature", 0 <= self.end_temperature < 100, "0 or more"),
            ("guidance", 0 <= self.guidance <= 100, "0 for the model's own, up to 100"),
            ("max_frames", self.max_frames >= 1, "1 or more"),
            ("num_quantizers", self.num_quantizers >= 0, "0 for all, or a number of layers"),
            ("seed", 0 <= self.seed < 1 << 62, "0 to 2**62"),
        ):
            if not usable:
                raise InputError(f"{name} is {getattr(self, name)}; expected {expected}")


class CodeSampler:
    """Draws codes of several rows.

    Args:
        settings: how.
        rows: how many.
        device: of the scores.
    """

    def __init__(self, settings: SpeechSampling, rows: int, device: torch.device) -> None:
        self._settings = settings
        self._device = device
        self._chances = [
            torch.Generator().manual_seed((settings.seed + row) % (1 << 63)) for row in range(rows)
        ]
        self._penalty = RepetitionPenaltyLogitsProcessor(float(settings.repetition_penalty))
        self._warpers = _warpers(settings)

    def draws(self, count: int) -> Float[Tensor, "rows count"]:
        """Numbers in [0, 1) for a frame, each row's from its own seed."""
        rows = [torch.rand(count, generator=chance) for chance in self._chances]
        return torch.stack(rows).to(self._device)

    def guided(
        self, scores: Float[Tensor, "_ classes"], rows: int
    ) -> Float[Tensor, "rows classes"]:
        """Classifier-free guidance: unconditioned + scale * (conditioned - unconditioned)."""
        if len(scores) == rows:
            return scores
        conditioned, unconditioned = scores.split(rows)
        return unconditioned + self._settings.guidance * (conditioned - unconditioned)

    def code(
        self,
        scores: Float[Tensor, "rows classes"],
        history: Int[Tensor, "rows frames"],
        draw: Float[Tensor, "rows"],
    ) -> Int[Tensor, "rows"]:
        """A code of one layer.

        Args:
            scores: of it.
            history: what the layer has had.
            draw: of `draws`.
        """
        if history.shape[1] and self._settings.repetition_penalty != 1:
            scores = self._penalty(history, scores)
        if not self._settings.do_sample:
            return scores.argmax(-1)
        # The warpers look at scores alone.
        return _drawn(self._warpers(cast(torch.LongTensor, history), scores), draw)

    def choice(
        self, scores: Float[Tensor, "rows n"], draw: Float[Tensor, "rows"]
    ) -> Int[Tensor, "rows"]:
        """Whether speech ends or goes on; how long a token lasts."""
        warmth = self._settings.end_temperature
        if not self._settings.do_sample or not warmth:
            return scores.argmax(-1)
        return _drawn(scores / warmth, draw)


def _warpers(settings: SpeechSampling) -> LogitsProcessorList:
    warpers: list = []
    if settings.temperature != 1:
        warpers.append(TemperatureLogitsWarper(float(settings.temperature)))
    if settings.top_k:
        warpers.append(TopKLogitsWarper(settings.top_k))
    if settings.top_p < 1:
        warpers.append(TopPLogitsWarper(settings.top_p))
    return LogitsProcessorList(warpers)


def _drawn(scores: Tensor, draw: Tensor) -> Int[Tensor, "rows"]:
    """Where the cumulative probability passes the draw."""
    total = scores.double().softmax(-1).cumsum(-1)
    passed: Tensor = (total > draw.double()[:, None] * total[:, -1:]).int().argmax(-1)
    return passed


def checked_depth(asked: int, most: int) -> int:
    """Layers to speak.

    Raises:
        InputError: more than the model has.
    """
    if asked > most:
        raise InputError(f"num_quantizers is {asked}; expected 1 to {most}, the model's layers")
    return asked or most
