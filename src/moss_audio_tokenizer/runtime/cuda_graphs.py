"""Steps in fixed shapes, which a GPU replays as CUDA graphs.

Hundreds of small kernels cost a GPU more to launch than to run. In fixed shapes, a step's
launches are recorded once and replayed: rows are the first slots, up to a power of two that
covers every active slot; paused ones take part with 0 frames, which changes nothing. Knows
tensors in and out; what is computed comes in as a function.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .ring_cache import RingKVCache, StepBatch, next_power_of_two

# (input of all rows, state, batch) to outputs, each with rows first.
Compute = Callable[[Tensor, RingKVCache, StepBatch], tuple[Tensor, ...]]
# Records a function without arguments, and returns one that replays it.
Record = Callable[[Callable[[], None]], Callable[[], object]]


class GraphedStep:
    """A step that is padded to a recorded shape and replayed.

    Args:
        compute: what a step computes; shapes alone may decide what is done.
        state: KV caches and positions of the streams.
        record: `record_cuda_graph` for a device; tests pass one that only calls.
    """

    def __init__(self, compute: Compute, state: RingKVCache, record: Record) -> None:
        self._compute = compute
        self._state = state
        self._record = record
        self._recorded: dict[tuple[int, ...], _Recorded] = {}

    def __call__(
        self, x: Tensor, slots: Sequence[int], num_frames: Sequence[int]
    ) -> tuple[Tensor, ...]:
        """Outputs of the rows of x, which are the ascending ``slots``."""
        longest, most = max(num_frames), len(self._state.positions)
        frames, rows = next_power_of_two(longest), min(next_power_of_two(slots[-1] + 1), most)
        width = x.shape[1] // longest  # entries of x a frame
        shape = (rows, frames, *x.shape[2:])
        recorded = self._recorded.get(shape)
        if recorded is None:
            recorded = self._recorded[shape] = self._recording(x, rows, frames, width)
        index = torch.tensor(slots, device=x.device)
        recorded.x[index, : x.shape[1]] = x
        recorded.num_frames.zero_()
        recorded.num_frames[index] = torch.tensor(num_frames, device=x.device)
        recorded.replay()
        return tuple(output[index] for output in recorded.outputs)

    def _recording(self, x: Tensor, rows: int, frames: int, width: int) -> "_Recorded":
        recorded = _Recorded()
        with torch.inference_mode(mode=False):  # or steps outside that mode could not write there
            recorded.x = x.new_zeros(rows, frames * width, *x.shape[2:])
            recorded.num_frames = torch.zeros(rows, dtype=torch.long, device=x.device)

        def step() -> None:
            batch = StepBatch.fixed(self._state, recorded.num_frames, frames)
            recorded.outputs = self._compute(recorded.x, self._state, batch)

        # Recording runs the step, with 0 frames in every row: it leaves no trace.
        recorded.replay = self._record(step)
        return recorded


class _Recorded:
    """Tensors that a recorded step reads and writes, and how to run it."""

    x: Tensor
    num_frames: Tensor
    outputs: tuple[Tensor, ...]
    replay: Callable[[], object]


def record_cuda_graph(step: Callable[[], None], device: torch.device) -> Callable[[], object]:
    """A CUDA graph of ``step`` on ``device``, after a few runs that let libraries settle."""
    with torch.cuda.device(device):
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                step()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        # PyTorch's own stream for this may be another device's. Other threads are not disturbed.
        with torch.cuda.graph(graph, stream=side, capture_error_mode="thread_local"):
            step()
    return graph.replay
