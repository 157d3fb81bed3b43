"""The `streaming.StepEngine` of PyTorch: steps of streams through a codec's encoder or decoder.

Owns how rows of different lengths become one batch, and the KV caches on the device. What a row
may be is checked in `model.inputs`.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from safetensors.torch import save_file
from torch import Tensor

from ..api.stream_files import read_stream_file, write_stream_file
from ..model.inputs import as_code_chunk, as_waveform_chunk, pad_rows
from .cuda_graphs import GraphedStep, Record, record_cuda_graph
from .inference_codec import InferenceDecoder, InferenceEncoder
from .ring_cache import RingKVCache, StepBatch

# Rows times frames up to which a step on a CPU runs on one thread. Threads that share a small step
# spin while they wait for each other: beside busy programs a step took seconds.
ONE_THREAD_FRAMES = 8


class TorchEngine:
    """Base of the engines of both directions.

    Args:
        coder: the encoder or the decoder.
        num_slots: streams that can be open at once.
        max_chunk_frames: frames that one step can take.

    Attributes:
        results_device: where results go, all rows of a step in one copy; by default the engine's.
    """

    def __init__(
        self, coder: InferenceEncoder | InferenceDecoder, num_slots: int, max_chunk_frames: int
    ) -> None:
        self.num_slots = num_slots
        self.max_chunk_frames = max_chunk_frames
        self.samples_per_frame = coder.config.downsample_rate
        self.device = self.results_device = coder.stack.device
        self.identity = coder.identity
        with torch.inference_mode(mode=False):  # or steps outside that mode could not write to it
            self.state = coder.stack.init_state(num_slots, max_chunk_frames)
        record = graph_recorder(self.device)
        self._graphed = None if record is None else GraphedStep(self._compute, self.state, record)

    def _run(
        self, x: Tensor, slots: Sequence[int], num_frames: Sequence[int]
    ) -> tuple[Tensor, ...]:
        """Outputs of the rows of x, which are the ascending ``slots``."""
        if self._graphed is not None:
            return self._graphed(x, slots, num_frames)
        return self._compute(x, self.state, StepBatch.of(self.state, slots, num_frames))

    def _compute(self, x: Tensor, state: RingKVCache, batch: StepBatch) -> tuple[Tensor, ...]:
        raise NotImplementedError

    def reset(self, slots: Sequence[int]) -> None:
        """Restart the streams in ``slots``."""
        self.state.reset(slots)

    def copy_slot(self, source: int, target: int) -> None:
        """Make the stream in slot ``target`` a copy of the one in ``source``."""
        self.state.copy_slot(source, target)

    def num_bytes(self) -> int:
        """Memory of all streams, which never grows."""
        return self.state.num_bytes()

    def join_chunks(self, chunks: Sequence[Tensor]) -> Tensor:
        """Chunks of one stream in a row, on the device of the last."""
        device = chunks[-1].device
        return torch.cat([chunk.to(device) for chunk in chunks], dim=-1)

    def pad(self, chunk: Tensor, length: int) -> Tensor:
        """A chunk with zeros behind it, ``length`` long."""
        return F.pad(chunk, (0, length - chunk.shape[-1]))

    def to_tensors(self) -> dict[str, Tensor]:
        """The state of all streams as named tensors, for a file."""
        return self.state.to_tensors()

    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over the state that `to_tensors` returned."""
        self.state.load_tensors(tensors)

    def write_file(self, path: Path, tensors: Mapping[str, Tensor], notes: dict[str, str]) -> None:
        """Write tensors and notes as safetensors, with a checksum."""
        tensors = {name: tensor.contiguous().cpu() for name, tensor in tensors.items()}
        write_stream_file(path, tensors, notes, save_file, _content)

    def read_file(self, path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
        """Read what `write_file` wrote."""
        return read_stream_file(path, "pt", str(self.device), _content)


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


def _content(tensor: Tensor) -> tuple[str, Any]:
    return str(tensor.dtype), tensor.cpu().flatten().view(torch.uint8).numpy().data


class TorchDecoderEngine(TorchEngine):
    """Codes (num_quantizers, frames) to audio (channels, samples).

    Args:
        decoder: the quantizer and the decoder.
        num_slots: streams that can be open at once.
        max_chunk_frames: frames that one step can take.
    """

    def __init__(self, decoder: InferenceDecoder, num_slots: int, max_chunk_frames: int) -> None:
        super().__init__(decoder, num_slots, max_chunk_frames)
        self._decoder = decoder

    def check(self, chunk: Any) -> Int[Tensor, "num_quantizers frames"]:
        """Validate a chunk, and return it as a tensor."""
        return as_code_chunk(chunk, self._decoder.config)

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

    def join_results(self, results: Sequence[Tensor]) -> Float[Tensor, "channels samples"]:
        """Results of one stream in a row; an empty one if there are none."""
        if not results:
            channels = self._decoder.config.number_channels
            return torch.zeros(channels, 0, device=self.results_device)
        return results[0] if len(results) == 1 else torch.cat(list(results), dim=-1)


class TorchEncoderEngine(TorchEngine):
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
        super().__init__(encoder, num_slots, max_chunk_frames)
        self._encoder = encoder
        self._num_quantizers = num_quantizers

    def check(self, chunk: Any) -> Float[Tensor, "channels samples"]:
        """Validate a chunk, which may be empty, and return it as a tensor."""
        return as_waveform_chunk(chunk, self._encoder.config.number_channels).detach()

    def step(
        self, chunks: Mapping[int, Float[Tensor, "channels _"]]
    ) -> dict[int, Int[Tensor, "num_quantizers _"]]:
        """Advance the streams of some slots, and return their results."""
        return {slot: codes for slot, (codes, _) in self.step_with_hidden(chunks).items()}

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

    def join_results(self, results: Sequence[Tensor]) -> Int[Tensor, "num_quantizers frames"]:
        """Results of one stream in a row; an empty one if there are none."""
        if not results:
            shape = (self._num_quantizers, 0)
            return torch.zeros(shape, dtype=torch.long, device=self.results_device)
        return results[0] if len(results) == 1 else torch.cat(list(results), dim=-1)


def _together(rows: Sequence[Tensor]) -> Tensor:
    """Rows padded to one batch, on the first one's device: a GPU then gets a single copy."""
    if len({row.device for row in rows}) > 1:
        rows = [row.to(rows[0].device) for row in rows]
    return pad_rows(rows)
