"""Sampling of codes, in NumPy.

Owns the settings of generation and all of its random numbers. Each row draws from a seed of its
own, so that its codes do not depend on the other rows of a batch.
"""

from dataclasses import dataclass
from numbers import Real
from typing import Literal

import numpy as np
from jaxtyping import Float, Float32, Int, Int64

from ..errors import InputError

# Below this, scores overflow in float32; top_k=1 takes the most probable code.
MIN_TEMPERATURE = 1e-3
CodeChoice = Literal["sample", "mean"]
CODE_CHOICES: tuple[CodeChoice, ...] = ("sample", "mean")


@dataclass(frozen=True)
class SpeechSampling:
    """Settings of generation; the defaults are those published for the local 1.7 B model.

    Attributes:
        do_sample: False takes the most probable code; only the penalty, guidance and the limits
            then count, and ``code_choice`` does not.
        code_choice: "sample" draws a code; "mean" takes the code whose vector in the codec's
            latent space is nearest to the mean of all vectors under the predicted probabilities
            (least expected squared error), for models that hold these vectors. None takes the
            model's own. With "mean", top_k, top_p and the penalty do not count.
        temperature: temperature of codes; None takes the model's own.
        top_k: keep the k most probable codes; 0 disables.
        top_p: keep the most probable codes up to this total probability.
        repetition_penalty: penalty of codes that the codebook has had in this speech; 1 disables.
        end_temperature: temperature of the decision to end; 0 takes the
            most probable.
        guidance: classifier-free guidance scale of the text's condition (Ho and Salimans
            2022), for models trained with ``place_dropout``; other values than 1 double the rows
            of a batch. 0 takes the model's own.
        max_frames: longest speech in frames.
        num_quantizers: number of codebooks to predict; 0 for all.
        seed: seed of the first row; following rows use the following seeds.

    Raises:
        InputError: a value is out of range.
    """

    do_sample: bool = True
    code_choice: CodeChoice | None = None
    temperature: float | None = None
    top_k: int = 50
    top_p: float = 0.95
    repetition_penalty: float = 1.1
    end_temperature: float = 1.0
    guidance: float = 0.0
    max_frames: int = 250
    num_quantizers: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.code_choice not in (None, *CODE_CHOICES):
            raise InputError(
                f"code_choice is {self.code_choice!r}; expected {', '.join(CODE_CHOICES)} or None"
            )
        for name in ("top_k", "max_frames", "num_quantizers", "seed"):
            if type(getattr(self, name)) is not int:
                raise InputError(f"{name} is {getattr(self, name)!r}; expected a whole number")
        for name in ("temperature", "top_p", "repetition_penalty", "end_temperature", "guidance"):
            value = getattr(self, name)
            if name == "temperature" and value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, Real):
                raise InputError(f"{name} is {value!r}; expected a number")
        temperature = 1.0 if self.temperature is None else self.temperature
        for name, usable, expected in (
            ("temperature", MIN_TEMPERATURE <= temperature < 100, "0.001 to 100"),
            ("top_k", self.top_k >= 0, "0 or more"),
            ("top_p", 0 < self.top_p <= 1, "above 0, up to 1"),
            ("repetition_penalty", 0.1 <= self.repetition_penalty <= 10, "0.1 to 10"),
            (
                "end_temperature",
                self.end_temperature == 0 or MIN_TEMPERATURE <= self.end_temperature < 100,
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
        return unconditioned + scale * (conditioned - unconditioned)

    def code(
        self,
        scores: Float[np.ndarray, "rows classes"],
        history: Int[np.ndarray, "rows frames"],
        draw: Float[np.ndarray, "rows"],
        vectors: Float[np.ndarray, "classes dim"] | None = None,
    ) -> Int64[np.ndarray, "rows"]:
        """Choose a code of one codebook.

        Args:
            scores: its logits.
            history: its codes so far.
            draw: one number of `draws` for each row.
            vectors: vectors of the codes, to take the one nearest to their mean under the scores.
        """
        settings = self._settings
        if vectors is not None:
            return _nearest_to_mean(scores / np.float32(settings.temperature or 1), vectors)
        if history.shape[1] and settings.repetition_penalty != 1:
            scores = _penalized(scores, history, settings.repetition_penalty)
        if not settings.do_sample:
            return scores.argmax(-1)
        if settings.temperature is not None:
            scores = scores / np.float32(settings.temperature)
        rows = zip(scores, draw.tolist(), strict=True)
        return np.array([_drawn(row, number, settings) for row, number in rows])

    def choice(
        self, scores: Float[np.ndarray, "rows n"], draw: Float[np.ndarray, "rows"]
    ) -> Int64[np.ndarray, "rows"]:
        """Decide whether speech continues, or how long a token lasts."""
        temperature = self._settings.end_temperature
        if not self._settings.do_sample or not temperature:
            return scores.argmax(-1)
        rows = zip(scores / np.float32(temperature), draw.tolist(), strict=True)
        return np.array([_index_at(_raised(row), number) for row, number in rows])


def _penalized(scores: np.ndarray, history: np.ndarray, penalty: float) -> np.ndarray:
    """Divide positive logits of earlier codes by the penalty, and multiply negative ones."""
    rows = np.arange(len(scores))[:, None]
    found = scores[rows, history]
    scores = scores.copy()
    scores[rows, history] = np.where(
        found < 0, found * np.float32(penalty), found / np.float32(penalty)
    )
    return scores


def _nearest_to_mean(
    scores: Float[np.ndarray, "rows classes"], vectors: Float[np.ndarray, "classes dim"]
) -> Int64[np.ndarray, "rows"]:
    """The code with the least expected squared distance from a code drawn from the scores."""
    raised = np.exp(scores - scores.max(-1, keepdims=True))
    mean = raised / raised.sum(-1, keepdims=True) @ vectors
    return (np.square(vectors).sum(-1) - 2 * mean @ vectors.T).argmin(-1)


def _drawn(scores: np.ndarray, draw: float, settings: SpeechSampling) -> int:
    """Draw a code of one row, whose temperature has been applied.

    Works with the codes that are kept alone, in their order: 50 in place of 1024.
    """
    kept = np.arange(len(scores))
    if settings.top_k and settings.top_k < len(scores):
        # Codes that tie with the last one are kept too.
        kept = (scores >= np.partition(scores, -settings.top_k)[-settings.top_k]).nonzero()[0]
    raised = _raised(scores[kept])
    if settings.top_p < 1:
        # The least probable codes, whose probabilities add up to at most 1 - top_p, are removed.
        order = raised.argsort(kind="stable")
        total = raised[order].cumsum()
        removed = int(np.searchsorted(total, (1 - settings.top_p) * total[-1], "right"))
        order = np.sort(order[min(removed, len(order) - 1) :])
        kept, raised = kept[order], raised[order]
    return int(kept[_index_at(raised, draw)])


def _raised(scores: np.ndarray) -> np.ndarray:
    """Probabilities of classes before they are divided by their sum."""
    return np.exp(scores.astype(np.float64) - scores.max())


def _index_at(raised: np.ndarray, draw: float) -> int:
    """The class at which the cumulative probability passes the draw."""
    total = raised.cumsum()
    return min(int(np.searchsorted(total, draw * total[-1], "right")), len(total) - 1)


def checked_num_quantizers(asked: int, most: int) -> int:
    """Number of codebooks to predict.

    Raises:
        InputError: the model has fewer.
    """
    if asked > most:
        raise InputError(f"num_quantizers is {asked}; expected 1 to {most}, the model's codebooks")
    return asked or most
