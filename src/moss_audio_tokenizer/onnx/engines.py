"""onnxruntime behind sessions: `streaming.StepEngine` on the step graphs of a codec.

Inputs and outputs of the state are bound to the same memory, so that a step writes its new
entries in place and copies nothing; a graph reads a ring only after it has written to it. What a
row may be is checked in `api.arrays`.
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from ..api.arrays import ARRAYS
from ..config import CodecConfig
from ..errors import InputError
from .folder import OnnxFolder
from .manifest import Value, given_and_results, rings_of
from .runtime import Runtime, session_facts

# Bound shapes that are kept ready; each holds little but its inputs and outputs.
_MOST_BINDINGS = 16


@dataclass(frozen=True)
class StepGraph:
    """A step graph, ready to run.

    Attributes:
        runtime: where it runs.
        session_for: gives its session for a step of so many frames in all rows together.
        config: configuration of the codec.
        codes_type: "int32" or "int64".
        identity: differs where the memory of a stream means something else.
    """

    runtime: Runtime
    session_for: Callable[[int], Any]
    config: CodecConfig
    codes_type: str
    identity: str


def open_step_graph(folder: OnnxFolder, runtime: Runtime, side: str) -> StepGraph:
    """The step graph of the "encoder" or the "decoder" of an exported model.

    Raises:
        CheckpointError: it is missing, or is not the one that the manifest describes.
    """
    name = f"{side}_step"
    session = runtime.session(folder.graph(name))
    folder.check_session(name, session_facts(session))
    identity = folder.stream_identity(name)
    return StepGraph(runtime, lambda _frames: session, folder.config, folder.codes_type, identity)


class OnnxEngine:
    """Streams in slots, advanced by a step graph: what both directions have in common.

    Args:
        graph: the graph of the encoder's or the decoder's steps.
        side: "encoder" or "decoder".
        num_slots: streams that fit.
        max_chunk_frames: frames that one step can take.

    Attributes:
        positions: frames that the stream in each slot has seen; writing to it moves the streams.
    """

    def __init__(self, graph: StepGraph, side: str, num_slots: int, max_chunk_frames: int) -> None:
        self._graph = graph
        self._config = graph.config
        self._given, self._results = given_and_results(graph.config, side, graph.codes_type)
        self.identity = graph.identity
        self.num_slots = num_slots
        self.max_chunk_frames = max_chunk_frames
        self.samples_per_frame = graph.config.downsample_rate
        self.positions = np.zeros(num_slots, np.int64)
        self._rings: dict[str, Any] = {}
        for ring in rings_of(graph.config, side):
            shape = (num_slots, ring.num_heads, ring.places(max_chunk_frames), ring.head_dim)
            for kind in ("key", "value"):
                self._rings[f"{ring.layer}.{kind}"] = graph.runtime.empty(shape)
        self._bindings: OrderedDict[tuple[Any, int, int, int], _Binding] = OrderedDict()

    def _run(
        self, chunks: Mapping[int, np.ndarray], num_frames: Mapping[int, int]
    ) -> dict[int, list[np.ndarray]]:
        """Results of each slot's next frames; an error leaves every stream as it was."""
        found: dict[int, list[np.ndarray]] = {}
        for slots in near_runs(sorted(chunks)):
            found.update(self._run_near(slots, chunks, num_frames))
        for slot in chunks:  # only now, when nothing can fail
            self.positions[slot] += num_frames[slot]
        return found

    def _run_near(
        self, slots: list[int], chunks: Mapping[int, np.ndarray], num_frames: Mapping[int, int]
    ) -> dict[int, list[np.ndarray]]:
        """One run of the graph, over all slots from the first of these slots to the last."""
        first, count = slots[0], slots[-1] - slots[0] + 1
        binding = self._binding(first, count, max(num_frames[slot] for slot in slots))
        binding.clear()
        for slot in slots:
            binding.fill(slot - first, chunks[slot], num_frames[slot])
        binding.run(self._graph.runtime.on_gpu)
        return {slot: binding.row(slot - first, num_frames[slot]) for slot in slots}

    def _binding(self, first: int, count: int, frames: int) -> "_Binding":
        key = (self._graph.session_for(count * frames), first, count, frames)
        if key not in self._bindings:
            self._bindings[key] = self._bind(*key)
        self._bindings.move_to_end(key)
        while len(self._bindings) > _MOST_BINDINGS:
            self._bindings.popitem(last=False)
        return self._bindings[key]

    def _bind(self, session: Any, first: int, count: int, frames: int) -> "_Binding":
        sizes = {
            "batch": count,
            "frames": frames,
            "samples": frames * self.samples_per_frame,
            "num_quantizers": self._config.quantizer.num_quantizers,
        }
        binding = _Binding(session, self._given, self._results, sizes)
        binding.share("positions", self.positions[first : first + count])
        for name, ring in self._rings.items():
            shape = ring.shape()
            address = ring.data_ptr() + first * 4 * int(np.prod(shape[1:]))
            where = (*self._graph.runtime.place, np.float32, [count, *shape[1:]], address)
            binding.io.bind_input(f"past_key_values.{name}", *where)
            binding.io.bind_output(f"present.{name}", *where)
        return binding

    def reset(self, slots: Sequence[int]) -> None:
        """Restart the streams in some slots: what their rings hold is never seen again."""
        self.positions[list(slots)] = 0

    def copy_slot(self, source: int, target: int) -> None:
        """Make the stream in slot ``target`` a copy of the one in ``source``."""
        self.positions[target] = self.positions[source]
        for ring in self._rings.values():
            values = ring.numpy()
            values[target] = values[source]
            if self._graph.runtime.on_gpu:
                ring.update_inplace(values)

    def num_bytes(self) -> int:
        """Memory of all streams, which never grows."""
        rings = sum(4 * int(np.prod(ring.shape())) for ring in self._rings.values())
        return int(rings + self.positions.nbytes)

    def join_chunks(self, chunks: Sequence[np.ndarray]) -> np.ndarray:
        """Chunks of one stream in a row, in memory of their own."""
        return np.concatenate(list(chunks), axis=-1)

    def pad(self, chunk: np.ndarray, length: int) -> np.ndarray:
        """A chunk with zeros behind it, ``length`` long."""
        return np.pad(chunk, ((0, 0), (0, length - chunk.shape[-1])))

    def join_results(self, results: Sequence[np.ndarray]) -> np.ndarray:
        """Results of one stream in a row; an empty one if there are none."""
        if not results:
            return self._no_result()
        return results[0] if len(results) == 1 else np.concatenate(list(results), axis=-1)

    def _no_result(self) -> np.ndarray:
        raise NotImplementedError

    def to_arrays(self) -> dict[str, np.ndarray]:
        """The memory of all streams, by name."""
        rings = {name: ring.numpy() for name, ring in self._rings.items()}
        return {"positions": self.positions} | rings

    def load_arrays(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Take over the memory that `to_arrays` returned.

        Raises:
            InputError: names, shapes or types are not this state's; nothing is changed then.
        """
        if _description(arrays) != _description(self.to_arrays()):
            raise InputError(
                "the saved streams are of another model, precision, number of slots or chunk "
                "length; restore them into a session made in the same way"
            )
        self.positions[:] = arrays["positions"]
        for name, ring in self._rings.items():
            ring.update_inplace(np.ascontiguousarray(arrays[name]))


def _description(arrays: Mapping[str, np.ndarray]) -> dict[str, tuple[object, ...]]:
    return {name: (*array.shape, array.dtype.str) for name, array in arrays.items()}


class OnnxDecoderEngine(OnnxEngine):
    """Codes (num_quantizers, frames) to audio (channels, samples), on the graph "decoder_step"."""

    def __init__(self, graph: StepGraph, num_slots: int, max_chunk_frames: int) -> None:
        super().__init__(graph, "decoder", num_slots, max_chunk_frames)

    def check(self, chunk: Any) -> Int[np.ndarray, "num_quantizers frames"]:
        """Validate a chunk, and return it as an array."""
        return ARRAYS.as_code_chunk(chunk, self._config)

    def step(
        self, chunks: Mapping[int, Int[np.ndarray, "num_quantizers _"]]
    ) -> dict[int, Float[np.ndarray, "channels _"]]:
        """Advance the streams of some slots, and return their results."""
        found = self._run(chunks, {slot: codes.shape[1] for slot, codes in chunks.items()})
        return {slot: audio for slot, (audio,) in found.items()}

    def _no_result(self) -> np.ndarray:
        return np.zeros((self._config.number_channels, 0), np.float32)


class OnnxEncoderEngine(OnnxEngine):
    """Audio (channels, samples) to codes (num_quantizers, frames), on the graph "encoder_step"."""

    def __init__(
        self, graph: StepGraph, num_slots: int, max_chunk_frames: int, num_quantizers: int
    ) -> None:
        super().__init__(graph, "encoder", num_slots, max_chunk_frames)
        self._num_quantizers = num_quantizers

    def check(self, chunk: Any) -> Float[np.ndarray, "channels samples"]:
        """Validate a chunk, which may be empty, and return it as an array."""
        return ARRAYS.as_waveform_chunk(chunk, self._config.number_channels)

    def step(
        self, chunks: Mapping[int, Float[np.ndarray, "channels _"]]
    ) -> dict[int, Int[np.ndarray, "num_quantizers _"]]:
        """Advance the streams of some slots, and return their results."""
        return {slot: codes for slot, (codes, _) in self.step_with_hidden(chunks).items()}

    def step_with_hidden(
        self, chunks: Mapping[int, Float[np.ndarray, "channels _"]]
    ) -> dict[int, tuple[Int[np.ndarray, "num_quantizers _"], Float[np.ndarray, "width _"]]]:
        """`step`, with the hidden states that were quantized."""
        frames = {slot: audio.shape[1] // self.samples_per_frame for slot, audio in chunks.items()}
        return {
            slot: (codes[: self._num_quantizers].astype(np.int64), hidden)
            for slot, (codes, hidden) in self._run(chunks, frames).items()
        }

    def _no_result(self) -> np.ndarray:
        return np.zeros((self._num_quantizers, 0), np.int64)


class _Binding:
    """Inputs and outputs of one shape, bound to memory that stays where it is."""

    def __init__(
        self, session: Any, given: Value, results: Sequence[Value], sizes: Mapping[str, int]
    ) -> None:
        self._session = session
        self.io = session.io_binding()
        self._frames = sizes["frames"]
        self._rows_axis = given[2].index("batch")
        self._inputs: dict[str, np.ndarray] = {}
        self._given = _zeros(given, sizes)
        self._active = np.zeros((sizes["batch"], sizes["frames"]), bool)
        self.share(given[0], self._given)
        self.share("active", self._active)
        # Each result, and the same with its rows first.
        self._results = [_zeros(value, sizes) for value in results]
        self._by_row = [
            np.moveaxis(array, axes.index("batch"), 0)
            for array, (_, _, axes) in zip(self._results, results, strict=True)
        ]
        for array, (name, _, _) in zip(self._results, results, strict=True):
            self.io.bind_output(name, "cpu", 0, *_place(array))
        self._following = np.empty(sizes["batch"], np.int64)
        self.io.bind_output("next_positions", "cpu", 0, *_place(self._following))

    def share(self, name: str, array: np.ndarray) -> None:
        """Let the graph read an array as it is at the time of each run."""
        self._inputs[name] = array
        self.io.bind_input(name, "cpu", 0, *_place(array))

    def clear(self) -> None:
        """Let every row do nothing."""
        self._given.fill(0)
        self._active.fill(0)

    def fill(self, row: int, chunk: np.ndarray, frames: int) -> None:
        """Let a row compute a chunk."""
        target = np.moveaxis(self._given, self._rows_axis, 0)[row]
        target[len(chunk) :] = -1  # codebooks that are not given
        target[: len(chunk), : chunk.shape[1]] = chunk
        self._active[row, :frames] = True

    def run(self, on_gpu: bool) -> None:
        """Compute."""
        if on_gpu:  # there an input is copied when it is bound
            for name, array in self._inputs.items():
                self.io.bind_input(name, "cpu", 0, *_place(array))
        self._session.run_with_iobinding(self.io)

    def row(self, row: int, frames: int) -> list[np.ndarray]:
        """A copy of one row's results."""
        return [
            rows[row][..., : frames * rows.shape[-1] // self._frames].copy()
            for rows in self._by_row
        ]


def _zeros(value: Value, sizes: Mapping[str, int]) -> np.ndarray:
    _, dtype, axes = value
    return np.zeros([sizes[axis] if isinstance(axis, str) else axis for axis in axes], dtype)


def _place(array: np.ndarray) -> tuple[Any, ...]:
    """Type, shape and address, as onnxruntime binds them."""
    return array.dtype.type, array.shape, array.ctypes.data


def near_runs(slots: Sequence[int], gap: int = 2) -> list[list[int]]:
    """Ascending slots in groups whose neighbors are at most ``gap`` apart.

    A slot in between is computed with them and left as it is, which costs less than another run.
    """
    runs: list[list[int]] = []
    for slot in slots:
        if runs and slot - runs[-1][-1] <= gap:
            runs[-1].append(slot)
        else:
            runs.append([slot])
    return runs
