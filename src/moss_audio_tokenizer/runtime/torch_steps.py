"""Engines of streams on PyTorch models, stepped by PyTorch or, where it is faster, onnxruntime.

PyTorch steps batches of rows against ring KV caches on the device; on a GPU steps are replayed as
CUDA graphs. Owns how rows of different lengths become one batch; what a row may be is checked in
`model.inputs`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from ..model.inputs import TENSORS
from ..onnx.engines import OnnxDecoderEngine, OnnxEncoderEngine
from .inference_codec import InferenceCoder, InferenceDecoder, InferenceEncoder
from .onnx_steps import ONE_THREAD_FRAMES, TensorSteps
from .ring_cache import RingKVCache, StepBatch, next_power_of_two

# (input of all rows, state, batch) to outputs, each with rows first.
Compute = Callable[[Tensor, RingKVCache, StepBatch], tuple[Tensor, ...]]
# Records a function without arguments, and returns one that replays it.
Record = Callable[[Callable[[], None]], Callable[[], object]]


class TorchEngine:
    """What both directions have in common: `streaming.StepEngine` but for `check` and `step`.

    Args:
        coder: the encoder or the decoder, with the quantizer.
        num_slots: streams that can be open at once.
        max_chunk_frames: frames that one step can take.

    Attributes:
        results_device: where results go, all rows of a step in one copy; by default the engine's.
    """

    def __init__(self, coder: InferenceCoder, num_slots: int, max_chunk_frames: int) -> None:
        self.num_slots = num_slots
        self.max_chunk_frames = max_chunk_frames
        self.samples_per_frame = coder.config.downsample_rate
        self.device = self.results_device = coder.device
        self.identity = coder.identity
        self._config = coder.config
        with torch.inference_mode(mode=False):  # or steps outside that mode could not write to it
            self._rings = coder.init_state(num_slots, max_chunk_frames)
        record = graph_recorder(self.device)
        self._graphed = None if record is None else GraphedStep(self._compute, self._rings, record)

    def _run(
        self, x: Tensor, slots: Sequence[int], num_frames: Sequence[int]
    ) -> tuple[Tensor, ...]:
        """Outputs of the rows of x, which are the ascending ``slots``."""
        if self._graphed is not None:
            return self._graphed(x, slots, num_frames)
        return self._compute(x, self._rings, StepBatch.of(self._rings, slots, num_frames))

    def _compute(self, x: Tensor, state: RingKVCache, batch: StepBatch) -> tuple[Tensor, ...]:
        raise NotImplementedError

    @property
    def positions(self) -> Int[Tensor, " slots"]:
        """Frames that the stream in each slot has seen; writing to it moves the streams."""
        return self._rings.positions

    def reset(self, slots: Sequence[int]) -> None:
        """Restart the streams in ``slots``."""
        self._rings.reset(slots)

    def copy_slot(self, source: int, target: int) -> None:
        """Make the stream in slot ``target`` a copy of the one in ``source``."""
        self._rings.copy_slot(source, target)

    def num_bytes(self) -> int:
        """Memory of all streams, which never grows."""
        return self._rings.num_bytes()

    def join_chunks(self, chunks: Sequence[Tensor]) -> Tensor:
        """Chunks of one stream in a row, on the device of the last."""
        device = chunks[-1].device
        return torch.cat([chunk.to(device) for chunk in chunks], dim=-1)

    def pad(self, chunk: Tensor, length: int) -> Tensor:
        """A chunk with zeros behind it, ``length`` long."""
        return F.pad(chunk, (0, length - chunk.shape[-1]))

    def join_results(self, results: Sequence[Tensor]) -> Tensor:
        """Results of one stream in a row; an empty one if there are none."""
        if not results:
            return self._no_result().to(self.results_device)
        return results[0] if len(results) == 1 else torch.cat(list(results), dim=-1)

    def _no_result(self) -> Tensor:
        raise NotImplementedError

    def to_arrays(self) -> dict[str, np.ndarray]:
        """The memory of all streams as named arrays, bfloat16 as int16, for a file."""
        tensors = {name: tensor.cpu() for name, tensor in self._rings.to_tensors().items()}
        return {
            name: (item.view(torch.int16) if item.dtype == torch.bfloat16 else item).numpy()
            for name, item in tensors.items()
        }

    def load_arrays(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Take over the memory that `to_arrays` returned."""
        tensors = {name: torch.tensor(array) for name, array in arrays.items()}
        for name, own in self._rings.to_tensors().items():
            if own.dtype == torch.bfloat16 and name in tensors:
                tensors[name] = tensors[name].view(torch.bfloat16)
        self._rings.load_tensors(tensors)


@contextmanager
def limited_threads(device: torch.device, num_frames: int) -> Iterator[None]:
    """Run a step of so many frames in all on one thread, if it is small and on a CPU."""
    before = torch.get_num_threads()
    if device.type != "cpu" or before == 1 or num_frames > ONE_THREAD_FRAMES:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def graph_recorder(device: torch.device) -> Record | None:
    """How to record steps as graphs on a device; None where they run eagerly."""
    return partial(record_cuda_graph, device=device) if device.type == "cuda" else None


