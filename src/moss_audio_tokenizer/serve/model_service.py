"""A model behind the server: loading, ready, draining, stopped.

Owns what streams and speech have in common: a model that is opened on its own thread, the checks
before new work, and a drain that waits for open work up to a limit. Owns the two speech models
too. Each processes one request at a time, so its results are the same under any load; they wait in
memory for a slow client, bounded by the length of a speech and the number of requests. Knows no
HTTP and no PyTorch: the models are protocols.
"""

import asyncio
import io
import queue
import threading
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Protocol, TypeAlias

import numpy as np
from jaxtyping import Float

from ..audio import load_audio
from ..codes.codec import Codec, CodecInfo
from ..errors import MossAudioError, ServerBusy, ServerError
from ..speech.transcriber import Transcript, is_audible
from .metrics import Metrics
from .settings import ServerSettings

Samples: TypeAlias = Float[np.ndarray, " samples"]
_LAST_MESSAGE_SECONDS = 2.0
_POLL_SECONDS = 0.02
_PATIENCE_SECONDS = 0.05
_STOP_SECONDS = 5.0
# The share of the queue that one client cannot take: one in so many positions.
_RESERVED = 4


class ModelService:
    """A model on its own thread, seen from asyncio.

    Args:
        name: The model's role in messages, such as "model" or "speech model".
        opened: Resolves to the codec's facts once the model is loaded.
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

    def start(self) -> None:
        """Start to load the model; `opened` waits for it."""
        raise NotImplementedError

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
    def _queued(self, what: str, client: str, num_taken: int, num_places: int) -> Iterator[None]:
        """Count a request of a client, which cannot take the last quarter of the queue."""
        self.require_open()
        if num_taken >= num_places:
            raise ServerBusy(f"{num_taken} {what} or wait; try again later")
        share = num_places - num_places // _RESERVED
        if self._held[what, client] >= share and num_taken >= share:
            raise ServerBusy(
                f"{self._held[what, client]} of {num_places} places are taken by this client, and "
                "the rest is for others; try again later"
            )
        with self._counted(what, client):
            yield

    @contextmanager
    def _counted(self, what: str, client: str) -> Iterator[None]:
        self._held[what, client] += 1
        try:
            yield
        finally:
            self._held[what, client] -= 1
            if not self._held[what, client]:
                del self._held[what, client]

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


class SpeechRequest:
    """One text or recording; `SpeechService.turn` creates it.

    Attributes:
        task: What the model shall do.
        began: When the request arrived, by the monotonic clock.
        is_over: Whether no client waits for it any longer.
        ending: How it ended, for the metrics.
    """

    def __init__(self, requests: "queue.SimpleQueue[SpeechRequest | None]") -> None:
        self.task: Any = None
        self.began = time.monotonic()
        self.is_over = False
        self.ending = "aborted"
        self._requests = requests
        self._results: deque[Any] = deque()
        self._has_results = asyncio.Event()

    def submit(self, task: Any) -> None:
        """Queue the task; `next_result` returns what the model makes of it."""
        self.task = task
        self._requests.put(self)

    def receive(self, result: Any) -> None:
        """Take a result, an error, or None for the end."""
        self._results.append(result)
        self._has_results.set()

    def fail(self, error: Exception) -> None:
        """End the results with an error."""
        self.is_over = True
        self.receive(error)

    async def next_result(self) -> Any:
        """Wait for the next result; None at the end.

        Raises:
            InputError, AudioError, AudioFileError: The task cannot be done.
            ServerError: The model failed, or the server stops.
        """
        while not self._results:
            self._has_results.clear()
            await self._has_results.wait()
        result = self._results.popleft()
        if isinstance(result, Exception):
            self.ending = "failed"
            raise result
        if result is None:
            self.ending = "finished"
        return result

    async def all_results(self) -> list[Any]:
        """All results; raises what `next_result` raises."""
        results = []
        while (result := await self.next_result()) is not None:
            results.append(result)
        return results


class SpeechService(ModelService):
    """A speech model, opened and run on its own thread, and its requests.

    Attributes:
        name: The model's role in messages.
        busy: What keeps a further client waiting.
        subject: What an unexpected error was about.
    """

    name: str
    busy: str
    subject: str

    def __init__(
        self, open_model: Callable[[], Any], settings: ServerSettings, metrics: Metrics
    ) -> None:
        super().__init__(self.name, Future(), settings, metrics)
        self._open_model = open_model
        self._requests: queue.SimpleQueue[SpeechRequest | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=self.name, daemon=True)

    def start(self) -> None:
        """Start to load the model; `opened` waits for it."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    async def stop(self) -> None:
        """Stop the thread after its result; does not wait for a model that is still loading."""
        for request in self._open_work:
            request.is_over = True
        self._requests.put(None)
        if self._opened.done():
            await asyncio.to_thread(self._thread.join, _STOP_SECONDS)

    @property
    def is_healthy(self) -> bool:
        """Whether the thread is alive."""
        return self._thread.is_alive()

    @property
    def num_requests(self) -> int:
        """Requests that are being read, wait, are processed, or answered."""
        return len(self._open_work)

    @property
    def _num_waiting(self) -> int:
        """How many requests may wait behind the current one."""
        raise NotImplementedError

    @asynccontextmanager
    async def turn(self, client: str) -> AsyncIterator[SpeechRequest]:
        """Admit a request, from its first byte to the end of the answer.

        Raises:
            ServerBusy: The queue is full, or the server is about to stop.
        """
        request = SpeechRequest(self._requests)
        with self._queued(self.busy, client, self.num_requests, self._num_waiting + 1):
            self._open_work.add(request)
            try:
                yield request
            finally:
                self._open_work.discard(request)
                request.is_over = True
                self._ended(request)

    def _ended(self, request: SpeechRequest) -> None:
        """Count the end of a request."""

    def _results(self, model: Any, request: SpeechRequest) -> Iterator[Any]:
        """What the model makes of a request."""
        raise NotImplementedError

    def _describe(self, model: Any) -> None:
        """Take from the opened model what requests are checked with."""

    def _run(self) -> None:
        try:
            model = self._open_model()
            self._describe(model)
            self._opened.set_result(model.codec.info)
        except Exception as problem:
            self._opened.set_exception(problem)
            return
        while (request := self._requests.get()) is not None:
            self._process(model, request)

    def _process(self, model: Any, request: SpeechRequest) -> None:
        if request.is_over:
            return
        try:
            for result in self._results(model, request):
                if request.is_over:
                    return
                self._deliver(request, result)
            self._deliver(request, None)
        except MossAudioError as problem:
            self._deliver(request, problem)
        except Exception as problem:
            kind = type(problem).__name__
            error = ServerError(f"the {self.name} failed on this {self.subject} ({kind})")
            error.__cause__ = problem
            self._deliver(request, error)

    def _deliver(self, request: SpeechRequest, result: Any) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(request.receive, result)


