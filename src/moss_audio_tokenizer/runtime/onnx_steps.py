"""Steps of streams in onnxruntime, for tensors: on a CPU they take less time than PyTorch's own.

The memory of the streams and the steps are `onnx.engines`', as for exported folders.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..onnx.engines import OnnxEngine, StepGraph, decoder_engine, encoder_engine
from .inference_codec import InferenceDecoder, InferenceEncoder
from .stream_engine import DecoderEngine, EncoderEngine
from .torch_steps import TorchDecoderEngine, TorchEncoderEngine


class OnnxStreamState:
    """The memory of an engine of arrays, as tensors that share it.

    Args:
        engine: owns the memory.
    """

    def __init__(self, engine: OnnxEngine) -> None:
        self._engine = engine

    @property
    def positions(self) -> Int[Tensor, " slots"]:
        """Frames that the stream in each slot has seen."""
        return torch.from_numpy(self._engine.positions)

    def reset(self, slots: Sequence[int]) -> None:
        """Restart the streams in ``slots``."""
        self._engine.reset(slots)

    def copy_slot(self, source: int, target: int) -> None:
        """Make the stream in slot ``target`` a copy of the one in ``source``."""
        self._engine.copy_slot(source, target)

    def num_bytes(self) -> int:
        """Bytes of all streams."""
        return self._engine.num_bytes()

    def to_tensors(self) -> dict[str, Tensor]:
        """All of it as named tensors."""
        return {name: torch.from_numpy(item) for name, item in self._engine.to_tensors().items()}

    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over what `to_tensors` returned."""
        self._engine.load_tensors({name: _as_array(item) for name, item in tensors.items()})


class OnnxDecoderSteps(DecoderEngine):
    """Codes to audio by an ONNX graph.

    Args:
        decoder: whose weights the graph has.
        graph: of its steps.
        num_slots: streams that can be open at once.
        max_chunk_frames: frames that one step can take.
    """

    def __init__(
        self, decoder: InferenceDecoder, graph: StepGraph, num_slots: int, max_chunk_frames: int
    ) -> None:
        self._engine = decoder_engine(graph, num_slots, max_chunk_frames)
        state = OnnxStreamState(self._engine)
        super().__init__(decoder, num_slots, max_chunk_frames, state)
        self.identity = graph.identity

    def step(
        self, chunks: Mapping[int, Int[Tensor, "num_quantizers _"]]
    ) -> dict[int, Float[Tensor, "channels _"]]:
        """Advance the streams of some slots, and return their results."""
        found = self._engine.step({slot: _as_array(chunk) for slot, chunk in chunks.items()})
        return {slot: self._result(audio) for slot, audio in found.items()}


class OnnxEncoderSteps(EncoderEngine):
    """Audio to codes by an ONNX graph.

    Args:
        encoder: whose weights the graph has.
        graph: of its steps.
        num_slots: streams that can be open at once.
        max_chunk_frames: frames that one step can take.
        num_quantizers: codebooks that are used.
    """

    def __init__(
        self,
        encoder: InferenceEncoder,
        graph: StepGraph,
        num_slots: int,
        max_chunk_frames: int,
        num_quantizers: int,
    ) -> None:
        self._engine = encoder_engine(graph, num_slots, max_chunk_frames, num_quantizers)
        state = OnnxStreamState(self._engine)
        super().__init__(encoder, num_slots, max_chunk_frames, state, num_quantizers)
        self.identity = graph.identity

    def step_with_hidden(
        self, chunks: Mapping[int, Float[Tensor, "channels _"]]
    ) -> dict[int, tuple[Int[Tensor, "num_quantizers _"], Float[Tensor, "frames width"]]]:
        """`step`, with the hidden states that were quantized."""
        arrays = {slot: _as_array(chunk) for slot, chunk in chunks.items()}
        return {
            slot: (self._result(codes), self._result(hidden.T))
            for slot, (codes, hidden) in self._engine.step_with_hidden(arrays).items()
        }


def make_decoder_engine(
    decoder: InferenceDecoder, num_slots: int, max_chunk_frames: int
) -> DecoderEngine:
    """An engine that steps by onnxruntime where that is faster and possible, else by PyTorch."""
    graph = decoder.step_graph
    if graph is None:
        return TorchDecoderEngine(decoder, num_slots, max_chunk_frames)
    return OnnxDecoderSteps(decoder, graph, num_slots, max_chunk_frames)


def make_encoder_engine(
    encoder: InferenceEncoder, num_slots: int, max_chunk_frames: int, num_quantizers: int
) -> EncoderEngine:
    """See `make_decoder_engine`."""
    sizes = (num_slots, max_chunk_frames, num_quantizers)
    graph = encoder.step_graph
    if graph is None:
        return TorchEncoderEngine(encoder, *sizes)
    return OnnxEncoderSteps(encoder, graph, *sizes)


def _as_array(tensor: Tensor) -> np.ndarray:
    """A tensor as an array; one of bfloat16, which no stream has, as int16."""
    values = tensor.detach().cpu()
    return values.view(torch.int16).numpy() if values.dtype == torch.bfloat16 else values.numpy()
