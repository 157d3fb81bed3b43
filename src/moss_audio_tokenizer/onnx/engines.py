"""onnxruntime behind sessions: `streaming.StepEngine` on the step graphs of a codec.

What a row may be is `arrays.py`'s, memory and runs are `steps.py`'s.
"""

import json
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from ..config import CodecConfig
from ..errors import StreamFileError
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
        """See `StepEngine.reset`."""
        self._runner.reset(slots)

    def copy_slot(self, source: int, target: int) -> None:
        """See `StepEngine.copy_slot`."""
        self._runner.copy_slot(source, target)

    def num_bytes(self) -> int:
        """See `StepEngine.num_bytes`."""
        return self._runner.num_bytes()

    def join_chunks(self, chunks: Sequence[np.ndarray]) -> np.ndarray:
        """See `StepEngine.join_chunks`."""
        return np.concatenate(list(chunks), axis=-1)

    def pad(self, chunk: np.ndarray, length: int) -> np.ndarray:
        """See `StepEngine.pad`."""
        return np.pad(chunk, ((0, 0), (0, length - chunk.shape[-1])))

    def to_tensors(self) -> dict[str, np.ndarray]:
        """See `StepEngine.to_tensors`."""
        return self._runner.to_tensors()

    def load_tensors(self, tensors: Mapping[str, np.ndarray]) -> None:
        """See `StepEngine.load_tensors`."""
        self._runner.load_tensors(tensors)

    def write_file(
        self, path: Path, tensors: Mapping[str, np.ndarray], notes: dict[str, str]
    ) -> None:
        """See `StepEngine.write_file`."""
        arrays = {name: np.ascontiguousarray(array) for name, array in tensors.items()}
        save_file(arrays, path, notes | {"checksum": _checksum(arrays, notes)})

    def read_file(self, path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
        """See `StepEngine.read_file`."""
        try:
            with safe_open(path, "np") as file:
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


def _checksum(arrays: Mapping[str, np.ndarray], notes: Mapping[str, str]) -> str:
    """CRC-32 of everything that a file of streams holds."""
    digest = zlib.crc32(json.dumps(notes, sort_keys=True).encode())
    for name, array in sorted(arrays.items()):
        digest = zlib.crc32(f"{name} {list(array.shape)} {array.dtype.str}".encode(), digest)
        digest = zlib.crc32(np.ascontiguousarray(array).tobytes(), digest)
    return f"{digest:08x}"


class OnnxDecoderEngine(OnnxEngine):
    """Codes (layers, frames) to audio (channels, samples)."""

    def check(self, chunk: Any) -> Int[np.ndarray, "layers frames"]:
        """See `StepEngine.check`."""
        return as_code_chunk(chunk, self._config)

    def step(
        self, chunks: Mapping[int, Int[np.ndarray, "layers _"]]
    ) -> dict[int, Float[np.ndarray, "channels _"]]:
        """See `StepEngine.step`."""
        found = self._runner.run(chunks, {slot: codes.shape[1] for slot, codes in chunks.items()})
        return {slot: audio for slot, (audio,) in found.items()}

    def join_results(self, results: Sequence[np.ndarray]) -> Float[np.ndarray, "channels samples"]:
        """See `StepEngine.join_results`."""
        if not results:
            return np.zeros((self._config.number_channels, 0), np.float32)
        return results[0] if len(results) == 1 else np.concatenate(list(results), axis=-1)


class OnnxEncoderEngine(OnnxEngine):
    """Audio (channels, samples) to codes (layers, frames).

    Args:
        *parts: see `OnnxEngine`.
        num_quantizers: layers of codes.
    """

    def __init__(self, *parts: Any, num_quantizers: int) -> None:
        super().__init__(*parts)
        self._num_quantizers = num_quantizers

    def check(self, chunk: Any) -> Float[np.ndarray, "channels samples"]:
        """See `StepEngine.check`; a chunk may be empty."""
        return as_waveform_chunk(chunk, self._config.number_channels)

    def step(
        self, chunks: Mapping[int, Float[np.ndarray, "channels _"]]
    ) -> dict[int, Int[np.ndarray, "layers _"]]:
        """See `StepEngine.step`."""
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
        """See `StepEngine.join_results`."""
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
    state = (rings_of(config, "encoder_step"), given, results, slots, frames)
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
    state = (rings_of(config, "decoder_step"), given, results, slots, frames)
    runner = StepRunner(graph.runtime, graph.session_for, *state)
    return OnnxDecoderEngine(runner, config, graph.identity, slots, frames)
