"""Sampling of codes, in NumPy.

Owns the settings of generation and all of its random numbers. Each row draws from a seed of its
own, so that its codes do not depend on the other rows of a batch.
"""

from dataclasses import dataclass
from numbers import Real

import numpy as np
from jaxtyping import Float, Float32, Int, Int64

from ..errors import InputError

# Below this, scores overflow in float32; top_k=1 takes the most probable code.
_MIN_TEMPERATURE = 1e-3


@dataclass(frozen=True)
class SpeechSampling:
    """Settings of generation; the defaults are those published for the local 1.7 B model.

    Attributes:
        do_sample: False takes the most probable code; only the penalty, guidance and the limits
            then count.
        temperature: temperature of codes.
        top_k: keep the k most probable codes; 0 disables.
        top_p: keep the most probable codes up to this total probability.
        repetition_penalty: penalty of codes that the codebook has had in this speech; 1 disables.
        end_temperature: temperature of the decision to end and of token durations; 0 takes the
            most probable.
        guidance: classifier-free guidance scale of the alignment condition (Ho and Salimans
            2022), for models trained with ``place_dropout``; other values than 1 double the rows
            of a batch. 0 takes the model's own.
        max_frames: longest speech in frames.
        num_quantizers: number of codebooks to predict; 0 for all.
        seed: seed of the first row; following rows use the following seeds.

    Raises:
        InputError: a value is out of range.
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
            ("temperature", _MIN_TEMPERATURE <= self.temperature < 100, "0.001 to 100"),
            ("top_k", self.top_k >= 0, "0 or more"),
            ("top_p", 0 < self.top_p <= 1, "above 0, up to 1"),
            ("repetition_penalty", 0.1 <= self.repetition_penalty <= 10, "0.1 to 10"),
            (
                "end_temperature",
                self.end_temperature == 0 or _MIN_TEMPERATURE <= self.end_temperature < 100,
                "0, or 0.001 to 100",
            ),
            ("guidance", 0 <= self.guidance <= 100, "0 for the model's own, up to 100"),
            ("max_frames", self.max_frames >= 1, "1 or more"),
            ("num_quantizers", self.num_quantizers >= 0, "0 for all, or a number of codebooks"),
            ("seed", 0 <= self.seed < 1 << 62, "0 to 2**62"),
        ):
            if not usable:
                raise InputError(f"{name} is {getattr(self, name)}; expected {expected}")


class CodeSampler:
    """Draws codes of several rows.

    Args:
        settings: how to draw.
        rows: number of rows.
    """

    def __init__(self, settings: SpeechSampling, rows: int) -> None:
        self._settings = settings
        # The same numbers as torch.rand with a CPU generator of the same seed.
        self._generators = [
            np.random.RandomState((settings.seed + row) & 0xFFFFFFFF) for row in range(rows)
        ]

    def draws(self, count: int) -> Float32[np.ndarray, "rows count"]:
        """Numbers in [0, 1) for a frame, each row's from its own seed."""
        bits = [
            generator.randint(0, 1 << 32, count, dtype=np.uint32) for generator in self._generators
        ]
        return (np.stack(bits) & 0xFFFFFF).astype(np.float32) * np.float32(2**-24)

    def guided(
        self, scores: Float[np.ndarray, "_ classes"], rows: int
    ) -> Float[np.ndarray, "rows classes"]:
        """Classifier-free guidance: unconditioned + scale * (conditioned - unconditioned)."""
        if len(scores) == rows:
            return scores
        conditioned, unconditioned = scores[:rows], scores[rows:]
        scale = np.float32(self._settings.guidance)
        guided: np.ndarray = unconditioned + scale * (conditioned - unconditioned)
        return guided

    def code(
        self,
        scores: Float[np.ndarray, "rows classes"],
        history: Int[np.ndarray, "rows frames"],
        draw: Float[np.ndarray, "rows"],
    ) -> Int64[np.ndarray, "rows"]:
        """Draw a code of one codebook.

        Args:
            scores: its logits.
            history: its codes so far.
            draw: one number of `draws` for each row.
        """
        settings = self._settings
        if history.shape[1] and settings.repetition_penalty != 1:
            scores = _penalized(scores, history, settings.repetition_penalty)
        if not settings.do_sample:
            return scores.argmax(-1)
        if settings.temperature != 1:
            scores = scores / np.float32(settings.temperature)
        if settings.top_k:
            scores = _top_k(scores, settings.top_k)
        if settings.top_p < 1:
            scores = _top_p(scores, settings.top_p)
        return _drawn(scores, draw)

    def choice(
        self, scores: Float[np.ndarray, "rows n"], draw: Float[np.ndarray, "rows"]
    ) -> Int64[np.ndarray, "rows"]:
        """Decide whether speech continues, or how long a token lasts."""
        temperature = self._settings.end_temperature
        if not self._settings.do_sample or not temperature:
            return scores.argmax(-1)
        return _drawn(scores / np.float32(temperature), draw)


def _penalized(scores: np.ndarray, history: np.ndarray, penalty: float) -> np.ndarray:
    """Divide positive logits of earlier codes by the penalty, and multiply negative ones."""
    found = np.take_along_axis(scores, history, 1)
    changed = np.where(found < 0, found * np.float32(penalty), found / np.float32(penalty))
    scores = scores.copy()
    np.put_along_axis(scores, history, changed, 1)
    return scores


def _top_k(scores: np.ndarray, count: int) -> np.ndarray:
    count = min(count, scores.shape[1])
    lowest = np.partition(scores, -count, -1)[:, -count, None]
    return np.where(scores < lowest, -np.inf, scores)


def _top_p(scores: np.ndarray, share: float) -> np.ndarray:
    """Remove the least probable codes, whose probabilities add up to at most 1 - share."""
    order = np.argsort(scores, -1, kind="stable")
    total = _softmax(np.take_along_axis(scores, order, 1)).cumsum(-1)
    removed = total <= 1 - share
    removed[:, -1] = False
    scores = scores.copy()
    np.put_along_axis(
        scores, order, np.where(removed, -np.inf, np.take_along_axis(scores, order, 1)), 1
    )
    return scores


def _softmax(scores: np.ndarray) -> np.ndarray:
    raised = np.exp(scores.astype(np.float64) - scores.max(-1, keepdims=True))
    shares: np.ndarray = raised / raised.sum(-1, keepdims=True)
    return shares


def _drawn(scores: np.ndarray, draw: np.ndarray) -> np.ndarray:
    """The class at which the cumulative probability passes the draw."""
    total = _softmax(scores).cumsum(-1)
    passed: np.ndarray = (total > draw.astype(np.float64)[:, None] * total[:, -1:]).argmax(-1)
    return passed


def checked_num_quantizers(asked: int, most: int) -> int:
    """Number of codebooks to predict.

    Raises:
        InputError: the model has fewer.
    """
    if asked > most:
        raise InputError(f"num_quantizers is {asked}; expected 1 to {most}, the model's codebooks")
    return asked or most
