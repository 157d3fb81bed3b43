"""The one thread that owns the model: it opens the codec, makes the sessions, and steps them.

Others hand it streams and chunks; it groups what is ready into one step, live streams before
whole files, and hands on what came out. It knows no network and no event loop.
"""

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future

from ..codes.codec import CodecInfo
from ..errors import ServerError
from .lanes import Chunk, Lane, Outcome, QueuedStream, StreamingCodec, is_any_ready
from .metrics import Metrics
from .settings import ServerSettings

_STOP_SECONDS = 5.0


class Stepper:
    """Runs sessions on a thread of its own.

    Args:
        open_codec: opens the codec; called on that thread, so that what it sets there holds.
        settings: limits and the shape of batches.
        metrics: is told of every step.
        deliver: is called on that thread with what a step gave.
    """

    def __init__(
        self,
        open_codec: Callable[[], StreamingCodec],
        settings: ServerSettings,
        metrics: Metrics,
        deliver: Callable[[list[Outcome]], None],
    ) -> None:
        self.opened: Future[CodecInfo] = Future()
        self._open_codec = open_codec
        self._settings = settings
        self._metrics = metrics
        self._deliver = deliver
        self._changed = threading.Condition()
        self._changes: deque[Callable[[], None]] = deque()
        self._lanes: dict[tuple[str, bool], Lane] = {}
        self._is_stopping = False
        self._clips_stepped = 0.0
        self._thread = threading.Thread(target=self._run, name="stepping", daemon=True)

    def start(self) -> None:
        """Start the thread; `opened` tells when the codec is there."""
        self._thread.start()

    def stop(self) -> None:
        """Let the thread end after the step it is in; one that still loads is not waited for."""
        with self._changed:
            self._is_stopping = True
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join(_STOP_SECONDS)

    @property
    def is_running(self) -> bool:
        """Whether it steps, or will as soon as the codec is open."""
        return self._thread.is_alive() and not self._is_stopping

    def open(self, name: str, is_live: bool, receive: Callable[[Outcome], None]) -> QueuedStream:
        """A new stream in the lane "encode" or "decode"; its slot is taken before its first step.

        Whoever calls sees to it that there are never more streams than slots.
        """
        stream = QueuedStream(self._lanes[name, is_live], receive)
        self._change(lambda: stream.lane.admit(stream))
        return stream

    def release(self, stream: QueuedStream) -> None:
        """Let a stream go, whatever state it is in; its slot is free for the next `open`."""
        stream.is_over = True
        self._change(lambda: stream.lane.dismiss(stream))

    def put(self, stream: QueuedStream, chunk: Chunk) -> None:
        """Queue a chunk of a stream."""
        with self._changed:
            stream.put(chunk, time.monotonic())
            self._changed.notify()

    def finish(self, stream: QueuedStream) -> None:
        """Say that no more chunks come."""
        with self._changed:
            stream.is_finished = True
            self._changed.notify()

    def taken(self, stream: QueuedStream, num_frames: int) -> None:
        """Say that a client has taken so many frames of what it was owed."""
        with self._changed:
            stream.num_owed -= num_frames
            self._changed.notify()

    def num_open(self) -> dict[tuple[str, bool], int]:
        """Open slots of the sessions themselves, by lane."""
        return {place: len(lane.session.open_slots) for place, lane in self._lanes.items()}

    def waiting_frames(self) -> float:
        """Frames that wait for a step."""
        with self._changed:
            return sum(s.num_waiting / lane.unit for lane in self._all() for s in lane.streams)

    def num_bytes(self) -> int:
        """Memory of all slots; set aside at the start."""
        return sum(lane.session.engine.num_bytes() for lane in self._all())

    def _all(self) -> list[Lane]:
        return list(self._lanes.values())

    def _change(self, change: Callable[[], None]) -> None:
        with self._changed:
            self._changes.append(change)
            self._changed.notify()

    def _run(self) -> None:
        try:
            codec = self._open_codec()
            self._lanes = self._make_lanes(codec)
        except Exception as problem:
            self.opened.set_exception(problem)
            return
        self.opened.set_result(codec.info)
        try:
            while self._wait_for_work():
                self._step()
        finally:
            self._give_up()

    def _make_lanes(self, codec: StreamingCodec) -> dict[tuple[str, bool], Lane]:
        settings, info = self._settings, codec.info
        lanes = {}
        for is_live in (True, False):
            slots = settings.max_streams if is_live else settings.max_clips
            frames = settings.step_frames if is_live else settings.clip_step_frames
            owed = max(1, settings.max_ahead_seconds * info.frame_rate)
            # A whole file's results are taken at once, and must not wait for a reader.
            shape = (frames, owed if is_live else float("inf"))
            encoder, decoder = (
                codec.encoder_stream(slots, frames),
                codec.decoder_stream(slots, frames),
            )
            lanes["encode", is_live] = Lane(
                "encode", is_live, encoder, info.downsample_rate, *shape
            )
            lanes["decode", is_live] = Lane("decode", is_live, decoder, 1, *shape)
        self._frame_seconds = 1 / info.frame_rate
        return lanes

    def _wait_for_work(self) -> bool:
        """Sleep until a stream is ready, and a moment longer if it is the first; False to end."""
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
            time.sleep(self._settings.gather_seconds)
        return True

    def _step(self) -> None:
        with self._changed:
            ready = [lane for lane in self._all() if lane.is_ready()]
        live = [lane for lane in ready if lane.is_live]
        overdue = time.monotonic() - self._clips_stepped > self._settings.clip_patience_seconds
        for lane in live:
            self._step_lane(lane)
        if not live or overdue:
            for lane in ready:
                if not lane.is_live:
                    self._step_lane(lane)
            self._clips_stepped = time.monotonic()

    def _step_lane(self, lane: Lane) -> None:
        start = time.monotonic()
        outcomes = lane.step(self._changed)
        now = time.monotonic()
        if num_streams := sum(outcome.num_frames > 0 for outcome in outcomes):
            self._metrics.stepped(lane.name, lane.is_live, now - start, num_streams)
        for outcome in outcomes:
            if outcome.num_frames:
                waited = outcome.stream.waited(outcome.num_frames, now, self._frame_seconds)
                self._metrics.made_frames(lane.name, outcome.num_frames)
                if lane.is_live:
                    self._metrics.answered(lane.name, waited, waited > self._frame_seconds)
        self._deliver(outcomes)

    def _give_up(self) -> None:
        """Tell every stream that there will be no more."""
        error = ServerError("the server stopped before this stream ended; open it anew")
        streams = [stream for lane in self._all() for stream in lane.streams]
        self._deliver([Outcome(s, error=error, is_last=True) for s in streams if not s.is_over])
