"""The thread that owns the codec: it opens the codec, creates the sessions, and steps them.

Other threads pass streams and chunks to it. It steps all ready streams together, live streams
before whole files, and passes the results on. It knows no network and no event loop.
"""

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future

from ..codes import StreamingCodec
from ..codes.codec import CodecInfo
from ..errors import ServerError
from .batching import Chunk, QueuedStream, StepResult, StreamBatch, is_any_ready
from .metrics import Metrics
from .settings import GATHER_SECONDS, ServerSettings

_STOP_SECONDS = 5.0


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

    def num_open(self) -> dict[tuple[str, bool], int]:
        """Open slots of the sessions, by batch."""
        return {key: len(batch.session.open_slots) for key, batch in self._batches.items()}

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
            slots = settings.max_streams if is_live else settings.max_clips
            frames = settings.step_frames if is_live else settings.clip_step_frames
            owed = max(1, settings.max_ahead_seconds * info.frame_rate)
            # Results of a whole file are read as they come and never pause the file.
            shape = (frames, owed if is_live else float("inf"))
            encoder, decoder = (
                codec.encoder_stream(slots, frames),
                codec.decoder_stream(slots, frames),
            )
            batches["encode", is_live] = StreamBatch(
                "encode", is_live, encoder, info.downsample_rate, *shape
            )
            batches["decode", is_live] = StreamBatch("decode", is_live, decoder, 1, *shape)
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
                if is_any_ready(self._all()):
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
                self._metrics.made_frames(batch.name, result.num_frames)
                if batch.is_live:
                    self._metrics.answered(batch.name, waited, waited > self._frame_seconds)
        self._deliver(results)

    def _give_up(self) -> None:
        """End every stream with an error."""
        error = ServerError("the server stopped before this stream ended; open a new one")
        streams = [stream for batch in self._all() for stream in batch.streams]
        self._deliver([StepResult(s, error=error, is_last=True) for s in streams if not s.is_over])
