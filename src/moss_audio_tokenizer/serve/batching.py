"""Continuous batching: streams that share one session, and the thread that steps them.

Owns the queue of each stream, the rule by which a stream joins the next step, the isolation of a
stream that fails, and the thread that owns the codec. All ready streams are stepped together, live
streams before whole files. Knows no network and no event loop.
"""

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Shaped

from ..codes import StreamingCodec
from ..codes.codec import CodecInfo
from ..errors import InputError, ServerError
from ..streaming import DecoderStream, EncoderStream, Slot
from .metrics import Metrics
from .settings import GATHER_SECONDS, ServerSettings

_STOP_SECONDS = 5.0
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


@dataclass(eq=False)
class StreamBatch:
    """One session and the streams that occupy its batch slots.

    Attributes:
        name: "encode" or "decode".
        is_live: Whether the streams are live; otherwise they are whole files.
        session: The streaming session that computes the steps.
        unit: Entries per frame: samples for an encoder, 1 for a decoder.
        step_frames: The largest number of frames of one stream in one step.
        max_owed_frames: A stream pauses when its client has left this many result frames unread.
        streams: The streams with a batch slot.
    """

    name: str
    is_live: bool
    session: EncoderStream | DecoderStream
    unit: int
    step_frames: int
    max_owed_frames: float
    streams: list[QueuedStream] = field(default_factory=list)

    def admit(self, stream: QueuedStream) -> None:
        """Assign a batch slot to a stream."""
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
        refused, good = [], {}
        for stream, chunk in batch.items():
            try:
                self.session.engine.check(chunk)
                good[stream] = chunk
            except InputError as problem:  # noqa: PERF203 - each is refused alone
                refused.append(StepResult(stream, error=problem, is_last=True))
        try:
            return refused + self._results(good)
        except Exception:
            # A failed step leaves every stream unchanged, so each is retried alone.
            return refused + [self._alone(stream, chunk) for stream, chunk in good.items()]

    def _alone(self, stream: QueuedStream, chunk: Chunk) -> StepResult:
        try:
            return self._results({stream: chunk})[0]
        except Exception as problem:
            error = ServerError(
                f"the model failed on this stream ({type(problem).__name__}); open a new stream"
            )
            error.__cause__ = problem
            return StepResult(stream, error=error, is_last=True)

    def _results(self, batch: dict[QueuedStream, Chunk]) -> list[StepResult]:
        slots = {stream.slot: stream for stream in batch if stream.slot is not None}
        results = self.session.step({slot: batch[stream] for slot, stream in slots.items()})
        return [
            StepResult(stream, np.asarray(results[slot]), batch[stream].shape[1] // self.unit)
            for slot, stream in slots.items()
        ]


class ModelThread:
    """Runs all sessions on one thread.

    Args:
        open_codec: Opens the codec. It runs on this thread, so thread-local settings hold.
        settings: The server's limits and batch sizes.
        metrics: Records every step.
        deliver: Called on this thread with the results of each step.
    """

    def __init__(
        self,
        open_codec: Callable[[], StreamingCodec],
        settings: ServerSettings,
        metrics: Metrics,
        deliver: Callable[[list[StepResult]], None],
    ) -> None:
        self.opened: Future[CodecInfo] = Future()
        self._open_codec = open_codec
        self._settings = settings
        self._metrics = metrics
        self._deliver = deliver
        self._changed = threading.Condition()
        self._changes: deque[Callable[[], None]] = deque()
        self._batches: dict[tuple[str, bool], StreamBatch] = {}
        self._is_stopping = False
        self._clips_stepped = 0.0
        self._thread = threading.Thread(target=self._run, name="stepping", daemon=True)

    def start(self) -> None:
        """Start the thread; the future `opened` resolves when the codec is open."""
        self._thread.start()

    def stop(self) -> None:
        """Stop the thread after its current step; does not wait for a codec that loads."""
        with self._changed:
            self._is_stopping = True
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join(_STOP_SECONDS)

    @property
    def is_running(self) -> bool:
        """Whether the thread steps, or will step once the codec is open."""
        return self._thread.is_alive() and not self._is_stopping

    def open(self, name: str, is_live: bool, receive: Callable[[StepResult], None]) -> QueuedStream:
        """Open a stream in the batch "encode" or "decode"; it gets its slot before its first step.

        The caller must never open more streams than there are slots.
        """
        stream = QueuedStream(self._batches[name, is_live], receive)
        self._change(lambda: stream.batch.admit(stream))
        return stream

    def release(self, stream: QueuedStream) -> None:
        """Close a stream in any state; its slot is free for the next `open`."""
        stream.is_over = True
        self._change(lambda: stream.batch.dismiss(stream))

    def put(self, stream: QueuedStream, chunk: Chunk) -> None:
        """Queue a chunk of a stream."""
        with self._changed:
            stream.put(chunk, time.monotonic())
            self._changed.notify()

    def finish(self, stream: QueuedStream) -> None:
        """Mark the end of a stream's input."""
        with self._changed:
            stream.is_finished = True
            self._changed.notify()

    def taken(self, stream: QueuedStream, num_frames: int) -> None:
        """Record that a client has read this many frames of its results."""
        with self._changed:
            stream.num_owed -= num_frames
            self._changed.notify()

    def num_slots(self) -> int:
        """Open slots of the sessions; 0 when nothing is streamed."""
        return sum(len(batch.session.open_slots) for batch in self._all())

    def waiting_frames(self) -> float:
        """Frames that wait for a step."""
        with self._changed:
            return sum(s.num_waiting / batch.unit for batch in self._all() for s in batch.streams)

    def num_bytes(self) -> int:
        """Memory of all slots in bytes; allocated at the start."""
        return sum(batch.session.engine.num_bytes() for batch in self._all())

    def _all(self) -> list[StreamBatch]:
        return list(self._batches.values())

    def _change(self, change: Callable[[], None]) -> None:
        with self._changed:
            self._changes.append(change)
            self._changed.notify()

    def _run(self) -> None:
        try:
            codec = self._open_codec()
            self._batches = self._make_batches(codec)
        except Exception as problem:
            self.opened.set_exception(problem)
            return
        self.opened.set_result(codec.info)
        try:
            while self._wait_for_work():
                self._step()
        finally:
            self._give_up()

    def _make_batches(self, codec: StreamingCodec) -> dict[tuple[str, bool], StreamBatch]:
        settings, info = self._settings, codec.info
        batches = {}
        for is_live in (True, False):
            size = (settings.max_clips, settings.clip_step_frames)
            owed = float("inf")  # results of a whole file are read as they come
            if is_live:
                size = (settings.max_streams, settings.step_frames)
                owed = max(1, settings.max_ahead_seconds * info.frame_rate)
            sessions: Any = codec.encoder_stream(*size), codec.decoder_stream(*size)
            units = info.downsample_rate, 1
            for name, session, unit in zip(("encode", "decode"), sessions, units, strict=True):
                batches[name, is_live] = StreamBatch(name, is_live, session, unit, size[1], owed)
        self._frame_seconds = 1 / info.frame_rate
        return batches

    def _wait_for_work(self) -> bool:
        """Sleep until a stream is ready, then wait shortly for others to join; False to end."""
        waited = False
        with self._changed:
            while True:
                while self._changes:
                    self._changes.popleft()()
                if self._is_stopping:
                    return False
                if any(batch.is_ready() for batch in self._all()):
                    break
                waited = True
                self._changed.wait()
        if waited:
            time.sleep(GATHER_SECONDS)
        return True

    def _step(self) -> None:
        with self._changed:
            ready = [batch for batch in self._all() if batch.is_ready()]
        live = [batch for batch in ready if batch.is_live]
        overdue = time.monotonic() - self._clips_stepped > self._settings.clip_patience_seconds
        limit_of = self._short_steps() if live else None
        for batch in live:
            self._step_batch(batch, limit_of)
        if not live or overdue:
            for batch in ready:
                if not batch.is_live:
                    self._step_batch(batch)
            self._clips_stepped = time.monotonic()

    def _short_steps(self) -> Callable[[QueuedStream], int] | None:
        """Limits of the next step where live streams of real time meet others ahead of it.

        Those ahead take one frame each: fed faster than real time, they must not delay the rest.
        """
        now = time.monotonic()
        with self._changed:
            streams = [s for batch in self._all() if batch.is_live for s in batch.streams]
            ahead = {s for s in streams if s.is_ahead(now, self._frame_seconds)}
        if not ahead or len(ahead) == len(streams):
            return None
        return lambda stream: 1 if stream in ahead else stream.batch.step_frames

    def _step_batch(
        self, batch: StreamBatch, limit_of: Callable[[QueuedStream], int] | None = None
    ) -> None:
        start = time.monotonic()
        results = batch.step(self._changed, limit_of)
        now = time.monotonic()
        if num_streams := sum(result.num_frames > 0 for result in results):
            self._metrics.stepped(batch.name, batch.is_live, now - start, num_streams)
        for result in results:
            if result.num_frames:
                waited = result.stream.waited(result.num_frames, now, self._frame_seconds)
                self._metrics.frames.labels(batch.name).inc(result.num_frames)
                if batch.is_live:
                    self._metrics.answered(batch.name, waited, waited > self._frame_seconds)
        self._deliver(results)

    def _give_up(self) -> None:
        """End every stream with an error."""
        error = ServerError("the server stopped before this stream ended; open a new one")
        streams = [stream for batch in self._all() for stream in batch.streams]
        self._deliver([StepResult(s, error=error, is_last=True) for s in streams if not s.is_over])
