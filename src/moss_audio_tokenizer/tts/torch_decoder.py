"""The Transformers of CAT-TTS during generation, in PyTorch: KV caches and single steps.

The loop around them is `speech.tts_generation`.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from transformers import DynamicCache

from ..llm import cache_argument, pad_left
from ..speech.text_cursor import FrameAlignment
from ..speech.tts_generation import TtsInput
from .depth import DepthCache

if TYPE_CHECKING:
    from .cat_tts import CatTts


class TorchTtsDecoder:
    """A batch of rows, and unconditioned copies of them behind these if it is guided.

    Args:
        model: CAT-TTS.
        inputs: what precedes the first frame of each row.
        guided: whether to add the copies.
    """

    @torch.no_grad()
    def __init__(self, model: "CatTts", inputs: Sequence[TtsInput], guided: bool) -> None:
        self._model, self._copies, self._rows = model, 1 + guided, len(inputs)
        self._cache, self._depth = DynamicCache(), DepthCache()
        steps, self._mask = pad_left([_embedded(model, row) for row in inputs] * self._copies)
        self._run(steps, (self._mask.cumsum(-1) - 1).clamp_min(0))

    @torch.no_grad()
    def duration_scores(self, tokens: np.ndarray) -> np.ndarray:
        """Logits of the durations of tokens that would begin in the next frame."""
        predictor: Any = self._model.guide
        return _array(predictor.scores(self._hidden[: self._rows], self._tensor(tokens)))

    @torch.no_grad()
    def end_scores(self) -> np.ndarray:
        """Begin a frame: logits of ending and continuing."""
        self._depth = DepthCache()
        outputs = self._model.depth(self._hidden[:, None], self._depth)[:, 0]
        return _array(self._model.depth.scores(outputs[: self._rows], 0))

    @torch.no_grad()
    def code_scores(
        self, previous: np.ndarray | None, index: int, alignment: FrameAlignment | None
    ) -> np.ndarray:
        """Logits of a codebook."""
        if previous is None:
            step = self._model.continuation + self._condition(alignment)
        else:
            embedded = self._model.code_embedding.of_layer(self._tensor(previous), index - 1)
            step = embedded.repeat(self._copies, 1)
        outputs = self._model.depth(step[:, None], self._depth)[:, 0]
        return _array(self._model.depth.scores(outputs, index + 1))

    @torch.no_grad()
    def advance(self, codes: np.ndarray, alignment: FrameAlignment | None) -> None:
        """Feed a complete frame to the temporal Transformer."""
        embedded = self._model.code_embedding(self._tensor(codes)[..., None])
        step = embedded.repeat(self._copies, 1, 1) + self._condition(alignment)[:, None]
        self._mask = torch.cat((self._mask, torch.ones_like(self._mask[:, :1])), 1)
        self._run(step, self._next)

    def _condition(self, alignment: FrameAlignment | None) -> Float[Tensor, "rows width"]:
        """Alignment embeddings; zero in the unconditioned copies."""
        condition = torch.zeros_like(self._hidden)
        if alignment is not None and self._model.guide is not None:
            given = (alignment.tokens, alignment.begins, alignment.remaining)
            condition[: self._rows] = self._model.guide(*(self._tensor(item) for item in given))
        return condition

    def _run(self, steps: Tensor, positions: Tensor) -> None:
        self._next = positions[:, -1:] + 1
        self._hidden: Tensor = self._model.temporal(
            inputs_embeds=steps,
            attention_mask=self._mask,
            position_ids=positions,
            **cache_argument(self._model.temporal, self._cache),
        ).last_hidden_state[:, -1]

    def _tensor(self, values: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values)).to(self._model.device)


def _array(scores: Tensor) -> np.ndarray:
    array: np.ndarray = scores.float().cpu().numpy()
    return array


def _embedded(model: "CatTts", row: TtsInput) -> Float[Tensor, "steps width"]:
    """[text][start][frames of the prompt]."""
    steps = model.prompt(row.ids)
    if row.codes is None:
        return steps
    codes = torch.from_numpy(row.codes)[:, None].to(model.device)
    return torch.cat((steps, model.code_embedding(codes)[0]))
