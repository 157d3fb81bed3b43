"""A model behind the server: loading, ready, draining, stopped.

Owns what streams and speech have in common: a model that is opened on its own thread, the checks
before new work, and a drain that waits for open work up to a limit. Owns the threads of the speech
models too, which process one text or one recording at a time. Knows no HTTP and no PyTorch: the
models are protocols.
"""

import asyncio
import io
import queue
import threading
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import Any, Protocol, TypeAlias

import numpy as np
from jaxtyping import Float

from ..audio import load_audio
from ..codes.codec import Codec, CodecInfo
from ..errors import MossAudioError, ServerBusy, ServerError
from ..speech.transcriber import Transcript, is_audible
from .metrics import Metrics
from .settings import ServerSettings

_LAST_MESSAGE_SECONDS = 2.0
_POLL_SECONDS = 0.02
_PATIENCE_SECONDS = 0.05
# The share of the queue that one client cannot take: one in so many places.
_RESERVED = 4


class OpenWork(Protocol):
    """A stream or a speech request that a drain may have to break off."""

    ending: str

    def fail(self, error: Exception) -> None:
        """End it with an error."""
        ...


class ModelService:
    """A model on its own thread, seen from asyncio.

    Args:
        name: The model's role in messages, such as "model" or "speech model".
        opened: Resolves to the codec's facts once the model is loaded.
        settings: The server's limits.
        metrics: The server's counters.

    Attributes:
        is_draining: Whether the server is about to stop.
    """

    def __init__(
        self, name: str, opened: "Future[CodecInfo]", settings: ServerSettings, metrics: Metrics
    ) -> None:
        self.settings = settings
        self.metrics = metrics
        self.is_draining = False
        self._name = name
        self._opened = opened
        self._info: CodecInfo | None = None
        self._open_work: set[Any] = set()
        self._held: Counter[tuple[str, str]] = Counter()

    async def stop(self) -> None:
        """Stop the model's thread."""
        raise NotImplementedError

    async def opened(self) -> CodecInfo:
        """Wait until the model is loaded.

        Raises:
            MossAudioError, OSError: The model could not be opened.
        """
        # Shielded: a caller that stops waiting must not cancel the loading for the others.
        self._info = await asyncio.shield(asyncio.wrap_future(self._opened))
        return self._info

    @property
    def info(self) -> CodecInfo:
        """The codec's facts.

        Raises:
            ServerBusy: The model is still loading.
        """
        if self._info is None:
            raise ServerBusy(f"the {self._name} is still being loaded; try again in some seconds")
        return self._info

    @property
    def is_healthy(self) -> bool:
        """Whether the model's thread is alive."""
        raise NotImplementedError

    @property
    def is_ready(self) -> bool:
        """Whether new work is accepted."""
        return self._info is not None and self.is_healthy and not self.is_draining

    def require_open(self) -> None:
        """Check that new work is accepted.

        Raises:
            ServerBusy: The model is loading, has stopped, or the server is about to stop.
        """
        if self.is_draining:
            raise ServerBusy("the server is about to stop; try another, or this one later")
        if not self.is_healthy:
            raise ServerBusy(f"the {self._name} has stopped; the server must be restarted")
        _ = self.info

    @contextmanager
    def _place(self, kind: str, client: str, num_taken: int, num_places: int) -> Iterator[None]:
        """Count a request of a client, which cannot take the last quarter of the queue.

        Raises:
            ServerBusy: The client has too many of them.
        """
        share = num_places - num_places // _RESERVED
        if self._held[kind, client] >= share and num_taken >= share:
            raise ServerBusy(
                f"{self._held[kind, client]} of {num_places} places are taken by this client, and "
                "the rest is for others; try again later"
            )
        with self._counted(kind, client):
            yield

    @contextmanager
    def _counted(self, kind: str, client: str) -> Iterator[None]:
        self._held[kind, client] += 1
        try:
            yield
        finally:
            self._held[kind, client] -= 1
            if not self._held[kind, client]:
                del self._held[kind, client]

    def _is_busy(self) -> bool:
        return bool(self._open_work)

    async def drain(self) -> None:
        """Refuse new work, wait for open work up to the limit, then break it off."""
        self.is_draining = True
        now = asyncio.get_running_loop().time
        deadline = now() + self.settings.drain_seconds
        while self._is_busy() and now() < deadline:
            await asyncio.sleep(_POLL_SECONDS)
        for work in self._open_work:
            work.ending = "drained"
            work.fail(ServerError("the server stops now; try again on another server"))
        # The last message may be stuck behind a client that does not read.
        while self._open_work and now() < deadline + _LAST_MESSAGE_SECONDS:
            await asyncio.sleep(_POLL_SECONDS)


