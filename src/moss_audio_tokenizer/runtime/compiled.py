"""A Transformer stage whose steps run in compiled kernels, on a CPU, in float32 arithmetic.

Owns how weights are packed for `kernels.py` and the layout of its rings, which no other code
reads. Used for streams when Numba is installed; `rings.py` says the same in PyTorch.
"""

from collections.abc import Sequence
from types import ModuleType
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..model.rope import angles_of
from ..model.transformer import Block, Transformer
from .ring_cache import StepBatch

# Hidden units of a feed-forward layer that one thread takes at a time.
_UNITS = 64


def load_kernels() -> ModuleType | None:
    """The compiled kernels, or None where Numba or a safe threading layer is missing."""
    try:
        import numba
    except ImportError:
        return None
    try:
        # Several sessions may step in several threads: the default layer may not bear that.
        numba.config.THREADING_LAYER = "threadsafe"  # type: ignore[attr-defined]
        from . import kernels

        _probe(kernels)
    except (
        ImportError,
        ValueError,
        RuntimeError,
    ):  # no threads, or nowhere to keep what it compiles
        return None
    return kernels


def _probe(kernels: ModuleType) -> None:
    """Start Numba's threads: a missing threading layer shows only then."""
    x = np.zeros((1, kernels.UNROLL), np.float32)
    weights = np.zeros((1, kernels.UNROLL, kernels.LANES), np.float32)
    threads = torch.get_num_threads()
    kernels.project(x, weights, np.zeros((1, kernels.LANES), np.float32), 1)
    # Numba's start sets the number of OpenMP's threads, which are PyTorch's too.
    torch.set_num_threads(threads)


class LayerArrays(NamedTuple):
    """A stage's weights in the order of `kernels.run_layers`' arguments."""

    norms: np.ndarray
    in_weights: np.ndarray
    out_weights: np.ndarray
    up_weights: np.ndarray
    down_weights: np.ndarray


