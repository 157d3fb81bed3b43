"""Streams behind calls with batches: the rows of successive calls are the same streams, in order.

In a `ContinuousBatch` rows join at the tail and leave when they are finalized; those that stay keep
their order. `StreamRows` has as many rows in every call. Sessions hold the streams.
"""

from collections.abc import Callable, Sequence
from typing import Any

from ..errors import InputError
from ..streaming import DecoderStream, EncoderStream, Slot
from ..streaming.engine import Array
from .validation import require_count, require_indices

# Longer chunks are worked through in steps of so many frames.
_FRAMES_A_STEP = 8


class ContinuousBatch:
    """Calls with a list of chunks, one for each row.

    Args:
        stream: an empty session; its slots are the most rows that there can be.
    """

    def __init__(self, stream: DecoderStream | EncoderStream) -> None:
        self._stream = stream
        self._rows: list[Slot] = []

    @property
    def max_rows(self) -> int:
        """Rows for which there is room."""
        return self._stream.max_slots

    def step(self, chunks: Sequence[Array], finalize: Sequence[int] = ()) -> list[Array]:
        """Advance every row; more chunks than rows admit new ones at the tail.

        Args:
            chunks: the next chunk of each row, in order.
            finalize: rows, counted before this call, that end with this chunk and then leave.
                An encoder's row gives the codes of its unfinished frame too.

        Raises:
            InputError: too few chunks, too many, or a row to finalize that is not there; no
                stream has moved then, and none was admitted.
        """
        self._check(len(chunks), finalize)
        admitted = [self._stream.open() for _ in chunks[len(self._rows) :]]
        rows = self._rows + admitted
        try:
            results = self._stream.step(dict(zip(rows, chunks, strict=True)))
        except BaseException:  # an interrupt too: else those slots would stay taken
            for slot in admitted:
                self._stream.close(slot)
            raise
        self._rows = [slot for index, slot in enumerate(rows) if index not in set(finalize)]
        return [self._result(slot, results[slot]) for slot in rows]

    def _result(self, slot: Slot, result: Array) -> Array:
        if slot in self._rows:
            return result
        return self._stream.engine.join_results([result, self._stream.close(slot)])

    def _check(self, count: int, finalize: Sequence[int]) -> None:
        if count < len(self._rows):
            raise InputError(
                f"got {count} rows, but {len(self._rows)} streams are open: pass a chunk for each, "
                "and name those that end in finalize_indices in the call with their last chunk"
            )
        if count > self.max_rows:
            raise InputError(
                f"got {count} rows, but {self.max_rows} slots were reserved by the first call: "
                "finalize some rows first, or start afresh with reset_stream=True and a larger "
                "max_batch_size"
            )
        wrong = [index for index in finalize if not 0 <= index < count]
        if wrong or len(set(finalize)) < len(finalize):
            raise InputError(
                f"finalize_indices is {list(finalize)}; expected different rows of 0 to {count - 1}"
            )


def advance_batch(
    batches: dict[str, ContinuousBatch],
    verb: str,
    make: Callable[[int, int], DecoderStream | EncoderStream],
    chunks: list[Any],
    max_batch_size: int | None,
    finalize_indices: Any,
    reset_stream: bool,
) -> list[Array]:
    """Advance the batch of a verb, as `ContinuousBatch.step` does.

    A first call (or one that resets) reserves ``max_batch_size`` rows of a session that
    ``make`` makes. An error leaves the batches as they were.
    """
    finalize = require_indices(finalize_indices, "finalize_indices")
    batch = None if reset_stream else batches.get(verb)
    if max_batch_size is not None:
        max_batch_size = require_count(max_batch_size, "max_batch_size")
    if batch is None:
        batch = ContinuousBatch(make(max_batch_size or len(chunks), _FRAMES_A_STEP))
    elif max_batch_size not in (None, batch.max_rows):
        raise InputError(
            f"max_batch_size is {max_batch_size}, but the first call reserved "
            f"{batch.max_rows} rows; leave it out, or start afresh with reset_stream=True"
        )
    results = batch.step(chunks, finalize)
    batches[verb] = batch
    return results


class StreamRows:
    """The streams of one ``streaming`` block: a slot for each row of a batch, in order."""

    def __init__(self, batch_size: int) -> None:
        self.active = [True] * batch_size
        self._sessions: dict[str, tuple[DecoderStream | EncoderStream, list[Slot]]] = {}

    def step(self, verb: str, make: Any, chunks: list[Array]) -> list[Array]:
        """Advance the active rows by their chunks; the others give nothing and stand still."""
        if len(chunks) != len(self.active):
            raise InputError(
                f"got {len(chunks)} rows inside streaming(batch_size={len(self.active)}); expected "
                f"{len(self.active)}: open the block with another batch_size"
            )
        if verb not in self._sessions:
            session = make(max_slots=len(self.active))
            self._sessions[verb] = (session, [session.open() for _ in self.active])
        session, slots = self._sessions[verb]
        rows = zip(slots, chunks, self.active, strict=True)
        found: dict[Slot, Array] = session.step(
            {slot: chunk for slot, chunk, active in rows if active}
        )
        nothing: Array = session.engine.join_results([])
        return [found.get(slot, nothing) for slot in slots]
