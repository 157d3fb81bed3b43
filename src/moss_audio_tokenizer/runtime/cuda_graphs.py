"""How a step is run: as it comes, or in fixed shapes that a GPU replays as one graph.

Hundreds of small kernels cost a GPU more to launch than to run. In fixed shapes, a step's
launches are recorded once and replayed: rows are the first slots, up to a power of two that
holds every slot with something to do; paused ones take part with no frames, which changes
nothing. Knows tensors in and out; what is computed comes in as a function.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .ring_cache import RingKVCache, StepBatch

# (input of all rows, state, rows) to outputs, each with rows first.
Compute = Callable[[Tensor, RingKVCache, StepBatch], tuple[Tensor, ...]]
# Makes of a function without arguments one that does the same again.
Record = Callable[[Callable[[], None]], Callable[[], object]]


class EagerStep:
    """Each step computed as it comes."""

    def __init__(self, compute: Compute, state: RingKVCache) -> None:
        self._compute = compute
        self._state = state

    def run(self, x: Tensor, slots: Sequence[int], num_frames: Sequence[int]) -> tuple[Tensor, ...]:
        """Outputs of the rows of x, which are the ascending ``slots``."""
        return self._compute(x, self._state, StepBatch.of(self._state, slots, num_frames))


class GraphedStep:
    """Each step padded to a shape that was recorded before.

    Args:
        compute: what a step does; it must not depend on values, only on shapes.
        state: the streams'.
        record: `record_cuda_graph` for a device, or for tests one that just calls.
    """

    def __init__(self, compute: Compute, state: RingKVCache, record: Record) -> None:
        self._compute = compute
        self._state = state
        self._record = record
        self._recorded: dict[tuple[int, ...], _Recorded] = {}

    def run(self, x: Tensor, slots: Sequence[int], num_frames: Sequence[int]) -> tuple[Tensor, ...]:
        """Outputs of the rows of x, which are the ascending ``slots``."""
        longest, most = max(num_frames), len(self._state.positions)
        frames, rows = _power_of_two(longest), min(_power_of_two(slots[-1] + 1), most)
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
            at = StepBatch.fixed(self._state, recorded.num_frames, frames)
            recorded.outputs = self._compute(recorded.x, self._state, at)

        # Recording runs the step, with no frames in any row: it leaves no trace.
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
        # PyTorch's own stream for this may be another device's. Other threads go on as they will.
        with torch.cuda.graph(graph, stream=side, capture_error_mode="thread_local"):
            step()
    return graph.replay


def _power_of_two(count: int) -> int:
    return 1 << (count - 1).bit_length()
