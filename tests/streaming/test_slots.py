"""Slots: the lowest free place, and no way to mistake one stream for another."""

import pytest

from moss_audio_tokenizer.errors import InputError, SlotsFull, StreamFileError
from moss_audio_tokenizer.streaming.sessions import Slot, SlotTable, saved_slots


def test_the_lowest_free_place_is_used_again():
    table = SlotTable(4)
    slots = [table.open() for _ in range(4)]
    assert [slot.index for slot in slots] == [0, 1, 2, 3]
    for row in (2, 0):
        table.close(slots[row])
    assert [table.open().index for _ in range(2)] == [0, 2]
    assert len(table) == 4
    assert [slot.index for slot in table.open_slots()] == [0, 1, 2, 3]


def test_full_tables_say_what_to_do():
    table = SlotTable(2)
    slots = [table.open(), table.open()]
    with pytest.raises(SlotsFull, match=r"all 2 slots are taken; close one, or .*max_slots"):
        table.open()
    table.close(slots[1])
    assert table.open().index == 1


def test_closed_slots_are_good_for_nothing():
    table = SlotTable(1)
    former = table.open()
    table.close(former)
    for _ in range(2):
        with pytest.raises(InputError, match="not open in this session"):
            table.require(former)
        with pytest.raises(InputError, match="not open in this session"):
            table.close(former)
        current = table.open()  # at the same place
        assert current.index == former.index
        assert table.require(current) is current
        table.close(current)


def test_slots_of_other_tables_are_refused():
    ours, theirs = SlotTable(2), SlotTable(2)
    slot, stranger = ours.open(), theirs.open()
    with pytest.raises(InputError, match="not open in this session"):
        ours.require(stranger)
    assert ours.require(slot) is slot


@pytest.mark.parametrize("value", [0, None, "0", (0, 0), [], 1.5])
def test_what_is_no_slot_is_refused(value):
    table = SlotTable(1)
    table.open()
    with pytest.raises(InputError, match=r"expected a slot that this session's open\(\) returned"):
        table.require(value)


def test_restored_slots_and_later_ones_differ():
    table = SlotTable(3)
    before = [table.open(), table.open()]
    table.close(before[0])
    kept = table.open_slots()
    after = table.open()
    table.restore(kept)
    assert table.open_slots() == kept
    with pytest.raises(InputError):
        table.require(after)  # opened since: the table that was saved knew nothing of it
    assert table.open() not in [*before, after]


def test_tables_go_on_from_the_slots_of_another():
    saved = [Slot(2, 7, "another"), Slot(0, 3, "another")]
    table = SlotTable(3)
    table.restore(saved)
    assert table.open_slots() == sorted(saved)
    assert table.require(saved[0]) == saved[0]
    assert table.open().index == 1


def test_slots_from_files():
    assert saved_slots('[[1, 5, "a"], [0, 6, "a"]]', 2, "x") == [Slot(1, 5, "a"), Slot(0, 6, "a")]
    assert saved_slots("[]", 2, "x") == []


@pytest.mark.parametrize(
    "text",
    [
        *("", "nonsense", "3", "null", "[0]", "[[0]]", "[[0, 1]]", '[["a", 0, "b"]]'),
        *('[[Infinity, 0, "a"]]', '[[NaN, 0, "a"]]', "[" * 100_000),  # JSON, as Python reads it
        *('[[-1, 0, "a"]]', '[[2, 0, "a"]]', '[[0, 0, "a"], [0, 1, "a"]]'),
    ],
)
def test_slots_that_cannot_be(text):
    with pytest.raises(StreamFileError, match="slots"):
        saved_slots(text, 2, "streams.safetensors")
