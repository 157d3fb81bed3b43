"""Memory of a stage for long stretches: keys and values of the window before, then the new ones.

All rows of a batch stand at the same step. Contiguous, so that attention can be cut into
blocks; for steps of a few frames the rings (`rings.py`) are cheaper.
"""

from collections.abc import Callable
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..model.attention import Window, plan_window, windowed_attention
from .bands import Band
from .chunk_cache import StageState
from .rotation import rotate_heads, rotations_of
from .stage import InferenceStage, layer_norm


class PieceMemory:
    """`Memory` of the next ``num_steps`` steps of a stage; with a state, advances it."""

    def __init__(
        self, stage: InferenceStage, num_steps: int, x: Tensor, state: StageState | None
    ) -> None:
        position, num_past = (0, 0) if state is None else (state.position, state.num_past)
        steps = torch.arange(position, position + num_steps, device=x.device)
        self._rotations = rotations_of(steps, stage.head_dim, stage.max_period)[:, None, None]
        self._attend: Callable[[Tensor, Tensor, Tensor], Tensor]
        # Where every query sees all before it, PyTorch's causal attention is as fast or faster.
        slides = num_past > 0 or num_steps > stage.context_steps
        if slides and x.device.type == "cpu" and stage.attention_backend == "sdpa":
            self._attend = Band(num_steps, num_past, stage.context_steps).attend
        else:
            window = plan_window(num_steps, num_past, stage.context_steps, x.device)
            self._attend = partial(_windowed, window, stage.attention_backend)
        self._caches = None if state is None else state.layers
        if state is not None:
            state.position += num_steps

    def normalise(self, x: Tensor, norm: nn.LayerNorm) -> Tensor:
        """See `Memory.normalise`."""
        return layer_norm(x, norm)

    def rotate(self, heads: Float[Tensor, "rows steps 3 heads head_dim"]) -> Tensor:
        """See `Memory.rotate`."""
        return rotate_heads(heads, self._rotations)

    def attend(
        self, layer: int, heads: Float[Tensor, "rows steps 3 heads head_dim"]
    ) -> Float[Tensor, "rows steps width"]:
        """See `Memory.attend`."""
        query, key, value = heads.transpose(1, 3).unbind(2)
        if self._caches is not None:
            key, value = self._caches[layer].extend(key, value)
        return self._attend(query, key, value)


def _windowed(window: Window, backend: str, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    attended = windowed_attention(query, key, value, window, backend)
    return attended.transpose(1, 2).flatten(2)
