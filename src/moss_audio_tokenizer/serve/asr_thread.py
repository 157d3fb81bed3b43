"""The thread that transcribes speech, and its asyncio side: recordings queue, transcripts come out.

One recording at a time. Knows no HTTP and no PyTorch: the transcriber is a protocol.
"""

import asyncio
import io
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Protocol

from ..audio import load_audio
from ..codes.codec import Codec, CodecInfo
from ..errors import MossAudioError, ServerBusy, ServerError
from ..speech.transcriber import Transcript, is_audible
from .lifecycle import ModelService
from .metrics import Metrics
from .settings import ServerSettings


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
