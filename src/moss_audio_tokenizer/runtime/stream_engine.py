"""What the engines of PyTorch's streams have in common: tensors in and out, and their files.

Owns `streaming.StepEngine` but for the steps themselves, which are PyTorch's own (`torch_steps.py`)
or onnxruntime's (`onnx_steps.py`). What a row may be is checked in `model.inputs`.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from safetensors.torch import save_file
from torch import Tensor

from ..api.stream_files import read_stream_file, write_stream_file
from ..model.inputs import as_code_chunk, as_waveform_chunk
from .inference_codec import InferenceDecoder, InferenceEncoder


@runtime_checkable
class StreamState(Protocol):
    """The memory of all streams: `RingKVCache`, or the rings of an ONNX graph."""

    def reset(self, slots: Sequence[int]) -> None:
        """Restart the streams in ``slots``."""
        ...

    def copy_slot(self, source: int, target: int) -> None:
        """Make the stream in slot ``target`` a copy of the one in ``source``."""
        ...

    def num_bytes(self) -> int:
        """Bytes of all streams."""
        ...

    def to_tensors(self) -> dict[str, Tensor]:
        """All of it as named tensors."""
        ...

    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over what `to_tensors` returned."""
        ...


class TensorEngine:
    """Base of the engines of both directions.

    Args:
        coder: the encoder or the decoder.
        num_slots: streams that can be open at once.
        max_chunk_frames: frames that one step can take.
        state: the memory of these streams.

    Attributes:
        results_device: where results go, all rows of a step in one copy; by default the engine's.
    """

    def __init__(
        self,
        coder: InferenceEncoder | InferenceDecoder,
        num_slots: int,
        max_chunk_frames: int,
        state: StreamState,
    ) -> None:
        self.num_slots = num_slots
        self.max_chunk_frames = max_chunk_frames
        self.samples_per_frame = coder.config.downsample_rate
        self.device = self.results_device = coder.stack.device
        self.identity = coder.identity
        self.state = state
        self._config = coder.config

    def _result(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(array).to(self.results_device)

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


def _content(tensor: Tensor) -> tuple[str, Any]:
    return str(tensor.dtype), tensor.cpu().flatten().view(torch.uint8).numpy().data


class DecoderEngine(TensorEngine):
    """Codes (num_quantizers, frames) to audio (channels, samples)."""

    def check(self, chunk: Any) -> Int[Tensor, "num_quantizers frames"]:
        """Validate a chunk, and return it as a tensor."""
        return as_code_chunk(chunk, self._config)

    def step(
        self, chunks: Mapping[int, Int[Tensor, "num_quantizers _"]]
    ) -> dict[int, Float[Tensor, "channels _"]]:
        """Advance the streams of some slots, and return their results."""
        raise NotImplementedError

    def join_results(self, results: Sequence[Tensor]) -> Float[Tensor, "channels samples"]:
        """Results of one stream in a row; an empty one if there are none."""
        if not results:
            channels = self._config.number_channels
            return torch.zeros(channels, 0, device=self.results_device)
        return results[0] if len(results) == 1 else torch.cat(list(results), dim=-1)


class EncoderEngine(TensorEngine):
    """Audio (channels, samples) to codes (num_quantizers, frames).

    Args:
        coder: the encoder and the quantizer.
        num_slots: streams that can be open at once.
        max_chunk_frames: frames that one step can take.
        state: the memory of these streams.
        num_quantizers: codebooks that are used.
    """

    def __init__(
        self,
        coder: InferenceEncoder,
        num_slots: int,
        max_chunk_frames: int,
        state: StreamState,
        num_quantizers: int,
    ) -> None:
        super().__init__(coder, num_slots, max_chunk_frames, state)
        self._num_quantizers = num_quantizers

    def check(self, chunk: Any) -> Float[Tensor, "channels samples"]:
        """Validate a chunk, which may be empty, and return it as a tensor."""
        return as_waveform_chunk(chunk, self._config.number_channels).detach()

    def step(
        self, chunks: Mapping[int, Float[Tensor, "channels _"]]
    ) -> dict[int, Int[Tensor, "num_quantizers _"]]:
        """Advance the streams of some slots, and return their results."""
        return {slot: codes for slot, (codes, _) in self.step_with_hidden(chunks).items()}

    def step_with_hidden(
        self, chunks: Mapping[int, Float[Tensor, "channels _"]]
    ) -> dict[int, tuple[Int[Tensor, "num_quantizers _"], Float[Tensor, "frames width"]]]:
        """`step`, with the hidden states that were quantized."""
        raise NotImplementedError

    def join_results(self, results: Sequence[Tensor]) -> Int[Tensor, "num_quantizers frames"]:
        """Results of one stream in a row; an empty one if there are none."""
        if not results:
            shape = (self._num_quantizers, 0)
            return torch.zeros(shape, dtype=torch.long, device=self.results_device)
        return results[0] if len(results) == 1 else torch.cat(list(results), dim=-1)
