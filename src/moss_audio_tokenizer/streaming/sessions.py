"""Sessions: streams that open, step together, pause as long as they like, and close.

A session belongs to one engine; any number of them can live beside each other on one model.
Not for several threads at once.
"""

import json
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

from ..errors import InputError, SlotsFull, StreamFileError
from ..files import atomic_path, require_file
from .engine import Array, StepEngine, read_stream_file, write_stream_file


@dataclass(frozen=True, order=True)
class Slot:
    """One open stream of a session; after `close` no call takes it.

    Attributes:
        index: its position in the engine's memory.
        generation: how many streams the session had opened before.
        session: the name of the session that opened it, so that no other takes it for its own.
    """

    index: int
    generation: int
    session: str


class SlotTable:
    """Hands out the lowest free position, so that open streams lie close together."""

    def __init__(self, num_slots: int) -> None:
        self.num_slots = num_slots
        self._open: dict[int, Slot] = {}
        self._opened = 0
        self._name = secrets.token_hex(8)

    def __len__(self) -> int:
        return len(self._open)

    def open_slots(self) -> list[Slot]:
        """The open slots, by position."""
        return [self._open[index] for index in sorted(self._open)]

    def open(self) -> Slot:
        """A new slot.

        Raises:
            SlotsFull: every slot is taken.
        """
        free = next((i for i in range(self.num_slots) if i not in self._open), None)
        if free is None:
            raise SlotsFull(
                f"all {self.num_slots} slots are taken; close one, or make the session with more "
                "(max_slots)"
            )
        slot = Slot(free, self._opened, self._name)
        self._open[free] = slot
        self._opened += 1
        return slot

    def close(self, slot: Slot) -> None:
        """Free a slot."""
        self.require(slot)
        del self._open[slot.index]

    def require(self, slot: object) -> Slot:
        """The slot, if it is open.

        Raises:
            InputError: it is not a slot of this session, or was closed.
        """
        if not isinstance(slot, Slot):
            raise InputError(f"got {slot!r}; expected a slot that this session's open() returned")
        if self._open.get(slot.index) != slot:
            raise InputError(f"{slot} is not open in this session; open() gives a new one")
        return slot

    def restore(self, slots: Iterable[Slot]) -> None:
        """Take over the open slots of a saved session."""
        self._open = {slot.index: slot for slot in slots}


def saved_slots(text: str, num_slots: int, path: object) -> list[Slot]:
    """The slots that a session's file says were open.

    Raises:
        StreamFileError: it says no such thing.
    """
    try:
        slots = [
            Slot(int(index), int(generation), str(name))
            for index, generation, name in json.loads(text)
        ]
    except (ValueError, TypeError, OverflowError, RecursionError) as problem:
        raise StreamFileError(f"{str(path)!r} does not say which slots were open") from problem
    if len({slot.index for slot in slots}) < len(slots) or not all(
        0 <= slot.index < num_slots for slot in slots
    ):
        raise StreamFileError(f"{str(path)!r} names slots that cannot be: {text}")
    return slots


