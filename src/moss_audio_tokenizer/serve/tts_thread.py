"""The thread that synthesizes speech, and its asyncio side: texts queue, audio arrives by frames.

One text at a time, so its frames are the same and arrive as early under any load. Audio waits in
memory for a slow client, so the next text need not wait for that client; the length of a speech
and the number of queued requests bound this memory. Knows no HTTP and no PyTorch: the synthesizer
is a protocol.
"""

import asyncio
import queue
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future
from contextlib import asynccontextmanager
from typing import Any, Protocol, TypeAlias

import numpy as np
from jaxtyping import Float

from ..codes.codec import Codec
from ..errors import MossAudioError, ServerBusy, ServerError
from .lifecycle import ModelService
from .metrics import Metrics
from .settings import ServerSettings

_STOP_SECONDS = 5.0
Samples: TypeAlias = Float[np.ndarray, " samples"]


class SpeechSynthesizer(Protocol):
    """A TTS model with its codec, as far as a server needs it."""

    @property
    def codec(self) -> Codec:
        """The codec that decodes the model's codes."""
        ...

    def stream(self, text: str, **options: Any) -> Iterator[Samples]:
        """Synthesize a text, a frame of samples at a time."""
        ...


class SpeechRequest:
    """One text to synthesize; `SpeechQueue.turn` creates it.

    Attributes:
        text: The text.
        options: Options of `SpeechSynthesizer.stream`.
        began: When the request arrived, by the monotonic clock.
        is_over: Whether no client waits for it any longer.
        ending: How it ended, for the metrics.
    """

    def __init__(self, queued: "queue.SimpleQueue[SpeechRequest | None]") -> None:
        self.text = ""
        self.options: dict[str, Any] = {}
        self.began = time.monotonic()
        self.is_over = False
        self.ending = "aborted"
        self._queued = queued
        self._chunks: deque[Samples | Exception | None] = deque()
        self._has_chunks = asyncio.Event()

    def say(self, text: str, **options: Any) -> None:
        """Queue the text; `next_chunk` returns its audio."""
        self.text, self.options = text, options
        self._queued.put(self)

    def receive(self, chunk: Samples | Exception | None) -> None:
        """Take a chunk, an error, or None for the end."""
        self._chunks.append(chunk)
        self._has_chunks.set()

    def fail(self, error: Exception) -> None:
        """End the speech with an error."""
        self.is_over = True
        self.receive(error)

    async def next_chunk(self) -> Samples | None:
        """Wait for the next chunk of audio; None at the end.

        Raises:
            InputError: The text or the options cannot be used.
            ServerError: The synthesizer failed, or the server stops.
        """
        while not self._chunks:
            self._has_chunks.clear()
            await self._has_chunks.wait()
        chunk = self._chunks.popleft()
        if isinstance(chunk, Exception):
            self.ending = "failed"
            raise chunk
        if chunk is None:
            self.ending = "finished"
        return chunk

    async def whole(self) -> list[Samples]:
        """All chunks; raises what `next_chunk` raises."""
        chunks = []
        while (chunk := await self.next_chunk()) is not None:
            chunks.append(chunk)
        return chunks


class SpeechQueue(ModelService):
    """All speech requests of a server.

    Args:
        open_synthesizer: Opens the TTS model, on the thread that runs it.
        settings: The server's limits.
        metrics: The server's counters.
    """

    def __init__(
        self,
        open_synthesizer: Callable[[], SpeechSynthesizer],
        settings: ServerSettings,
        metrics: Metrics,
    ) -> None:
        super().__init__("speech model", Future(), settings, metrics)
        self._open_synthesizer = open_synthesizer
        self._queue: queue.SimpleQueue[SpeechRequest | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="speech", daemon=True)

    def start(self) -> None:
        """Start to load the model; `opened` waits for it."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    @property
    def is_healthy(self) -> bool:
        """Whether the thread is alive."""
        return self._thread.is_alive()

    @property
    def num_requests(self) -> int:
        """Requests that are being read, wait, are synthesized, or sent."""
        return len(self._open_work)

    @asynccontextmanager
    async def turn(self, client: str) -> AsyncIterator[SpeechRequest]:
        """Admit a request, from its first byte to the end of the answer.

        Raises:
            ServerBusy: The queue is full, or the server is about to stop.
        """
        self.require_open()
        places = self.settings.max_waiting_speeches + 1
        if self.num_requests >= places:
            raise ServerBusy(f"{self.num_requests} texts are spoken or wait; try again later")
        request = SpeechRequest(self._queue)
        with self._place("speech", client, self.num_requests, places):
            self._open_work.add(request)
            try:
                yield request
            finally:
                self._open_work.discard(request)
                request.is_over = True
                self.metrics.ended_speech(request.ending)

    async def stop(self) -> None:
        """Stop the thread after its frame; does not wait for a model that is still loading."""
        for request in self._open_work:
            request.is_over = True
        self._queue.put(None)
        if self._opened.done():
            await asyncio.to_thread(self._thread.join, _STOP_SECONDS)

    def _run(self) -> None:
        try:
            synthesizer = self._open_synthesizer()
            self._opened.set_result(synthesizer.codec.info)
        except Exception as problem:
            self._opened.set_exception(problem)
            return
        while (request := self._queue.get()) is not None:
            self._speak(synthesizer, request)

    def _speak(self, synthesizer: SpeechSynthesizer, request: SpeechRequest) -> None:
        try:
            for samples in self._audio(synthesizer, request):
                self._deliver(request, samples)
            self._deliver(request, None)
        except MossAudioError as problem:
            self._deliver(request, problem)
        except Exception as problem:
            error = ServerError(f"the speech model failed on this text ({type(problem).__name__})")
            error.__cause__ = problem
            self._deliver(request, error)

    def _audio(self, synthesizer: SpeechSynthesizer, request: SpeechRequest) -> Iterator[Samples]:
        """Synthesize and count frames while a client waits for them."""
        if request.is_over:
            return
        rate, is_first = synthesizer.codec.info.sampling_rate, True
        for samples in synthesizer.stream(request.text, **request.options):
            if request.is_over:
                return
            if is_first:
                self.metrics.began_to_speak(time.monotonic() - request.began)
            is_first = False
            self.metrics.spoke(len(samples) / rate)
            yield samples

    def _deliver(self, request: SpeechRequest, chunk: Samples | Exception | None) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(request.receive, chunk)
