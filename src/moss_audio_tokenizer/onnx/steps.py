"""Steps of the encoder or decoder: the memory of many streams, and runs of a step graph.

Inputs and outputs of the state are bound to the same memory, so that a step writes its new
entries in place and copies nothing; a graph reads a ring only after it has written to it. Knows
positions, not what codes or audio mean.
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import InputError
from .runtime import Runtime
from .shapes import RingShape

# Bound shapes that are kept ready; each holds little but its inputs and outputs.
_MOST_BINDINGS = 16


@dataclass(frozen=True)
class Port:
    """An input or output besides the state.

    Attributes:
        name: in the graph.
        dtype: of its entries.
        shape: its axes; "batch" and "frames" are filled in, "frames" times ``per_frame``.
        per_frame: entries of the last axis for each frame.
    """

    name: str
    dtype: str
    shape: tuple[int | str, ...]
    per_frame: int = 1

    def shape_for(self, batch: int, frames: int) -> tuple[int, ...]:
        """The axes for so many rows and frames."""
        sizes = {"batch": batch, "frames": frames * self.per_frame}
        return tuple(sizes[axis] if isinstance(axis, str) else axis for axis in self.shape)


class StepRunner:
    """Streams in slots, advanced by a step graph.

    Args:
        runtime: where the graph runs.
        session_for: the graph's session for a step of so many frames in all rows together.
        rings: its state.
        given: what it reads, besides the state.
        results: what it gives.
        num_slots: streams that fit.
        max_chunk_frames: frames that one step can take.
    """

    def __init__(
        self,
        runtime: Runtime,
        session_for: Callable[[int], Any],
        rings: Sequence[RingShape],
        given: Port,
        results: Sequence[Port],
        num_slots: int,
        max_chunk_frames: int,
    ) -> None:
        self._runtime = runtime
        self._session_for = session_for
        self._given = given
        self._results = results
        self.positions = np.zeros(num_slots, np.int64)
        self._rings: dict[str, Any] = {}
        for ring in rings:
            shape = (num_slots, ring.num_heads, ring.places(max_chunk_frames), ring.head_dim)
            for kind in ("key", "value"):
                self._rings[f"{ring.layer}.{kind}"] = runtime.empty(shape)
        self._bindings: OrderedDict[tuple[Any, int, int, int], _Binding] = OrderedDict()

    def run(
        self, chunks: Mapping[int, np.ndarray], num_frames: Mapping[int, int]
    ) -> dict[int, list[np.ndarray]]:
        """Results of each slot's next frames, in the shapes of the ports with batch 1.

        An error leaves every stream as it was.
        """
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
        binding.run(self._runtime.on_gpu)
        return {slot: binding.row(slot - first, num_frames[slot]) for slot in slots}

    def _binding(self, first: int, count: int, frames: int) -> "_Binding":
        key = (self._session_for(count * frames), first, count, frames)
        if key not in self._bindings:
            self._bindings[key] = self._bind(*key)
        self._bindings.move_to_end(key)
        while len(self._bindings) > _MOST_BINDINGS:
            self._bindings.popitem(last=False)
        return self._bindings[key]

    def _bind(self, session: Any, first: int, count: int, frames: int) -> "_Binding":
        binding = _Binding(session, self._given, self._results, count, frames)
        binding.share("positions", self.positions[first : first + count])
        place = ("cuda", self._runtime.device_id) if self._runtime.on_gpu else ("cpu", 0)
        for name, ring in self._rings.items():
            shape = ring.shape()
            address = ring.data_ptr() + first * 4 * int(np.prod(shape[1:]))
            where = (*place, np.float32, [count, *shape[1:]], address)
            binding.io.bind_input(f"past_key_values.{name}", *where)
            binding.io.bind_output(f"present.{name}", *where)
        return binding

    def reset(self, slots: Sequence[int]) -> None:
        """Start these slots' streams afresh: what their rings hold is never seen again."""
        self.positions[list(slots)] = 0

    def copy_slot(self, source: int, target: int) -> None:
        """Make the stream in slot ``target`` a copy of the one in ``source``."""
        self.positions[target] = self.positions[source]
        for ring in self._rings.values():
            values = ring.numpy()
            values[target] = values[source]
            if self._runtime.on_gpu:
                ring.update_inplace(values)

    def num_bytes(self) -> int:
        """Memory of all streams."""
        rings = sum(4 * int(np.prod(ring.shape())) for ring in self._rings.values())
        return int(rings + self.positions.nbytes)

    def to_tensors(self) -> dict[str, np.ndarray]:
        """The memory of all streams, by name."""
        return {"positions": self.positions} | {
            name: ring.numpy() for name, ring in self._rings.items()
        }

    def load_tensors(self, tensors: Mapping[str, np.ndarray]) -> None:
        """Take over what `to_tensors` gave.

        Raises:
            InputError: names, shapes or types are not this state's; nothing is changed then.
        """
        if _description(tensors) != _description(self.to_tensors()):
            raise InputError(
                "the saved streams are of another model, precision, number of slots or chunk "
                "length; restore them into a session made in the same way"
            )
        self.positions[:] = tensors["positions"]
        for name, ring in self._rings.items():
            ring.update_inplace(np.ascontiguousarray(tensors[name]))


