"""Streams as asyncio sees them: back-pressure, admission, and draining.

Everything that a stream holds is released at the end of the ``async with`` block that opened it.
Knows no protocol: chunks are arrays, and refusals are errors.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar

from ..codes import StreamingCodec
from ..errors import ServerBusy
from .batching import Chunk, ModelThread, StepResult
from .metrics import Metrics
from .model_service import ModelService
from .settings import ServerSettings

_Result = TypeVar("_Result")


class Stream:
    """One stream; `Streams.live` and `Streams.clip` open it.

    Attributes:
        ending: How the stream ended, for the metrics.
    """

    def __init__(
        self, model_thread: ModelThread, name: str, is_live: bool, max_waiting: float
    ) -> None:
        self.ending = "aborted"
        self._model_thread = model_thread
        self._max_waiting = max_waiting
        self._results: deque[StepResult] = deque()
        self._has_results = asyncio.Event()  # a result frees room in the queue too
        self._has_room = asyncio.Event()
        self._queued = model_thread.open(name, is_live, self._receive)

    def _receive(self, result: StepResult) -> None:
        self._results.append(result)
        self._has_results.set()
        self._has_room.set()

    async def feed(self, chunk: Chunk) -> None:
        """Queue a chunk; waits while the queue is full."""
        while self._queued.num_waiting >= self._max_waiting and not self._queued.is_over:
            self._has_room.clear()
            await self._has_room.wait()
        self._model_thread.put(self._queued, chunk)

    def finish(self) -> None:
        """Mark the end of the input; the results end with the last frame."""
        self._model_thread.finish(self._queued)

    def fail(self, error: Exception) -> None:
        """End the results with an error."""
        self._receive(StepResult(self._queued, error=error, is_last=True))

    async def results(self) -> AsyncIterator[tuple[Any, int]]:
        """Iterate over codes or audio with their number of frames, to the end of the stream.

        A result counts as read when the next one is requested. A stream with too many unread
        results pauses.

        Raises:
            InputError: The input cannot be used.
            ServerError: The stream was broken off.
        """
        while True:
            while not self._results:
                self._has_results.clear()
                await self._has_results.wait()
            result = self._results.popleft()
            if result.error is not None:
                raise result.error
            if result.is_last:
                self.ending = "finished"
                return
            yield result.result, result.num_frames
            self._model_thread.taken(self._queued, result.num_frames)

    def release(self) -> None:
        """Free the slot and everything that is queued."""
        self._model_thread.release(self._queued)
        self._results.clear()
        self._has_room.set()


class Streams(ModelService):
    """All streams of a server.

    Args:
        open_codec: Opens the codec, on the model thread.
        settings: The server's limits.
        metrics: The server's counters.

    Attributes:
        num_clips: Whole files in progress or waiting.
        num_slots, num_bytes, waiting_frames: Functions of the `ModelThread`.
    """

    def __init__(
        self, open_codec: Callable[[], StreamingCodec], settings: ServerSettings, metrics: Metrics
    ) -> None:
        self._model_thread = ModelThread(open_codec, settings, metrics, self._deliver)
        super().__init__("model", self._model_thread.opened, settings, metrics)
        self.num_clips = 0
        self.num_slots = self._model_thread.num_slots
        self.num_bytes = self._model_thread.num_bytes
        self.waiting_frames = self._model_thread.waiting_frames

    def start(self) -> None:
        """Start to load the codec; `opened` waits for it."""
        self._loop = asyncio.get_running_loop()
        limit = self.settings.max_clips
        self._clip_slots = {name: asyncio.Semaphore(limit) for name in ("encode", "decode")}
        self._file_threads = ThreadPoolExecutor(2 * limit, thread_name_prefix="files")
        self._model_thread.start()

    async def in_thread(self, work: Callable[[], _Result]) -> _Result:
        """Run work on a file in a thread; does not return before the thread is done.

        A thread cannot be cancelled. If this returned earlier, the place of a client that left
        would be free while its file is still being read.
        """
        running = asyncio.ensure_future(self._loop.run_in_executor(self._file_threads, work))
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            while not running.done():
                with suppress(asyncio.CancelledError):
                    await asyncio.wait({running})
            if not running.cancelled():
                running.exception()  # marks it as retrieved
            raise

    @property
    def is_healthy(self) -> bool:
        """Whether the model thread is alive."""
        return self._model_thread.is_running

    @property
    def num_live(self) -> int:
        """The number of live streams."""
        return len(self._open_work)

    @asynccontextmanager
    async def live(self, name: str, client: str) -> AsyncIterator[Stream]:
        """Open a live stream of "encode" or "decode".

        Raises:
            ServerBusy: All streams are taken, or the server is about to stop.
        """
        self.require_open()
        if self.num_live >= self.settings.max_streams:
            raise ServerBusy(
                f"all {self.settings.max_streams} streams are taken; try again when one has ended"
            )
        most = self.settings.max_streams_a_client
        if most and self._held["stream", client] >= most:
            raise ServerBusy(f"this client has {most} streams; try again when one has ended")
        with self._counted("stream", client):
            async with self._open(name, "live") as stream:
                yield stream

    @asynccontextmanager
    async def turn(self, client: str) -> AsyncIterator[None]:
        """Count a request for a whole file, from its first byte to the end of the answer.

        Raises:
            ServerBusy: Too many files are queued, or the server is about to stop.
        """
        places = self.settings.max_clips + self.settings.max_waiting_clips
        with self._queued("files are in progress", client, self.num_clips, places):
            self.num_clips += 1
            try:
                yield
            finally:
                self.num_clips -= 1

    @asynccontextmanager
    async def clip(self, name: str) -> AsyncIterator[Stream]:
        """Open a stream for a whole file, once a slot is free."""
        async with self._clip_slots[name], self._open(name, "file") as stream:
            yield stream

    @asynccontextmanager
    async def _open(self, name: str, kind: str) -> AsyncIterator[Stream]:
        stream = Stream(self._model_thread, name, kind == "live", self._max_waiting(name))
        if kind == "live":
            self._open_work.add(stream)
        self.metrics.opened(name, kind)
        try:
            yield stream
        finally:
            self._open_work.discard(stream)
            stream.release()
            self.metrics.closed(name, kind, stream.ending)

    def _max_waiting(self, name: str) -> float:
        rate = self.info.sampling_rate if name == "encode" else self.info.frame_rate
        return max(1.0, self.settings.max_ahead_seconds * rate)

    def _is_busy(self) -> bool:
        return bool(self._open_work) or self.num_clips > 0

    async def stop(self) -> None:
        """Stop the model thread."""
        self._file_threads.shutdown(wait=False, cancel_futures=True)
        await asyncio.to_thread(self._model_thread.stop)

    def _deliver(self, results: list[StepResult]) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(_hand_out, results)


def _hand_out(results: list[StepResult]) -> None:
    for result in results:
        result.stream.receive(result)
