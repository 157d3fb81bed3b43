"""onnxruntime behind sessions: `streaming.StepEngine` on the step graphs of a codec.

What a row may be is `arrays.py`'s, memory and runs are `steps.py`'s.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from safetensors.numpy import save_file

from ..api.stream_files import read_stream_file, write_stream_file
from ..config import CodecConfig
from .arrays import as_code_chunk, as_waveform_chunk
from .runtime import Runtime
from .shapes import rings_of
from .steps import Port, StepRunner


@dataclass(frozen=True)
class StepGraph:
    """A step graph, ready to run.

    Attributes:
        runtime: where it runs.
        session_for: see `StepRunner`.
        config: of the codec.
        codes_type: "int32" or "int64".
        identity: differs where the memory of a stream means something else.
    """

    runtime: Runtime
    session_for: Callable[[int], Any]
    config: CodecConfig
    codes_type: str
    identity: str


class OnnxEngine:
    """What both directions have in common.

    Args:
        runner: memory and steps of the streams.
        config: of the codec.
        identity: differs where the memory of a stream means something else.
        num_slots: streams that fit.
        max_chunk_frames: frames that one step can take.
    """

    def __init__(
        self,
        runner: StepRunner,
        config: CodecConfig,
        identity: str,
        num_slots: int,
        max_chunk_frames: int,
    ) -> None:
        self._runner = runner
        self._config = config
        self.identity = identity
        self.num_slots = num_slots
        self.max_chunk_frames = max_chunk_frames
        self.samples_per_frame = config.downsample_rate

    @property
    def positions(self) -> np.ndarray:
        """Frames that the stream in each slot has seen; writing to it moves the streams."""
        return self._runner.positions

    def reset(self, slots: Sequence[int]) -> None:
        """Restart the streams in some slots."""
        self._runner.reset(slots)

    def copy_slot(self, source: int, target: int) -> None:
        """Make one slot's stream a copy of another's."""
        self._runner.copy_slot(source, target)

    def num_bytes(self) -> int:
        """Memory of all streams, which never grows."""
        return self._runner.num_bytes()

    def join_chunks(self, chunks: Sequence[np.ndarray]) -> np.ndarray:
        """Chunks of one stream in a row, in memory of their own."""
        return np.concatenate(list(chunks), axis=-1)

    def pad(self, chunk: np.ndarray, length: int) -> np.ndarray:
        """A chunk with zeros behind it, ``length`` long."""
        return np.pad(chunk, ((0, 0), (0, length - chunk.shape[-1])))

    def to_tensors(self) -> dict[str, np.ndarray]:
        """The memory of all streams, by name."""
        return self._runner.to_tensors()

    def load_tensors(self, tensors: Mapping[str, np.ndarray]) -> None:
        """Take over the memory that `to_tensors` returned."""
        self._runner.load_tensors(tensors)

    def write_file(
        self, path: Path, tensors: Mapping[str, np.ndarray], notes: dict[str, str]
    ) -> None:
        """Write arrays and notes as safetensors."""
        arrays = {name: np.ascontiguousarray(array) for name, array in tensors.items()}
        write_stream_file(path, arrays, notes, save_file, _content)

    def read_file(self, path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
        """Read what `write_file` wrote."""
        return read_stream_file(path, "np", "cpu", _content)


def _content(array: np.ndarray) -> tuple[str, bytes]:
    return array.dtype.str, np.ascontiguousarray(array).tobytes()


class OnnxDecoderEngine(OnnxEngine):
    """Codes (layers, frames) to audio (channels, samples)."""

    def check(self, chunk: Any) -> Int[np.ndarray, "layers frames"]:
        """Validate a chunk, and return it as an array."""
        return as_code_chunk(chunk, self._config)

    def step(
        self, chunks: Mapping[int, Int[np.ndarray, "layers _"]]
    ) -> dict[int, Float[np.ndarray, "channels _"]]:
        """Advance the streams of some slots, and return their results."""
        found = self._runner.run(chunks, {slot: codes.shape[1] for slot, codes in chunks.items()})
        return {slot: audio for slot, (audio,) in found.items()}

    def join_results(self, results: Sequence[np.ndarray]) -> Float[np.ndarray, "channels samples"]:
        """Results of one stream in a row; an empty one if there are none."""
        if not results:
            return np.zeros((self._config.number_channels, 0), np.float32)
        return results[0] if len(results) == 1 else np.concatenate(list(results), axis=-1)


class OnnxEncoderEngine(OnnxEngine):
    """Audio (channels, samples) to codes (layers, frames).

    Args:
        *parts: the arguments of `OnnxEngine`.
        num_quantizers: layers of codes.
    """

    def __init__(self, *parts: Any, num_quantizers: int) -> None:
        super().__init__(*parts)
        self._num_quantizers = num_quantizers

    def check(self, chunk: Any) -> Float[np.ndarray, "channels samples"]:
        """Validate a chunk, which may be empty, and return it as an array."""
        return as_waveform_chunk(chunk, self._config.number_channels)

    def step(
        self, chunks: Mapping[int, Float[np.ndarray, "channels _"]]
    ) -> dict[int, Int[np.ndarray, "layers _"]]:
        """Advance the streams of some slots, and return their results."""
        return {slot: codes for slot, (codes, _) in self.step_with_hidden(chunks).items()}

    def step_with_hidden(
        self, chunks: Mapping[int, Float[np.ndarray, "channels _"]]
    ) -> dict[int, tuple[Int[np.ndarray, "layers _"], Float[np.ndarray, "width _"]]]:
        """`step`, with what the quantizer was given."""
        frames = {slot: audio.shape[1] // self.samples_per_frame for slot, audio in chunks.items()}
        found = self._runner.run(chunks, frames)
        return {
            slot: (codes[: self._num_quantizers].astype(np.int64), hidden)
            for slot, (codes, hidden) in found.items()
        }

    def join_results(self, results: Sequence[np.ndarray]) -> Int[np.ndarray, "layers frames"]:
        """Results of one stream in a row; an empty one if there are none."""
        if not results:
            return np.zeros((self._num_quantizers, 0), np.int64)
        return results[0] if len(results) == 1 else np.concatenate(list(results), axis=-1)


def encoder_engine(graph: StepGraph, slots: int, frames: int, layers: int) -> OnnxEncoderEngine:
    """Streams of audio to so many layers of codes, on the graph "encoder_step"."""
    config = graph.config
    quantizer, unit = config.quantizer, config.downsample_rate
    given = Port("input_values", "float32", ("batch", config.number_channels, "frames"), unit)
    results = [
        Port("audio_codes", graph.codes_type, (quantizer.num_quantizers, "batch", "frames")),
        Port("encoder_hidden_states", "float32", ("batch", quantizer.input_dim, "frames")),
    ]
    state = (rings_of(config, "encoder"), given, results, slots, frames)
    runner = StepRunner(graph.runtime, graph.session_for, *state)
    sizes = (graph.identity, slots, frames)
    return OnnxEncoderEngine(runner, config, *sizes, num_quantizers=layers)


def decoder_engine(graph: StepGraph, slots: int, frames: int) -> OnnxDecoderEngine:
    """Streams of codes to audio, on the graph "decoder_step"."""
    config = graph.config
    layers = config.quantizer.num_quantizers
    given = Port("audio_codes", graph.codes_type, (layers, "batch", "frames"))
    axes = ("batch", config.number_channels, "frames")
    results = [Port("audio", "float32", axes, config.downsample_rate)]
    state = (rings_of(config, "decoder"), given, results, slots, frames)
    runner = StepRunner(graph.runtime, graph.session_for, *state)
    return OnnxDecoderEngine(runner, config, graph.identity, slots, frames)
