"""Continuous batching: streams that share one session, and their queued chunks.

Owns the queue of each stream, the rule by which a stream joins the next step, and the isolation of
a stream that fails. It starts no thread and knows no network; the caller holds the lock that guards
the queues.
"""

from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Shaped

from ..errors import InputError, ServerError
from ..streaming import DecoderStream, EncoderStream, Slot

Chunk = Shaped[np.ndarray, "rows entries"]


class QueuedStream:
    """The model's side of one stream: chunks that wait for a step, and results not yet taken.

    Entries are samples for an encoder and frames for a decoder.

    Args:
        batch: The batch that steps this stream.
        receive: Called with every `StepResult`, in order.
    """

    def __init__(self, batch: "StreamBatch", receive: "Callable[[StepResult], None]") -> None:
        self.batch = batch
        self.receive = receive
        self.slot: Slot | None = None
        self.num_waiting = 0  # entries
        self.num_owed = 0  # frames of results that the client has not read yet
        self.is_finished = False  # no more chunks come
        self.is_over = False  # no more results come
        self._num_put = 0
        self._num_frames = 0
        self._started = 0.0
        self._chunks: deque[Chunk] = deque()
        self._arrivals: deque[tuple[int, float]] = deque()

    def put(self, chunk: Chunk, now: float) -> None:
        """Queue a chunk."""
        if self._num_put == 0:
            self._started = now
        self._chunks.append(chunk)
        self._num_put += chunk.shape[1]
        self.num_waiting += chunk.shape[1]
        self._arrivals.append((self._num_put, now))

    @property
    def is_ready(self) -> bool:
        """Whether the next step can advance it: input waits, and its client reads the results."""
        if self.slot is None or self.is_over or self.num_owed >= self.batch.max_owed_frames:
            return False
        return self.num_waiting >= self.batch.unit or self.is_finished

    def is_ahead(self, now: float, frame_seconds: float) -> bool:
        """Whether its next frame is due only in more than two frames' time."""
        due = self._started + (self._num_frames - 2) * frame_seconds
        return self._num_put > 0 and due > now

    def take(self, max_frames: int) -> Chunk:
        """Remove the next whole frames; pads the last frame of a finished stream with zeros."""
        unit = self.batch.unit
        wanted = min(self.num_waiting, max_frames * unit)
        if wanted % unit and not (self.is_finished and wanted == self.num_waiting):
            wanted -= wanted % unit
        chunks = self._pop(wanted)
        self.num_waiting -= wanted
        if padding := -wanted % unit:
            chunks.append(np.zeros((chunks[0].shape[0], padding), chunks[0].dtype))
        return chunks[0] if len(chunks) == 1 else np.concatenate(chunks, axis=1)

    def _pop(self, wanted: int) -> list[Chunk]:
        chunks: list[Chunk] = []
        while wanted:
            chunk = self._chunks.popleft()
            if chunk.shape[1] > wanted:
                self._chunks.appendleft(chunk[:, wanted:])
                chunk = chunk[:, :wanted]
            chunks.append(chunk)
            wanted -= chunk.shape[1]
        return chunks

    def waited(self, num_frames: int, now: float, frame_seconds: float) -> float:
        """Latency in seconds of the first of these results.

        It counts from the arrival of the last input the result needs. Input that arrived ahead of
        real time counts as arriving in real time.
        """
        last = (self._num_frames + 1) * self.batch.unit
        while len(self._arrivals) > 1 and self._arrivals[0][0] < last:
            self._arrivals.popleft()
        possible = self._started + self._num_frames * frame_seconds
        self._num_frames += num_frames
        return max(0.0, now - max(possible, self._arrivals[0][1]))


@dataclass(frozen=True)
class StepResult:
    """What one step produced for one stream.

    Attributes:
        stream: The stream.
        result: Codes or audio, or None.
        num_frames: The number of frames in the result.
        error: The reason why the stream ends early, or None.
        is_last: Whether this is the stream's last result.
    """

    stream: QueuedStream
    result: Any = None
    num_frames: int = 0
    error: Exception | None = None
    is_last: bool = False