class TorchDecoderEngine(TorchEngine):
    """Codes (num_quantizers, frames) to audio (channels, samples)."""

    def __init__(self, decoder: InferenceDecoder, num_slots: int, max_chunk_frames: int) -> None:
        super().__init__(decoder, num_slots, max_chunk_frames)
        self._decoder = decoder

    def check(self, chunk: Any) -> Int[Tensor, "num_quantizers frames"]:
        """Validate a chunk, and return it as a tensor."""
        return TENSORS.as_code_chunk(chunk, self._config)

    @torch.no_grad()
    def step(
        self, chunks: Mapping[int, Int[Tensor, "num_quantizers _"]]
    ) -> dict[int, Float[Tensor, "channels _"]]:
        """Advance the streams of some slots, and return their results."""
        slots = sorted(chunks)
        num_frames = [chunks[slot].shape[1] for slot in slots]
        with limited_threads(self.device, len(slots) * max(num_frames)):
            hidden = self._hidden([chunks[slot] for slot in slots])
            (audio,) = self._run(hidden, slots, num_frames)
        audio, step = audio.to(self.results_device), self.samples_per_frame
        return {
            slot: row[:, : frames * step]
            for slot, frames, row in zip(slots, num_frames, audio, strict=True)
        }

    def _compute(self, x: Tensor, state: RingKVCache, batch: StepBatch) -> tuple[Tensor, ...]:
        return (self._decoder.step(x, state, batch),)

    def _hidden(self, rows: list[Tensor]) -> Float[Tensor, "rows frames width"]:
        """Decoder inputs; rows with the same num_quantizers, usually all of them, in one batch."""
        if len({len(row) for row in rows}) == 1:
            codes = rows[0][None] if len(rows) == 1 else _together(rows)
            return self._decoder.quantizer.decode(codes.to(self.device).transpose(0, 1))
        hidden = [self._decoder.quantizer.decode(row.to(self.device)[:, None])[0].T for row in rows]
        return TENSORS.pad_rows(hidden).transpose(1, 2)

    def _no_result(self) -> Tensor:
        return torch.zeros(self._config.number_channels, 0)


class TorchEncoderEngine(TorchEngine):
    """Audio (channels, samples) to codes (num_quantizers, frames)."""

    def __init__(
        self,
        encoder: InferenceEncoder,
        num_slots: int,
        max_chunk_frames: int,
        num_quantizers: int,
    ) -> None:
        super().__init__(encoder, num_slots, max_chunk_frames)
        self._encoder = encoder
        self._num_quantizers = num_quantizers

    def check(self, chunk: Any) -> Float[Tensor, "channels samples"]:
        """Validate a chunk, which may be empty, and return it as a tensor."""
        audio: Tensor = TENSORS.as_waveform_chunk(chunk, self._config.number_channels)
        return audio.detach()

    @torch.no_grad()
    def step(
        self, chunks: Mapping[int, Float[Tensor, "channels _"]]
    ) -> dict[int, Int[Tensor, "num_quantizers _"]]:
        """Advance the streams of some slots, and return their results."""
        slots = sorted(chunks)
        num_frames = [chunks[slot].shape[1] // self.samples_per_frame for slot in slots]
        audio = _together([chunks[slot] for slot in slots]).to(self.device).transpose(1, 2)
        with limited_threads(self.device, len(slots) * max(num_frames)):
            (codes,) = self._run(audio, slots, num_frames)
        codes = codes.to(self.results_device)
        return {
            slot: codes[row, :frames].T
            for row, (slot, frames) in enumerate(zip(slots, num_frames, strict=True))
        }

    def _compute(self, x: Tensor, state: RingKVCache, batch: StepBatch) -> tuple[Tensor, ...]:
        hidden = self._encoder.step(x.transpose(1, 2), state, batch)
        return (self._encoder.quantizer.encode(hidden, self._num_quantizers).movedim(0, -1),)

    def _no_result(self) -> Tensor:
        return torch.zeros(self._num_quantizers, 0, dtype=torch.long)


def _together(rows: Sequence[Tensor]) -> Tensor:
    """Rows padded to one batch, on the first one's device: a GPU then gets a single copy."""
    if len({row.device for row in rows}) > 1:
        rows = [row.to(rows[0].device) for row in rows]
    return TENSORS.pad_rows(rows)


def make_decoder_engine(
    decoder: InferenceDecoder, num_slots: int, max_chunk_frames: int
) -> TorchDecoderEngine | TensorSteps:
    """An engine that steps by onnxruntime where that is faster and possible, else by PyTorch."""
    graph = decoder.step_graph
    if graph is None:
        return TorchDecoderEngine(decoder, num_slots, max_chunk_frames)
    check = partial(TENSORS.as_code_chunk, config=decoder.config)
    return TensorSteps(OnnxDecoderEngine(graph, num_slots, max_chunk_frames), check)


def make_encoder_engine(
    encoder: InferenceEncoder, num_slots: int, max_chunk_frames: int, num_quantizers: int
) -> TorchEncoderEngine | TensorSteps:
    """The same for an encoder, of which the first ``num_quantizers`` codebooks are used."""
    sizes = (num_slots, max_chunk_frames, num_quantizers)
    graph = encoder.step_graph
    if graph is None:
        return TorchEncoderEngine(encoder, *sizes)
    check = partial(TENSORS.as_waveform_chunk, num_channels=encoder.config.number_channels)
    return TensorSteps(OnnxEncoderEngine(graph, *sizes), check)


class GraphedStep:
    """A step that is padded to a recorded shape and replayed, as a CUDA graph on a GPU.

    Hundreds of small kernels cost a GPU more to launch than to run. Rows are the first slots, up to
    a power of two that covers every active slot; paused ones take part with 0 frames, which
    changes nothing.

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