class Session:
    """What encoder and decoder sessions have in common.

    Args:
        engine: does the computing; the session owns its slots.
    """

    def __init__(self, engine: StepEngine) -> None:
        self.engine = engine
        self._slots = SlotTable(engine.num_slots)
        # What waits, by slot index, for the rest of its frame: only audio does.
        self._pending: dict[int, Array] = {}

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Refuse copies and pickles: an engine has memory and graphs of its own process.

        Raises:
            InputError: always.
        """
        raise InputError(
            f"a {type(self).__name__} cannot be copied or pickled; fork(slot) copies a stream, and "
            "save(path) writes all of them for another session"
        )

    @property
    def max_slots(self) -> int:
        """Streams that can be open at once."""
        return self.engine.num_slots

    @property
    def open_slots(self) -> list[Slot]:
        """The slots that are open now."""
        return self._slots.open_slots()

    def open(self) -> Slot:
        """Start a stream.

        Raises:
            SlotsFull: every slot is taken.
        """
        slot = self._slots.open()
        self.engine.reset([slot.index])
        return slot

    def reset(self, slot: Slot) -> None:
        """Start the stream in an open slot afresh."""
        self.engine.reset([self._slots.require(slot).index])

    def fork(self, slot: Slot) -> Slot:
        """Open a stream that continues from where another stands, as a copy of it.

        Raises:
            SlotsFull: every slot is taken.
        """
        source = self._slots.require(slot)
        copy = self._slots.open()
        self.engine.copy_slot(source.index, copy.index)
        return copy

    def save(self, path: str | Path) -> None:
        """Write all streams to a safetensors file, whole or not at all.

        Raises:
            StreamFileError: the file cannot be written.
        """
        slots = [astuple(slot) for slot in self.open_slots]
        notes = {
            "session": type(self).__name__,
            "identity": self.engine.identity,
            "slots": json.dumps(slots),
        }
        pending = {str(i): chunk for i, chunk in self._pending.items()}
        memory = self.engine.to_arrays()
        tensors = prefixed("memory.", memory) | prefixed("pending.", pending)
        with atomic_path(path, error=StreamFileError, replace_folder=False) as beside:
            write_stream_file(beside, tensors, notes)

    def load(self, path: str | Path) -> list[Slot]:
        """Take over the streams of a saved session that was made in the same way.

        The slots that were open then are open now, and no others; they equal the saved ones.

        Raises:
            StreamFileError: the file is missing, damaged, or of another kind of session.
            InputError: it is of another model, precision, number of slots or chunk length.
        """
        require_file(path, error=StreamFileError)
        tensors, notes = read_stream_file(Path(path))
        if notes.get("session") != type(self).__name__:
            raise StreamFileError(f"{str(path)!r} holds no {type(self).__name__}")
        if notes.get("identity") != self.engine.identity:
            raise InputError(
                f"{str(path)!r} holds streams of another model, or of another precision; load it "
                "with that one"
            )
        slots = saved_slots(notes.get("slots", ""), self.max_slots, path)
        pending = self._checked_pending(without_prefix("pending.", tensors), slots, path)
        self.engine.load_arrays(without_prefix("memory.", tensors))
        self._slots.restore(slots)
        self._pending = pending
        return self.open_slots

    def _checked_pending(
        self, tensors: Mapping[str, Array], slots: Sequence[Slot], path: object
    ) -> dict[int, Array]:
        """Saved unfinished frames of the slots that were open, by slot index."""
        places = {str(slot.index): slot.index for slot in slots}
        unit = self.engine.samples_per_frame
        fitting = (name in places and 0 < c.shape[-1] < unit for name, c in tensors.items())
        if not all(fitting):
            raise StreamFileError(f"{str(path)!r} holds unfinished frames that cannot be")
        return {places[name]: self.engine.check(chunk) for name, chunk in tensors.items()}

    def _checked(self, chunks: Mapping[Slot, Array]) -> dict[int, Array]:
        """Chunks by slot index, all of them checked before any stream moves."""
        if not isinstance(chunks, Mapping):
            raise InputError(f"got {type(chunks).__name__}; expected a dict of slots to chunks")
        return {
            self._slots.require(slot).index: self.engine.check(chunk)
            for slot, chunk in chunks.items()
        }

    def _advance(self, chunks: dict[int, Array], unit: int) -> dict[int, Array]:
        """Step through chunks of whole frames (of ``unit`` entries), however long."""
        size = self.engine.max_chunk_frames * unit
        results: dict[int, list[Array]] = {index: [] for index in chunks}
        longest = max((chunk.shape[-1] for chunk in chunks.values()), default=0)
        for start in range(0, longest, size):
            part = {
                index: chunk[..., start : start + size]
                for index, chunk in chunks.items()
                if chunk.shape[-1] > start
            }
            for index, result in self.engine.step(part).items():
                results[index].append(result)
        return {index: self.engine.join_results(pieces) for index, pieces in results.items()}


def prefixed(prefix: str, tensors: Mapping[str, Array]) -> dict[str, Array]:
    """The same arrays under longer names."""
    return {prefix + name: tensor for name, tensor in tensors.items()}


def without_prefix(prefix: str, tensors: Mapping[str, Array]) -> dict[str, Array]:
    """The arrays whose names have the prefix, without it."""
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}


class DecoderStream(Session):
    """Streams of codes to audio."""

    def step(self, chunks: Mapping[Slot, Array]) -> dict[Slot, Array]:
        """The audio of each slot's next codes.

        Args:
            chunks: codes (num_quantizers, frames) of some open slots, of any lengths; the
                streams of absent slots stand still.

        Returns:
            Audio (channels, frames * downsample_rate) of each.

        Raises:
            CodesError, InputError: a chunk or a slot is wrong; no stream has moved then.
        """
        results = self._advance(self._checked(chunks), 1)
        return {slot: results[slot.index] for slot in chunks}

    def close(self, slot: Slot) -> Array:
        """Free a slot; the tail (channels, 0) is empty, for codes come in whole frames."""
        self._slots.close(slot)
        return self.engine.join_results([])


class EncoderStream(Session):
    """Streams of audio to codes.

    Args:
        engine: does the computing; the session owns its slots.
        pads_last_frame: whether `close` encodes an unfinished frame, zero-padded, or drops it.
    """

    def __init__(self, engine: StepEngine, pads_last_frame: bool = True) -> None:
        super().__init__(engine)
        self.pads_last_frame = pads_last_frame

    def open(self) -> Slot:
        """Start a stream; see `Session.open`."""
        slot = super().open()
        self._pending.pop(slot.index, None)
        return slot

    def reset(self, slot: Slot) -> None:
        """Start the stream in an open slot afresh, and drop its unfinished frame."""
        super().reset(slot)
        self._pending.pop(slot.index, None)

    def fork(self, slot: Slot) -> Slot:
        """Open a copy of a stream; see `Session.fork`."""
        copy = super().fork(slot)
        if slot.index in self._pending:
            self._pending[copy.index] = self.engine.join_chunks([self._pending[slot.index]])
        return copy

    def step(self, chunks: Mapping[Slot, Array]) -> dict[Slot, Array]:
        """The codes of the frames that each slot's next samples complete.

        Args:
            chunks: audio (channels, samples) or, for mono, (samples,) of some open slots, of
                any lengths; what does not fill a frame waits for the next call. The streams of
                absent slots stand still.

        Returns:
            Codes (num_quantizers, frames) of each; no frames if none was completed.

        Raises:
            AudioError, InputError: a chunk or a slot is wrong; no stream has moved then.
        """
        unit = self.engine.samples_per_frame
        joined = {
            index: self._with_pending(index, chunk)
            for index, chunk in self._checked(chunks).items()
        }
        whole = {index: chunk.shape[-1] // unit * unit for index, chunk in joined.items()}
        results = self._advance({i: chunk[..., : whole[i]] for i, chunk in joined.items()}, unit)
        for index, chunk in joined.items():
            if whole[index] < chunk.shape[-1]:
                self._pending[index] = self.engine.join_chunks([chunk[..., whole[index] :]])
            else:
                self._pending.pop(index, None)
        return {slot: results[slot.index] for slot in chunks}

    def _with_pending(self, index: int, chunk: Array) -> Array:
        pending = self._pending.get(index)
        if pending is None:
            return chunk
        return self.engine.join_chunks([pending, chunk])

    def close(self, slot: Slot) -> Array:
        """Free a slot; returns the codes of its unfinished frame, if that is encoded at all."""
        index = self._slots.require(slot).index
        tail = {}
        pending = self._pending.get(index)
        if pending is not None and self.pads_last_frame:
            tail = self.engine.step(
                {index: self.engine.pad(pending, self.engine.samples_per_frame)}
            )
        self._pending.pop(index, None)
        self._slots.close(slot)
        return tail.get(index, self.engine.join_results([]))
