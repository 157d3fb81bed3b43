"""The asyncio face of the stepping thread: streams with back-pressure, admission, and draining.

Everything of a stream is released in one place, the end of the ``async with`` block that opened
it. Knows no protocol: chunks are arrays, and refusals are errors.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from ..codes.codec import CodecInfo
from ..errors import ServerBusy, ServerError
from .lanes import Chunk, Outcome, StreamingCodec
from .metrics import Metrics
from .settings import ServerSettings
from .stepping import Stepper

_LAST_WORDS_SECONDS = 2.0


class Stream:
    """One stream; made by `Streams.live` and `Streams.clip`.

    Attributes:
        ending: how it went, for the figures; whoever knows better may change it.
    """

    def __init__(self, stepper: Stepper, name: str, is_live: bool, max_waiting: float) -> None:
        self.ending = "aborted"
        self._stepper = stepper
        self._max_waiting = max_waiting
        self._outcomes: deque[Outcome] = deque()
        self._news = asyncio.Event()  # something came out, so there is room too
        self._room = asyncio.Event()
        self._queued = stepper.open(name, is_live, self._receive)

    def _receive(self, outcome: Outcome) -> None:
        self._outcomes.append(outcome)
        self._news.set()
        self._room.set()

    async def feed(self, chunk: Chunk) -> None:
        """Queue a chunk, once there is less waiting than may be."""
        while self._queued.num_waiting >= self._max_waiting and not self._queued.is_over:
            self._room.clear()
            await self._room.wait()
        self._stepper.put(self._queued, chunk)

    def finish(self) -> None:
        """Say that no more comes; the results end with what is still owed."""
        self._stepper.finish(self._queued)

    def fail(self, error: Exception) -> None:
        """End the results with an error."""
        self._receive(Outcome(self._queued, error=error, is_last=True))

    async def results(self) -> AsyncIterator[tuple[Any, int]]:
        """Codes or audio as they come, with their number of frames, to the end of the stream.

        A result counts as taken once the next is asked for; a stream with too many untaken
        results pauses.

        Raises:
            InputError: what was fed cannot be used.
            ServerError: the stream was broken off.
        """
        while True:
            while not self._outcomes:
                self._news.clear()
                await self._news.wait()
            outcome = self._outcomes.popleft()
            if outcome.error is not None:
                raise outcome.error
            if outcome.is_last:
                self.ending = "finished"
                return
            yield outcome.result, outcome.num_frames
            self._stepper.taken(self._queued, outcome.num_frames)

    def release(self) -> None:
        """Free the slot and whatever is queued."""
        self._stepper.release(self._queued)
        self._outcomes.clear()
        self._room.set()


class Streams:
    """All streams of a server.

    Args:
        open_codec: opens the codec, on the stepping thread.
        settings: limits.
        metrics: is told of what happens.
    """

    def __init__(
        self, open_codec: Callable[[], StreamingCodec], settings: ServerSettings, metrics: Metrics
    ) -> None:
        self.settings = settings
        self.metrics = metrics
        self.is_draining = False
        self._live: set[Stream] = set()
        self.num_clips = 0
        self._stepper = Stepper(open_codec, settings, metrics, self._deliver)
        self._info: CodecInfo | None = None

    async def start(self) -> None:
        """Start to open the codec; `opened` waits for it."""
        self._loop = asyncio.get_running_loop()
        limit = self.settings.max_clips
        self._clip_slots = {name: asyncio.Semaphore(limit) for name in ("encode", "decode")}
        self._stepper.start()

    async def opened(self) -> CodecInfo:
        """Wait until the codec is there.

        Raises:
            MossAudioError, OSError: what opening it raised.
        """
        # Shielded: who gives up waiting must not cancel the opening for others.
        self._info = await asyncio.shield(asyncio.wrap_future(self._stepper.opened))
        return self._info

    @property
    def info(self) -> CodecInfo:
        """What the codec is.

        Raises:
            ServerBusy: it is still being opened.
        """
        if self._info is None:
            raise ServerBusy("the model is still being loaded; try again in some seconds")
        return self._info

    @property
    def is_healthy(self) -> bool:
        """Whether the stepping thread lives."""
        return self._stepper.is_running

    @property
    def is_ready(self) -> bool:
        """Whether new work is welcome."""
        return self._info is not None and self.is_healthy and not self.is_draining

    @property
    def num_live(self) -> int:
        """Live streams."""
        return len(self._live)

    def num_slots(self) -> int:
        """Slots that the sessions themselves hold open; equals the streams when all is idle."""
        return sum(self._stepper.num_open().values())

    def waiting_frames(self) -> float:
        """See `Stepper.waiting_frames`."""
        return self._stepper.waiting_frames()

    def num_bytes(self) -> int:
        """See `Stepper.num_bytes`."""
        return self._stepper.num_bytes()

    @asynccontextmanager
    async def live(self, name: str) -> AsyncIterator[Stream]:
        """A live stream of "encode" or "decode".

        Raises:
            ServerBusy: there are as many as there may be, or the server is about to stop.
        """
        self._require_open()
        if len(self._live) >= self.settings.max_streams:
            raise ServerBusy(
                f"all {self.settings.max_streams} streams are taken; try again when one has ended"
            )
        async with self._open(name, "live") as stream:
            yield stream

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """A place among whole files, from the first byte of a request to the last of its answer.

        Raises:
            ServerBusy: too many have one, or the server is about to stop.
        """
        self._require_open()
        if self.num_clips >= self.settings.max_clips + self.settings.max_waiting_clips:
            raise ServerBusy(f"{self.num_clips} files are worked on or wait; try again later")
        self.num_clips += 1
        try:
            yield
        finally:
            self.num_clips -= 1

    @asynccontextmanager
    async def clip(self, name: str) -> AsyncIterator[Stream]:
        """A stream for a whole file, once there is a slot."""
        async with self._clip_slots[name], self._open(name, "file") as stream:
            yield stream

    @asynccontextmanager
    async def _open(self, name: str, kind: str) -> AsyncIterator[Stream]:
        stream = Stream(self._stepper, name, kind == "live", self._max_waiting(name))
        if kind == "live":
            self._live.add(stream)
        self.metrics.opened(name, kind)
        try:
            yield stream
        finally:
            self._live.discard(stream)
            stream.release()
            self.metrics.closed(name, kind, stream.ending)

    def _max_waiting(self, name: str) -> float:
        rate = self.info.sampling_rate if name == "encode" else self.info.frame_rate
        return max(1.0, self.settings.max_ahead_seconds * rate)

    def _require_open(self) -> None:
        if self.is_draining:
            raise ServerBusy("the server is about to stop; try another, or this one later")
        if not self.is_healthy:
            raise ServerBusy("the server has stopped stepping; it must be started again")
        _ = self.info

    async def drain(self) -> None:
        """Refuse what is new and wait for live streams to end, but not for ever."""
        self.is_draining = True
        deadline = self._loop.time() + self.settings.drain_seconds
        while (self._live or self.num_clips) and self._loop.time() < deadline:
            await asyncio.sleep(0.02)
        for stream in self._live:
            stream.ending = "drained"
            stream.fail(ServerError("the server stops now; open the stream again elsewhere"))
        # Their last words may be stuck behind a client that takes nothing: not for ever.
        while self._live and self._loop.time() < deadline + _LAST_WORDS_SECONDS:
            await asyncio.sleep(0.02)

    async def stop(self) -> None:
        """Stop the stepping thread."""
        await asyncio.to_thread(self._stepper.stop)

    def _deliver(self, outcomes: list[Outcome]) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(_hand_out, outcomes)


def _hand_out(outcomes: list[Outcome]) -> None:
    for outcome in outcomes:
        outcome.stream.receive(outcome)
