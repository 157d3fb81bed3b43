"""Forced alignment: the text token of each frame, by the CTC scores of a CAT-ASR model."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int64, Integer

from ..errors import ConfigError
from ..speech.model_facts import check_codes
from ..speech.token_frames import token_steps
from .cat_asr import CatAsr


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
        given = [check_codes(codes, self.model.facts) for codes in clips]
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
