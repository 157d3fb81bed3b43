"""PyTorch behind sessions: `streaming.StepEngine` on the halves of a codec.

Owns how rows of different lengths become one batch and the streams' memory on the device;
what a row may be is `inputs.py`'s, the arithmetic is `inference`'s.
"""

import json
import zlib
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..errors import StreamFileError
from ..model.inputs import as_code_chunk, as_waveform_chunk, pad_rows
from .cuda_graphs import EagerStep, GraphedStep, record_cuda_graph
from .inference_codec import InferenceDecoder, InferenceEncoder
from .ring_cache import RingKVCache, StepBatch


class TorchEngine:
    """What both directions have in common.

    Args:
        half: the encoder or the decoder.
        num_slots: streams that fit.
        max_chunk_frames: frames that one step can take.

    Attributes:
        results_device: where results go, all rows of a step in one copy; by default the engine's.
    """

    def __init__(
        self, half: InferenceEncoder | InferenceDecoder, num_slots: int, max_chunk_frames: int
    ) -> None:
        self.num_slots = num_slots
        self.max_chunk_frames = max_chunk_frames
        self.samples_per_frame = half.config.downsample_rate
        self.device = self.results_device = half.stack.device
        self.identity = half.identity
        with torch.inference_mode(mode=False):  # or steps outside that mode could not write to it
            self.state = half.stack.init_state(num_slots, max_chunk_frames)
        if self.device.type == "cuda":
            self._program: EagerStep | GraphedStep = GraphedStep(
                self._compute, self.state, partial(record_cuda_graph, device=self.device)
            )
        else:
            self._program = EagerStep(self._compute, self.state)

    def _compute(self, x: Tensor, state: RingKVCache, rows: StepBatch) -> tuple[Tensor, ...]:
        raise NotImplementedError

    def reset(self, slots: Sequence[int]) -> None:
        """See `StepEngine.reset`."""
        self.state.reset(slots)

    def copy_slot(self, source: int, target: int) -> None:
        """See `StepEngine.copy_slot`."""
        self.state.copy_slot(source, target)

    def num_bytes(self) -> int:
        """See `StepEngine.num_bytes`."""
        return self.state.num_bytes()

    def join_chunks(self, chunks: Sequence[Tensor]) -> Tensor:
        """See `StepEngine.join_chunks`."""
        device = chunks[-1].device
        return torch.cat([chunk.to(device) for chunk in chunks], dim=-1)

    def pad(self, chunk: Tensor, length: int) -> Tensor:
        """See `StepEngine.pad`."""
        return F.pad(chunk, (0, length - chunk.shape[-1]))

    def to_tensors(self) -> dict[str, Tensor]:
        """See `StepEngine.to_tensors`."""
        return self.state.to_tensors()

    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """See `StepEngine.load_tensors`."""
        self.state.load_tensors(tensors)

    def write_file(self, path: Path, tensors: Mapping[str, Tensor], notes: dict[str, str]) -> None:
        """See `StepEngine.write_file`."""
        tensors = {name: tensor.contiguous().cpu() for name, tensor in tensors.items()}
        try:
            save_file(tensors, path, notes | {"checksum": _checksum(tensors, notes)})
        except SafetensorError as problem:  # what a full disk comes as
            raise OSError(str(problem)) from problem

    def read_file(self, path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
        """See `StepEngine.read_file`."""
        try:
            with safe_open(path, "pt", device=str(self.device)) as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
                notes = file.metadata() or {}
        except (SafetensorError, OSError) as problem:
            reason = " ".join(str(problem).split())
            raise StreamFileError(
                f"{str(path)!r} cannot be read as streams ({reason})"
            ) from problem
        if notes.pop("checksum", None) != _checksum(tensors, notes):
            raise StreamFileError(
                f"{str(path)!r} holds no streams, or was altered: its checksum does not match; "
                "save the streams again"
            )
        return tensors, notes


def _checksum(tensors: Mapping[str, Tensor], notes: Mapping[str, str]) -> str:
    """CRC-32 of everything that a file of streams holds."""
    digest = zlib.crc32(json.dumps(notes, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        digest = zlib.crc32(f"{name} {list(tensor.shape)} {tensor.dtype}".encode(), digest)
        digest = zlib.crc32(tensor.cpu().flatten().view(torch.uint8).numpy().data, digest)
    return f"{digest:08x}"


class TorchDecoderEngine(TorchEngine):
    """Codes (layers, frames) to audio (channels, samples)."""

    def __init__(self, half: InferenceDecoder, num_slots: int, max_chunk_frames: int) -> None:
        super().__init__(half, num_slots, max_chunk_frames)
        self._half = half

    def check(self, chunk: Any) -> Int[Tensor, "layers frames"]:
        """See `StepEngine.check`."""
        return as_code_chunk(chunk, self._half.config)

    @torch.no_grad()
    def step(
        self, chunks: Mapping[int, Int[Tensor, "layers _"]]
    ) -> dict[int, Float[Tensor, "channels _"]]:
        """See `StepEngine.step`."""
        slots = sorted(chunks)
        num_frames = [chunks[slot].shape[1] for slot in slots]
        hidden = self._hidden([chunks[slot] for slot in slots])
        (audio,) = self._program.run(hidden, slots, num_frames)
        audio, step = audio.to(self.results_device), self.samples_per_frame
        return {
            slot: row[:, : frames * step]
            for slot, frames, row in zip(slots, num_frames, audio, strict=True)
        }

    def _compute(self, x: Tensor, state: RingKVCache, rows: StepBatch) -> tuple[Tensor, ...]:
        return (self._half.step(x, state, rows),)

    def _hidden(self, rows: list[Tensor]) -> Float[Tensor, "rows frames width"]:
        """Rows of equal depth together: usually that is all of them."""
        if len({len(row) for row in rows}) == 1:
            codes = rows[0][None] if len(rows) == 1 else _together(rows)
            return self._half.quantizer.decode(codes.to(self.device).transpose(0, 1))
        hidden = [self._half.quantizer.decode(row.to(self.device)[:, None])[0].T for row in rows]
        return pad_rows(hidden).transpose(1, 2)

    def join_results(self, results: Sequence[Tensor]) -> Float[Tensor, "channels samples"]:
        """See `StepEngine.join_results`."""
        if not results:
            channels = self._half.config.number_channels
            return torch.zeros(channels, 0, device=self.results_device)
        return results[0] if len(results) == 1 else torch.cat(list(results), dim=-1)


class TorchEncoderEngine(TorchEngine):
    """Audio (channels, samples) to codes (layers, frames).

    Args:
        half: the encoder and the quantizer.
        num_slots: streams that fit.
        max_chunk_frames: frames that one step can take.
        num_quantizers: layers of codes.
    """

    def __init__(
        self,
        half: InferenceEncoder,
        num_slots: int,
        max_chunk_frames: int,
        num_quantizers: int,
    ) -> None:
        super().__init__(half, num_slots, max_chunk_frames)
        self._half = half
        self._num_quantizers = num_quantizers

    def check(self, chunk: Any) -> Float[Tensor, "channels samples"]:
        """See `StepEngine.check`; a chunk may be empty."""
        return as_waveform_chunk(chunk, self._half.config.number_channels).detach()

    def step(
        self, chunks: Mapping[int, Float[Tensor, "channels _"]]
    ) -> dict[int, Int[Tensor, "layers _"]]:
        """See `StepEngine.step`."""
        return {slot: codes for slot, (codes, _) in self.step_with_hidden(chunks).items()}

    @torch.no_grad()
    def step_with_hidden(
        self, chunks: Mapping[int, Float[Tensor, "channels _"]]
    ) -> dict[int, tuple[Int[Tensor, "layers _"], Float[Tensor, "frames width"]]]:
        """`step`, with what the quantizer was given."""
        slots = sorted(chunks)
        num_frames = [chunks[slot].shape[1] // self.samples_per_frame for slot in slots]
        audio = _together([chunks[slot] for slot in slots]).to(self.device).transpose(1, 2)
        found = self._program.run(audio, slots, num_frames)
        codes, hidden = (item.to(self.results_device) for item in found)
        return {
            slot: (codes[row, :frames].T, hidden[row, :frames])
            for row, (slot, frames) in enumerate(zip(slots, num_frames, strict=True))
        }

    def _compute(self, x: Tensor, state: RingKVCache, rows: StepBatch) -> tuple[Tensor, ...]:
        hidden = self._half.step(x.transpose(1, 2), state, rows)
        return self._half.quantizer.encode(hidden, self._num_quantizers).movedim(0, -1), hidden

    def join_results(self, results: Sequence[Tensor]) -> Int[Tensor, "layers frames"]:
        """See `StepEngine.join_results`."""
        if not results:
            shape = (self._num_quantizers, 0)
            return torch.zeros(shape, dtype=torch.long, device=self.results_device)
        return results[0] if len(results) == 1 else torch.cat(list(results), dim=-1)


def _together(rows: Sequence[Tensor]) -> Tensor:
    """`pad_rows`, wherever callers left the rows; a batch is then one copy to a GPU."""
    if len({row.device for row in rows}) > 1:
        rows = [row.to(rows[0].device) for row in rows]
    return pad_rows(rows)
