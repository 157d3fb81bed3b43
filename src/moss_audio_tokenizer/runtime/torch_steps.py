"""Steps of streams in PyTorch itself: batches of rows, and ring KV caches on the device.

Owns how rows of different lengths become one batch. On a GPU steps are replayed as CUDA graphs.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..model.inputs import pad_rows
from .cuda_graphs import GraphedStep, Record, record_cuda_graph
from .inference_codec import InferenceDecoder, InferenceEncoder
from .onnx_sessions import ONE_THREAD_FRAMES
from .ring_cache import RingKVCache, StepBatch
from .stream_engine import DecoderEngine, EncoderEngine


def _empty_state(
    coder: InferenceEncoder | InferenceDecoder, num_slots: int, max_chunk_frames: int
) -> RingKVCache:
    with torch.inference_mode(mode=False):  # or steps outside that mode could not write to it
        return coder.stack.init_state(num_slots, max_chunk_frames)


class _TorchSteps:
    """Steps of whole batches, replayed as recorded graphs where the device has those."""

    device: torch.device
    _rings: RingKVCache
    _graphed: GraphedStep | None

    def _record(self) -> None:
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


class TorchDecoderEngine(_TorchSteps, DecoderEngine):
    """Codes (num_quantizers, frames) to audio (channels, samples).

    Args:
        decoder: the quantizer and the decoder.
        num_slots: streams that can be open at once.
        max_chunk_frames: frames that one step can take.
    """

    def __init__(self, decoder: InferenceDecoder, num_slots: int, max_chunk_frames: int) -> None:
        self._rings = _empty_state(decoder, num_slots, max_chunk_frames)
        super().__init__(decoder, num_slots, max_chunk_frames, self._rings)
        self._decoder = decoder
        self._record()

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
        return pad_rows(hidden).transpose(1, 2)


class TorchEncoderEngine(_TorchSteps, EncoderEngine):
    """Audio (channels, samples) to codes (num_quantizers, frames).

    Args:
        encoder: the encoder and the quantizer.
        num_slots: streams that can be open at once.
        max_chunk_frames: frames that one step can take.
        num_quantizers: codebooks that are used.
    """

    def __init__(
        self,
        encoder: InferenceEncoder,
        num_slots: int,
        max_chunk_frames: int,
        num_quantizers: int,
    ) -> None:
        self._rings = _empty_state(encoder, num_slots, max_chunk_frames)
        super().__init__(encoder, num_slots, max_chunk_frames, self._rings, num_quantizers)
        self._encoder = encoder
        self._record()

    @torch.no_grad()
    def step_with_hidden(
        self, chunks: Mapping[int, Float[Tensor, "channels _"]]
    ) -> dict[int, tuple[Int[Tensor, "num_quantizers _"], Float[Tensor, "frames width"]]]:
        """`step`, with the hidden states that were quantized."""
        slots = sorted(chunks)
        num_frames = [chunks[slot].shape[1] // self.samples_per_frame for slot in slots]
        audio = _together([chunks[slot] for slot in slots]).to(self.device).transpose(1, 2)
        with limited_threads(self.device, len(slots) * max(num_frames)):
            found = self._run(audio, slots, num_frames)
        codes, hidden = (item.to(self.results_device) for item in found)
        return {
            slot: (codes[row, :frames].T, hidden[row, :frames])
            for row, (slot, frames) in enumerate(zip(slots, num_frames, strict=True))
        }

    def _compute(self, x: Tensor, state: RingKVCache, batch: StepBatch) -> tuple[Tensor, ...]:
        hidden = self._encoder.step(x.transpose(1, 2), state, batch)
        return self._encoder.quantizer.encode(hidden, self._num_quantizers).movedim(0, -1), hidden


def _together(rows: Sequence[Tensor]) -> Tensor:
    """Rows padded to one batch, on the first one's device: a GPU then gets a single copy."""
    if len({row.device for row in rows}) > 1:
        rows = [row.to(rows[0].device) for row in rows]
    return pad_rows(rows)