class CompiledStage:
    """Steps of one stage; see `rings.RingStage` for the interface.

    Args:
        stage: the trained stage, on a CPU.
        steps_per_frame: steps for each frame of codes.
        kernels: `load_kernels`'.
        dtype: of the weights in memory; all arithmetic is in float32.
    """

    def __init__(
        self,
        stage: Transformer,
        steps_per_frame: int,
        kernels: ModuleType,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self._dtype = dtype
        self.steps_per_frame = steps_per_frame
        self.context_steps = stage.context_steps
        self.head_dim = stage.head_dim
        one = torch.ones(1, dtype=torch.long)
        self._frequencies = angles_of(one, stage.head_dim, stage.max_period)[0].numpy()
        self._kernels = kernels
        self._num_layers = len(stage.layers)
        attention = stage.blocks()[0].attention
        self._width, self._num_heads = attention.in_proj.in_features, attention.num_heads
        self._out_width = _out_features(stage.output_proj, self._width)
        self._input = self._projection(stage.input_proj)
        self._layers = self._pack_layers(stage.blocks())
        self._output = self._projection(stage.output_proj)

    def _projection(self, module: nn.Module) -> np.ndarray | None:
        if not isinstance(module, nn.Linear):
            return None
        return self._stored(pack(_array(module.weight), self._kernels.LANES))

    def _stored(self, weights: np.ndarray) -> np.ndarray:
        """Packed weights in the type that they are read in; see `instructions.add_tile`."""
        if self._dtype == torch.float32:
            return weights
        narrow = torch.from_numpy(weights).to(self._dtype)
        if self._dtype == torch.float16 and not self._kernels.READS_HALVES:
            return narrow.float().numpy()
        rounded = narrow.view(torch.int16).numpy()
        return rounded.view(np.uint16) if self._dtype == torch.bfloat16 else rounded

    def _pack_layers(self, layers: Sequence[Block]) -> LayerArrays:
        """Layer by layer into one array for each kind."""
        packed = [self._pack_layer(layer) for layer in layers]
        norms, *weights = (np.stack(kind) for kind in zip(*packed, strict=True))
        return LayerArrays(norms, *map(self._stored, weights))

    def _pack_layer(self, layer: Block) -> LayerArrays:
        lanes, heads = self._kernels.LANES, self._num_heads
        norms = (layer.attention_norm, layer.feedforward_norm)
        in_proj = _array(layer.attention.in_proj.weight).reshape(3, heads, -1, self._width)
        out_proj = _array(layer.attention_scale[:, None] * layer.attention.out_proj.weight)
        up = _array(layer.feedforward_in.weight)
        down = _array(layer.feedforward_scale[:, None] * layer.feedforward_out.weight)
        starts = range(0, len(up), _UNITS)
        return LayerArrays(
            norms=np.stack([_array(item) for norm in norms for item in (norm.weight, norm.bias)]),
            in_weights=np.stack(
                [pack(in_proj[:, h].reshape(-1, self._width), lanes) for h in range(heads)]
            ),
            out_weights=np.stack([pack(part, lanes) for part in np.split(out_proj, heads, axis=1)]),
            up_weights=np.stack([pack(_rows(up, s, _UNITS), lanes) for s in starts]),
            down_weights=np.stack([pack(_rows(down.T, s, _UNITS).T, lanes) for s in starts]),
        )

    def init_entries(self, num_slots: int, max_chunk_frames: int) -> list[Tensor]:
        """Keys (slots, layers, heads, blocks, head_dim, lanes), values (..., places, lanes)."""
        lanes, layers = self._kernels.LANES, self._num_layers
        places = _up(self.context_steps + max_chunk_frames * self.steps_per_frame - 1, lanes)
        blocks = _up(self.head_dim, lanes) // lanes
        keys = (places // lanes, _up(self.head_dim, self._kernels.UNROLL), lanes)
        values = (blocks, places, lanes)
        outer = (num_slots, layers, self._num_heads)
        return [torch.zeros(*outer, *keys), torch.zeros(*outer, *values)]

    def step(
        self,
        x: Float[Tensor, "rows steps width"],
        entries: list[Tensor],
        rows: StepBatch,
    ) -> Float[Tensor, "rows steps out_width"]:
        """The next frames of some streams through the stage; ``entries`` are written in place."""
        num_rows, steps = x.shape[:2]
        tasks = self._kernels.use_threads(torch.get_num_threads())
        flat = self._project(x.flatten(0, 1).numpy(), self._input, tasks)
        streams = torch.stack((rows.slots, rows.starts, rows.num_frames), dim=1).numpy()
        streams[:, 1:] *= self.steps_per_frame
        keys, values = (item.numpy() for item in entries)
        self._kernels.run_layers(
            flat, streams, self._frequencies, self.context_steps, *self._layers, keys, values, tasks
        )
        out = flat if self._output is None else self._project(flat, self._output, tasks)
        return torch.from_numpy(out[:, : self._out_width]).unflatten(0, (num_rows, steps))

    def _project(self, x: np.ndarray, weights: np.ndarray | None, tasks: int) -> np.ndarray:
        """X W^T (or x itself), with columns padded as the kernels want them, in new memory."""
        kernels = self._kernels
        if weights is None:
            return _padded(x, kernels.LANES)
        if x.shape[1] != weights.shape[1]:
            x = _padded(x, kernels.UNROLL)
        y = np.empty((len(x), weights.shape[0] * kernels.LANES), np.float32)
        kernels.project(np.ascontiguousarray(x), weights, y, tasks)
        return y


def pack(weight: np.ndarray, lanes: int, unroll: int = 4) -> np.ndarray:
    """(outputs, inputs) as (blocks, inputs, lanes), zero-padded."""
    outputs, inputs = _up(weight.shape[0], lanes), _up(weight.shape[1], unroll)
    padded = np.zeros((outputs, inputs), np.float32)
    padded[: weight.shape[0], : weight.shape[1]] = weight
    return np.ascontiguousarray(padded.reshape(-1, lanes, inputs).transpose(0, 2, 1))


def _padded(x: np.ndarray, multiple: int) -> np.ndarray:
    """A copy of x with zero columns up to a multiple."""
    y = np.zeros((len(x), _up(x.shape[1], multiple)), np.float32)
    y[:, : x.shape[1]] = x
    return y


def _rows(matrix: np.ndarray, start: int, count: int) -> np.ndarray:
    """``count`` rows from ``start`` on, zeros past the end."""
    part = matrix[start : start + count]
    return np.pad(part, ((0, count - len(part)), (0, 0)))


def _up(count: int, multiple: int) -> int:
    return -(-count // multiple) * multiple


def _out_features(module: nn.Module, width: int) -> int:
    return module.out_features if isinstance(module, nn.Linear) else width


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().float().numpy()
