"""Which token of a text each frame belongs to, by the frame scores of a CAT-ASR model.

Owns the search for the likeliest alignment (Viterbi, in the lattice of CTC).
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Float, Int64, Integer

from ..errors import ConfigError
from ..language import check_codes
from .model import CatAsr

_NEVER = -np.inf


class Aligner:
    """Aligns texts with codes.

    Args:
        model: with frame scores.

    Raises:
        ConfigError: the model has none.
    """

    def __init__(self, model: CatAsr) -> None:
        if model.frame_head is None:
            raise ConfigError(
                "this CAT-ASR has no frame scores to align by; train one with frame_weight above 0"
            )
        self.model = model

    @torch.no_grad()
    def places(
        self, clips: Sequence[Integer[np.ndarray, "num_quantizers _"]], texts: Sequence[str]
    ) -> list[Int64[np.ndarray, " frames"]]:
        """For each frame the number of the token that is being said in it.

        A causal reader knows a token when it has been said: it is being said from the frame after
        the one that told the token before, to the one that tells it. Frames behind the last have
        the number of tokens, which is that of the end.
        """
        given = [check_codes(codes, self.model.config) for codes in clips]
        if not given:
            return []
        # A GPU waits between small clips; on a CPU a clip's places depend on no others.
        at_once = [given] if self.model.device.type == "cuda" else [[codes] for codes in given]
        scores = [of_one for group in at_once for of_one in self._scores(group)]
        return [
            self._places(of_one, self.model.text.encode(text))
            for of_one, text in zip(scores, texts, strict=True)
        ]

    def _places(
        self, scores: Float[np.ndarray, "steps classes"], ids: list[int]
    ) -> Int64[np.ndarray, " frames"]:
        frames = len(scores) - 1
        if not ids:
            return np.zeros(frames, np.int64)
        told = told_frames(scores, ids, self.model.text.num_tokens)
        return np.searchsorted(told, np.arange(frames), side="left")

    def _scores(
        self, clips: Sequence[Int64[np.ndarray, "num_quantizers _"]]
    ) -> list[Float[np.ndarray, "_ classes"]]:
        """Of clips in one batch."""
        depths, counts = ([codes.shape[axis] for codes in clips] for axis in (0, 1))
        padded = np.zeros((max(depths), len(clips), max(counts)), np.int64)
        for row, codes in enumerate(clips):
            padded[: len(codes), row, : codes.shape[1]] = codes
        device = self.model.device
        given = torch.from_numpy(padded).to(device), counts, torch.tensor(depths, device=device)
        found = self.model.frame_scores(*given).double().cpu().numpy()
        return [of_one[: count + 1] for of_one, count in zip(found, counts, strict=True)]


def told_frames(
    scores: Float[np.ndarray, "steps classes"], ids: Sequence[int], nothing: int
) -> Int64[np.ndarray, " tokens"]:
    """The step at which each token is told, on the likeliest path.

    Args:
        scores: logarithms of probabilities.
        ids: of the tokens, in order.
        nothing: the class of steps that tell no token.

    Returns:
        Ascending steps; spread evenly where the tokens do not fit into the steps.
    """
    steps, count = len(scores), len(ids)
    repeats = sum(a == b for a, b in pairwise(ids))
    if count + repeats > steps:
        return np.linspace(0, steps - 1, count).round().astype(np.int64)
    classes = np.full(2 * count + 1, nothing)
    classes[1::2] = ids
    # A state may be skipped if it tells nothing between two tokens that differ.
    skips = np.zeros(len(classes), bool)
    skips[3::2] = classes[3::2] != classes[1:-2:2]
    came_from = np.zeros((steps, len(classes)), np.int64)
    best = np.full(len(classes), _NEVER)
    best[:2] = scores[0, classes[:2]]
    for step in range(1, steps):
        moves = np.stack([best, _shifted(best, 1), np.where(skips, _shifted(best, 2), _NEVER)])
        came_from[step] = moves.argmax(0)
        best = moves.max(0) + scores[step, classes]
    return _first_steps(came_from, len(classes) - 1 - int(best[-2:].argmax() == 0), count)


def _shifted(values: np.ndarray, by: int) -> np.ndarray:
    return np.concatenate((np.full(by, _NEVER), values))[: len(values)]


def _first_steps(came_from: np.ndarray, state: int, count: int) -> Int64[np.ndarray, " tokens"]:
    """Back along the path: the first step in the state of each token."""
    told = np.zeros(count, np.int64)
    for step in range(len(came_from) - 1, -1, -1):
        if state % 2:
            told[state // 2] = step
        state -= int(came_from[step, state])
    return told