class StreamBatch:
    """One session and the streams that occupy its batch slots.

    Args:
        name: "encode" or "decode".
        is_live: Whether the streams are live; otherwise they are whole files.
        session: The streaming session that computes the steps.
        unit: Entries per frame: samples for an encoder, 1 for a decoder.
        step_frames: The largest number of frames of one stream in one step.
        max_owed_frames: A stream pauses when its client has left this many result frames unread.
    """

    def __init__(
        self,
        name: str,
        is_live: bool,
        session: EncoderStream | DecoderStream,
        unit: int,
        step_frames: int,
        max_owed_frames: float,
    ) -> None:
        self.name = name
        self.is_live = is_live
        self.session = session
        self.unit = unit
        self.step_frames = step_frames
        self.max_owed_frames = max_owed_frames
        self.streams: list[QueuedStream] = []

    def admit(self, stream: QueuedStream) -> None:
        """Assign a batch slot to a stream.

        Raises:
            SlotsFull: All slots are taken.
        """
        stream.slot = self.session.open()
        self.streams.append(stream)

    def dismiss(self, stream: QueuedStream) -> None:
        """Free the batch slot of a stream."""
        if stream.slot is not None:
            self.streams.remove(stream)
            self.session.close(stream.slot)
            stream.slot = None

    def is_ready(self) -> bool:
        """Whether any of its streams can advance."""
        return any(stream.is_ready for stream in self.streams)

    def step(
        self,
        lock: AbstractContextManager[Any],
        limit_of: "Callable[[QueuedStream], int] | None" = None,
    ) -> list[StepResult]:
        """Advance all ready streams in one step; holds the lock only around the queues.

        Args:
            lock: Guards the queues.
            limit_of: The largest number of frames of a stream; ``step_frames`` by default.
        """
        with lock:
            ready = [stream for stream in self.streams if stream.is_ready]
            # A finished stream without input gets its last result without a step.
            over = [stream for stream in ready if not stream.num_waiting]
            limits = {s: limit_of(s) if limit_of else self.step_frames for s in ready}
            batch = {s: s.take(limits[s]) for s in ready if s.num_waiting}
        results = [*self._advance(batch), *(StepResult(stream, is_last=True) for stream in over)]
        with lock:
            for result in results:
                result.stream.num_owed += result.num_frames
                result.stream.is_over |= result.is_last
        return results

    def _advance(self, batch: dict[QueuedStream, Chunk]) -> list[StepResult]:
        refused = {stream: problem for stream in batch if (problem := self._fault(batch[stream]))}
        good = {stream: chunk for stream, chunk in batch.items() if stream not in refused}
        results = [StepResult(s, error=problem, is_last=True) for s, problem in refused.items()]
        try:
            return results + self._results(good)
        except Exception:
            # A failed step leaves every stream unchanged, so each is retried alone.
            return results + [self._alone(stream, chunk) for stream, chunk in good.items()]

    def _alone(self, stream: QueuedStream, chunk: Chunk) -> StepResult:
        try:
            return self._results({stream: chunk})[0]
        except Exception as problem:
            error = ServerError(
                f"the model failed on this stream ({type(problem).__name__}); open a new stream"
            )
            error.__cause__ = problem
            return StepResult(stream, error=error, is_last=True)

    def _fault(self, chunk: Chunk) -> Exception | None:
        try:
            self.session.engine.check(chunk)
        except InputError as problem:
            return problem
        return None

    def _results(self, batch: dict[QueuedStream, Chunk]) -> list[StepResult]:
        slots = {stream.slot: stream for stream in batch if stream.slot is not None}
        results = self.session.step({slot: batch[stream] for slot, stream in slots.items()})
        return [
            StepResult(stream, np.asarray(results[slot]), batch[stream].shape[1] // self.unit)
            for slot, stream in slots.items()
        ]


def is_any_ready(batches: Sequence[StreamBatch]) -> bool:
    """Whether any stream of these batches can advance."""
    return any(batch.is_ready() for batch in batches)