class _Binding:
    """Inputs and outputs of one shape, bound to memory that stays where it is."""

    def __init__(
        self, session: Any, given: Port, results: Sequence[Port], batch: int, frames: int
    ) -> None:
        self._session = session
        self.io = session.io_binding()
        self._rows_axis = given.shape.index("batch")
        self._ports = list(results)
        self._inputs: dict[str, np.ndarray] = {}
        self._given = np.zeros(given.shape_for(batch, frames), given.dtype)
        self._active = np.zeros((batch, frames), bool)
        self._results = [np.empty(port.shape_for(batch, frames), port.dtype) for port in results]
        self.share(given.name, self._given)
        self.share("active", self._active)
        for port, array in zip(self._ports, self._results, strict=True):
            self.io.bind_output(port.name, "cpu", 0, *_place(array))
        self._following = np.empty(batch, np.int64)
        self.io.bind_output("next_positions", "cpu", 0, *_place(self._following))

    def share(self, name: str, array: np.ndarray) -> None:
        """Let the graph read an array as it is at the time of each run."""
        self._inputs[name] = array
        self.io.bind_input(name, "cpu", 0, *_place(array))

    def clear(self) -> None:
        """Rows without anything to do."""
        self._given.fill(0)
        self._active.fill(0)

    def fill(self, row: int, chunk: np.ndarray, frames: int) -> None:
        """What a row is to do."""
        target = np.moveaxis(self._given, self._rows_axis, 0)[row]
        target[len(chunk) :] = -1  # layers of codes that are not given
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
            np.moveaxis(array, port.shape.index("batch"), 0)[row][
                ..., : frames * port.per_frame
            ].copy()
            for port, array in zip(self._ports, self._results, strict=True)
        ]


def _place(array: np.ndarray) -> tuple[Any, ...]:
    """Type, shape and address, as onnxruntime binds them."""
    return array.dtype.type, array.shape, array.ctypes.data


def _description(tensors: Mapping[str, np.ndarray]) -> dict[str, tuple[object, ...]]:
    return {name: (*tensor.shape, tensor.dtype.str) for name, tensor in tensors.items()}


def near_runs(slots: Sequence[int], gap: int = 2) -> list[list[int]]:
    """Ascending slots in groups whose neighbours are at most ``gap`` apart.

    A slot in between is computed with them and left as it is, which costs less than another run.
    """
    runs: list[list[int]] = []
    for slot in slots:
        if runs and slot - runs[-1][-1] <= gap:
            runs[-1].append(slot)
        else:
            runs.append([slot])
    return runs
