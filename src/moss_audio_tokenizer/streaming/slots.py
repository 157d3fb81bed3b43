"""Slots: which streams are open, and where in the engine's memory each of them lies."""

import json
import secrets
from collections.abc import Iterable
from dataclasses import dataclass

from ..errors import InputError, SlotsFull, StreamFileError


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
