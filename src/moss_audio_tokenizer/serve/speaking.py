"""The one thread that speaks, and its asyncio face: texts wait in turn, sound comes out by frames.

One text at a time: its frames are then the same, and come as early, whoever else waits. What was
spoken waits in memory for a slow client, so that the next text need not; how much that can be is
bounded by the length of a speech and by the places, which are held until all is sent. Knows no
HTTP and no PyTorch: what speaks comes in as a protocol.
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

from ..codes.codec import Codec, CodecInfo
from ..errors import MossAudioError, ServerBusy, ServerError
from .metrics import Metrics
from .settings import ServerSettings

_STOP_SECONDS = 5.0
_LAST_WORDS_SECONDS = 2.0
Samples: TypeAlias = Float[np.ndarray, " samples"]


class SpeakingModel(Protocol):
    """What speaks: `tts.Synthesizer` as far as a server needs it."""

    @property
    def codec(self) -> Codec:
        """Says at which rate it speaks."""
        ...

    def stream(self, text: str, **options: Any) -> Iterator[Samples]:
        """The sound of every frame as soon as there is one."""
        ...


class Speech:
    """What is said to one text; made by `Speeches.turn`.

    Attributes:
        text: to say.
        options: of `SpeakingModel.stream`.
        began: when its request came, by the monotonic clock.
        is_over: nobody waits for it any more.
        ending: how it went, for the figures; whoever knows better may change it.
    """

    def __init__(self, queued: "queue.SimpleQueue[Speech | None]") -> None:
        self.text = ""
        self.options: dict[str, Any] = {}
        self.began = time.monotonic()
        self.is_over = False
        self.ending = "aborted"
        self._queued = queued
        self._pieces: deque[Samples | Exception | None] = deque()
        self._news = asyncio.Event()

    def say(self, text: str, **options: Any) -> None:
        """Queue the text; what it gives is for `next_piece` to tell."""
        self.text, self.options = text, options
        self._queued.put(self)

    def receive(self, piece: Samples | Exception | None) -> None:
        """A piece, what went wrong, or None for the end."""
        self._pieces.append(piece)
        self._news.set()

    async def next_piece(self) -> Samples | None:
        """Sound, once there is some; None at the end.

        Raises:
            InputError: the text or the options cannot be used.
            ServerError: the speaker failed, or the server stops.
        """
        while not self._pieces:
            self._news.clear()
            await self._news.wait()
        piece = self._pieces.popleft()
        if isinstance(piece, Exception):
            self.ending = "failed"
            raise piece
        if piece is None:
            self.ending = "finished"
        return piece

    async def whole(self) -> list[Samples]:
        """All pieces. Raises what `next_piece` does."""
        pieces = []
        while (piece := await self.next_piece()) is not None:
            pieces.append(piece)
        return pieces


class Speeches:
    """All speech of a server.

    Args:
        open_speaker: opens the model, on the thread that will speak.
        settings: limits.
        metrics: is told of what happens.
    """

    def __init__(
        self, open_speaker: Callable[[], SpeakingModel], settings: ServerSettings, metrics: Metrics
    ) -> None:
        self.settings = settings
        self.metrics = metrics
        self.is_draining = False
        self._open_speaker = open_speaker
        self._opened: Future[CodecInfo] = Future()
        self._info: CodecInfo | None = None
        self._places: set[Speech] = set()
        self._queue: queue.SimpleQueue[Speech | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="speaking", daemon=True)

    def start(self) -> None:
        """Start to open the speaker; `opened` waits for it."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    async def opened(self) -> CodecInfo:
        """Wait until the speaker is there; returns what its codec is.

        Raises:
            MossAudioError, OSError: what opening it raised.
        """
        self._info = await asyncio.shield(asyncio.wrap_future(self._opened))
        return self._info

    @property
    def info(self) -> CodecInfo:
        """What the speaker's codec is.

        Raises:
            ServerBusy: it is still being opened.
        """
        if self._info is None:
            raise ServerBusy("the speaker is still being loaded; try again in some seconds")
        return self._info

    @property
    def is_healthy(self) -> bool:
        """Whether the speaking thread lives."""
        return self._thread.is_alive()

    @property
    def is_ready(self) -> bool:
        """Whether texts are welcome."""
        return self._info is not None and self.is_healthy and not self.is_draining

    @property
    def num_places(self) -> int:
        """Texts that are read, wait, are spoken, or sent."""
        return len(self._places)

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[Speech]:
        """A place for a text, from the first byte of a request to the last of its answer.

        Raises:
            ServerBusy: all are taken, or the server is about to stop.
        """
        self._require_room()
        speech = Speech(self._queue)
        self._places.add(speech)
        try:
            yield speech
        finally:
            self._places.discard(speech)
            speech.is_over = True
            self.metrics.ended_speech(speech.ending)

    def _require_room(self) -> None:
        if self.is_draining:
            raise ServerBusy("the server is about to stop; try another, or this one later")
        if not self.is_healthy:
            raise ServerBusy("the server has stopped speaking; it must be started again")
        _ = self.info
        if self.num_places > self.settings.max_waiting_speeches:
            raise ServerBusy(f"{self.num_places} texts are spoken or wait; try again later")

    async def drain(self) -> None:
        """Refuse what is new and wait for speeches to end, but not for ever."""
        self.is_draining = True
        deadline = self._loop.time() + self.settings.drain_seconds
        while self._places and self._loop.time() < deadline:
            await asyncio.sleep(0.02)
        for speech in self._places:
            speech.is_over = True
            speech.receive(ServerError("the server stops now; ask for this speech elsewhere"))
        # An answer may be stuck behind a client that takes nothing: not for ever.
        while self._places and self._loop.time() < deadline + _LAST_WORDS_SECONDS:
            await asyncio.sleep(0.02)

    async def stop(self) -> None:
        """Let the thread end after its frame; one that still loads is not waited for."""
        for speech in self._places:
            speech.is_over = True
        self._queue.put(None)
        if self._opened.done():
            await asyncio.to_thread(self._thread.join, _STOP_SECONDS)

    def _run(self) -> None:
        try:
            speaker = self._open_speaker()
            self._opened.set_result(speaker.codec.info)
        except Exception as problem:
            self._opened.set_exception(problem)
            return
        while (speech := self._queue.get()) is not None:
            self._speak(speaker, speech)

    def _speak(self, speaker: SpeakingModel, speech: Speech) -> None:
        try:
            for samples in self._sound(speaker, speech):
                self._deliver(speech, samples)
            self._deliver(speech, None)
        except MossAudioError as problem:
            self._deliver(speech, problem)
        except Exception as problem:
            error = ServerError(f"the speaker failed on this text ({type(problem).__name__})")
            error.__cause__ = problem
            self._deliver(speech, error)

    def _sound(self, speaker: SpeakingModel, speech: Speech) -> Iterator[Samples]:
        """Frames, counted, for as long as somebody waits for them."""
        if speech.is_over:
            return
        rate, is_first = speaker.codec.info.sampling_rate, True
        for samples in speaker.stream(speech.text, **speech.options):
            if speech.is_over:
                return
            if is_first:
                self.metrics.began_to_speak(time.monotonic() - speech.began)
            is_first = False
            self.metrics.spoke(len(samples) / rate)
            yield samples

    def _deliver(self, speech: Speech, piece: Samples | Exception | None) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(speech.receive, piece)
