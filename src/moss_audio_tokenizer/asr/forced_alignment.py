"""Forced alignment: the text token of each frame, by the CTC scores of a CAT-ASR model.

Owns the Viterbi search in the lattice of CTC.
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Float, Int64, Integer

from ..errors import ConfigError
from ..llm import check_codes
from .model import CatAsr

_IMPOSSIBLE = -np.inf


class Aligner:
    """Aligns texts with codes.

    Args:
        model: a CAT-ASR with a CTC head.

    Raises:
        ConfigError: the model has no CTC head.
    """

    def __init__(self, model: CatAsr) -> None:
        if model.frame_head is None:
            raise ConfigError(
                "this CAT-ASR has no frame scores to align by; train one with frame_weight above 0"
            )
        self.model = model

    @torch.no_grad()
    def align(
        self, clips: Sequence[Integer[np.ndarray, "num_quantizers _"]], texts: Sequence[str]
    ) -> list[Int64[np.ndarray, " frames"]]:
        """For each frame the index of its text token.

        A causal model emits a token when it is over: the token lasts from the frame after the one
        that emitted the token before, to the one that emits it. Frames behind the last token have
        the number of tokens as their index, which is that of the end token.
        """
        given = [check_codes(codes, self.model.config) for codes in clips]
        if not given:
            return []
        # One batch is faster on a GPU; on a CPU, clips by themselves give reproducible bits.
        at_once = [given] if self.model.device.type == "cuda" else [[codes] for codes in given]
        scores = [of_one for group in at_once for of_one in self._scores(group)]
        return [
            self._indices(of_one, self.model.text.encode(text))
            for of_one, text in zip(scores, texts, strict=True)
        ]

    def _indices(
        self, scores: Float[np.ndarray, "steps classes"], ids: list[int]
    ) -> Int64[np.ndarray, " frames"]:
        frames = len(scores) - 1
        if not ids:
            return np.zeros(frames, np.int64)
        emitted = token_steps(scores, ids, self.model.text.num_tokens)
        return np.searchsorted(emitted, np.arange(frames), side="left")

    def _scores(
        self, clips: Sequence[Int64[np.ndarray, "num_quantizers _"]]
    ) -> list[Float[np.ndarray, "_ classes"]]:
        """CTC log-probabilities of clips in one batch."""
        layers, counts = ([codes.shape[axis] for codes in clips] for axis in (0, 1))
        padded = np.zeros((max(layers), len(clips), max(counts)), np.int64)
        for row, codes in enumerate(clips):
            padded[: len(codes), row, : codes.shape[1]] = codes
        device = self.model.device
        given = torch.from_numpy(padded).to(device), counts, torch.tensor(layers, device=device)
        found = self.model.frame_scores(*given).double().cpu().numpy()
        return [of_one[: count + 1] for of_one, count in zip(found, counts, strict=True)]


def token_steps(
    scores: Float[np.ndarray, "steps classes"], ids: Sequence[int], blank: int
) -> Int64[np.ndarray, " tokens"]:
    """The step at which the most likely path emits each token.

    Args:
        scores: log-probabilities of the classes in each step.
        ids: token ids, in order.
        blank: class of steps that emit no token.

    Returns:
        Ascending steps; evenly spaced where there are more tokens than steps.
    """
    steps, count = len(scores), len(ids)
    repeats = sum(a == b for a, b in pairwise(ids))
    if count + repeats > steps:
        return np.linspace(0, steps - 1, count).round().astype(np.int64)
    classes = np.full(2 * count + 1, blank)
    classes[1::2] = ids
    # The blank between two different tokens may be skipped.
    skips = np.zeros(len(classes), bool)
    skips[3::2] = classes[3::2] != classes[1:-2:2]
    came_from = np.zeros((steps, len(classes)), np.int64)
    best = np.full(len(classes), _IMPOSSIBLE)
    best[:2] = scores[0, classes[:2]]
    for step in range(1, steps):
        moves = np.stack([best, _shifted(best, 1), np.where(skips, _shifted(best, 2), _IMPOSSIBLE)])
        came_from[step] = moves.argmax(0)
        best = moves.max(0) + scores[step, classes]
    return _first_steps(came_from, len(classes) - 1 - int(best[-2:].argmax() == 0), count)


def _shifted(values: np.ndarray, by: int) -> np.ndarray:
    return np.concatenate((np.full(by, _IMPOSSIBLE), values))[: len(values)]


def _first_steps(came_from: np.ndarray, state: int, count: int) -> Int64[np.ndarray, " tokens"]:
    """Backtrack: the first step in the state of each token."""
    emitted = np.zeros(count, np.int64)
    for step in range(len(came_from) - 1, -1, -1):
        if state % 2:
            emitted[state // 2] = step
        state -= int(came_from[step, state])
    return emitted