async def end_tasks(*tasks: "asyncio.Future[Any]") -> None:
    """Cancel tasks and wait until they have ended; ignores what they raise.

    Cancels repeatedly: before Python 3.12, `asyncio.wait_for` drops a cancellation if the awaited
    result arrives at the same moment, and the task would run on.
    """
    left = set(tasks)
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=_PATIENCE_SECONDS)
    await asyncio.gather(*tasks, return_exceptions=True)


class SpeechTranscriber(Protocol):
    """An ASR model with its codec, as far as a server needs it."""

    @property
    def codec(self) -> Codec:
        """The codec whose codes the model reads."""
        ...

    def encode(self, samples: Any, sampling_rate: int, num_quantizers: int | None) -> Any:
        """The codes of a recording."""
        ...

    def transcripts(self, clips: Sequence[Any]) -> Sequence[Transcript]:
        """The transcripts of clips of codes."""
        ...


class _Place:
    """A recording that is read, waits, or is transcribed."""

    def __init__(self) -> None:
        self.ending = "aborted"

    def fail(self, error: Exception) -> None:
        """A transcription cannot be broken off; the stop of the server ends it."""


class Transcriptions(ModelService):
    """All transcriptions of a server.

    Args:
        open_transcriber: Opens the ASR model, on the thread that runs it.
        settings: The server's limits.
        metrics: The server's counters.
    """

    def __init__(
        self,
        open_transcriber: Callable[[], SpeechTranscriber],
        settings: ServerSettings,
        metrics: Metrics,
    ) -> None:
        super().__init__("ASR model", Future(), settings, metrics)
        self._open_transcriber = open_transcriber
        self._transcriber: SpeechTranscriber | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="asr")
        self._is_stopped = False

    def start(self) -> None:
        """Start to load the model; `opened` waits for it."""
        self._thread.submit(self._load)

    def _load(self) -> None:
        try:
            self._transcriber = self._open_transcriber()
            info: CodecInfo = self._transcriber.codec.info
        except Exception as problem:
            self._opened.set_exception(problem)
            return
        self._opened.set_result(info)

    @property
    def is_healthy(self) -> bool:
        """Whether the thread works: the model could be opened, and the server has not stopped."""
        failed = self._opened.done() and self._opened.exception() is not None
        return not (self._is_stopped or failed)

    @asynccontextmanager
    async def turn(self, client: str) -> AsyncIterator[None]:
        """Admit a recording, from its first byte to the end of the answer.

        Raises:
            ServerBusy: The queue is full, or the server is about to stop.
        """
        self.require_open()
        places, taken = self.settings.max_waiting_clips + 1, len(self._open_work)
        if taken >= places:
            raise ServerBusy(f"{taken} recordings are transcribed or wait; try again later")
        with self._place("transcription", client, taken, places):
            place = _Place()
            self._open_work.add(place)
            try:
                yield
            finally:
                self._open_work.discard(place)

    async def transcribe(self, recording: bytes) -> Transcript:
        """Transcribe a sound file; a cancelled one keeps its turn on the thread.

        Raises:
            AudioError, AudioFileError: The file cannot be used.
            ServerError: The model failed.
        """
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, partial(self._transcribe, recording))

    def _transcribe(self, recording: bytes) -> Transcript:
        model = self._transcriber
        if model is None or self._is_stopped:
            raise ServerError("the server stops now; try again on another server")
        info = model.codec.info
        samples = load_audio(
            io.BytesIO(recording),
            info.sampling_rate,
            info.num_channels,
            max_seconds=self.settings.max_clip_seconds,
        )
        if not is_audible(samples):
            return Transcript("", (), samples.shape[1] / info.sampling_rate)
        try:
            return model.transcripts([model.encode(samples, info.sampling_rate, None)])[0]
        except MossAudioError:
            raise
        except Exception as problem:
            name = type(problem).__name__
            raise ServerError(f"the ASR model failed on this recording ({name})") from problem

    async def stop(self) -> None:
        """Stop after the current recording."""
        self._is_stopped = True
        self._thread.shutdown(wait=False, cancel_futures=True)


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