class SpeechSynthesizer(Protocol):
    """A TTS model with its codec, as far as a server needs it."""

    codec: Codec

    @property
    def voices(self) -> tuple[str, ...]:
        """Names of the built-in voices; the first is the default."""
        ...

    def stream(self, text: str, **options: Any) -> Iterator[Samples]:
        """Synthesize a text, a frame of samples at a time."""
        ...


class TextToSpeech(SpeechService):
    """Text to speech: a task is a text with options of `SpeechSynthesizer.stream`.

    Attributes:
        voices: names of the model's built-in voices, once it is loaded.
    """

    name, busy, subject = "speech model", "texts are spoken", "text"
    voices: tuple[str, ...] = ()

    @property
    def _num_waiting(self) -> int:
        return self.settings.max_waiting_speeches

    def _ended(self, request: SpeechRequest) -> None:
        self.metrics.speeches.labels(request.ending).inc()

    def _describe(self, model: SpeechSynthesizer) -> None:
        self.voices = model.voices

    def _results(self, model: SpeechSynthesizer, request: SpeechRequest) -> Iterator[Samples]:
        text, options = request.task
        rate, is_first = model.codec.info.sampling_rate, True
        for samples in model.stream(text, **options):
            if is_first:
                self.metrics.first_sound.observe(time.monotonic() - request.began)
            is_first = False
            self.metrics.spoken_seconds.inc(len(samples) / rate)
            yield samples


class SpeechTranscriber(Protocol):
    """An ASR model with its codec, as far as a server needs it."""

    codec: Codec

    def encode(self, samples: Any, sampling_rate: int, num_quantizers: int | None) -> Any:
        """The codes of a recording."""
        ...

    def transcripts(self, clips: Sequence[Any]) -> Sequence[Transcript]:
        """The transcripts of clips of codes."""
        ...


class Transcriptions(SpeechService):
    """Speech to text: a task is the bytes of a sound file, its one result a transcript."""

    name, busy, subject = "ASR model", "recordings are transcribed", "recording"

    @property
    def _num_waiting(self) -> int:
        return self.settings.max_waiting_clips

    def _results(self, model: SpeechTranscriber, request: SpeechRequest) -> Iterator[Transcript]:
        info, longest = model.codec.info, self.settings.max_clip_seconds
        samples = load_audio(
            io.BytesIO(request.task), info.sampling_rate, info.num_channels, max_seconds=longest
        )
        if is_audible(samples):
            yield model.transcripts([model.encode(samples, info.sampling_rate, None)])[0]
        else:
            yield Transcript("", (), samples.shape[1] / info.sampling_rate)


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
