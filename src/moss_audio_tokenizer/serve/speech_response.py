"""Speech as an HTTP answer: streamed as wav or raw PCM, or whole as a compressed file.

Owns rounding, the header of a wav of unknown length, the rate of raw samples, and the time within
which a client must read. A speech that breaks off lacks its last chunk, so the client notices.
"""

import asyncio
import io
import struct
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress

import numpy as np
import soundfile
import soxr
from fastapi import Request, Response
from jaxtyping import Float
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from ..audio import encode_audio
from ..errors import AudioFileError, MossAudioError
from .request_body import unless_gone
from .tts_thread import Samples, SpeechRequest
from .wire_format import PcmWriter

MEDIA_TYPES = {
    "wav": "audio/wav",
    "pcm": "audio/pcm",
    "flac": "audio/flac",
    "opus": "audio/ogg",
    "mp3": "audio/mpeg",
}
STREAMED = ("wav", "pcm")
RAW_RATE = 24_000
_UNKNOWN_SIZE = 0xFFFFFFFF
_SAMPLE_BYTES = 2


class SpeechEncoder:
    """Encodes mono samples to 16-bit PCM, chunk by chunk.

    Args:
        audio_format: "wav" at the rate of the samples, or "pcm" at 24 kHz.
        sampling_rate: The rate of the samples in Hz.
    """

    def __init__(self, audio_format: str, sampling_rate: int) -> None:
        self.media_type = MEDIA_TYPES[audio_format]
        self._sampling_rate = sampling_rate
        is_raw = audio_format == "pcm"
        self.header = b"" if is_raw else _wav_header(sampling_rate)
        self._pcm = PcmWriter("pcm_s16le")
        self._resampler = None
        if is_raw and sampling_rate != RAW_RATE:
            self._resampler = soxr.ResampleStream(sampling_rate, RAW_RATE, 1, dtype="float32")

    def write(self, samples: Float[np.ndarray, " samples"], is_last: bool = False) -> bytes:
        """Encode samples; the last call also returns what the resampler still holds."""
        if self._resampler is not None:
            samples = self._resampler.resample_chunk(samples, last=is_last)
        return b"".join(self._pcm.write(samples[None]))

    def seconds(self, samples: Float[np.ndarray, " samples"]) -> float:
        """The duration of these samples."""
        return len(samples) / self._sampling_rate

    def finish(self) -> bytes:
        """Return what is still buffered at the end."""
        return self.write(np.zeros(0, np.float32), is_last=True)


def whole_sound(
    chunks: Sequence[Float[np.ndarray, " _"]], sampling_rate: int, audio_format: str
) -> bytes:
    """Encode a whole speech to a sound file.

    Raises:
        AudioFileError: The format does not support this sampling rate.
    """
    samples = np.concatenate(chunks)
    if audio_format == "mp3":
        return _mp3(samples, sampling_rate)
    return encode_audio(samples, sampling_rate, f".{audio_format}")


def _mp3(samples: Float[np.ndarray, " samples"], sampling_rate: int) -> bytes:
    file = io.BytesIO()
    try:
        soundfile.write(file, samples, sampling_rate, format="MP3")
    except (soundfile.LibsndfileError, ValueError) as problem:
        raise AudioFileError(
            f"this server's libsndfile cannot write mp3 at {sampling_rate} Hz; use wav or flac"
        ) from problem
    return file.getvalue()


def _wav_header(sampling_rate: int) -> bytes:
    """A wav header with the sizes that mean 'unknown', as programs write to a pipe."""
    layout = struct.pack(
        "<IHHIIHH", 16, 1, 1, sampling_rate, sampling_rate * _SAMPLE_BYTES, _SAMPLE_BYTES, 16
    )
    size = struct.pack("<I", _UNKNOWN_SIZE)
    return b"RIFF" + size + b"WAVEfmt " + layout + b"data" + size


class SpeechResponse(Response):
    """Speech that is sent while it is synthesized.

    Args:
        first: The first chunk of audio.
        speech: The request, which has the other chunks.
        sound: The encoder of the answer's format.
        stall_seconds: How far a client may fall behind real time before it is cut off.
        turn: Released when the answer is sent or the client has disconnected.
    """

    def __init__(
        self,
        first: Samples,
        speech: SpeechRequest,
        sound: SpeechEncoder,
        stall_seconds: float,
        turn: AsyncExitStack,
    ) -> None:
        self.status_code = 200
        self.media_type = sound.media_type
        self.background = None
        # The parent's constructor would declare a content length.
        self.init_headers()
        self._first = first
        self._speech = speech
        self._sound = sound
        self._stall_seconds = self._left = stall_seconds
        self._turn = turn

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the speech while the client is connected."""
        async with self._turn:
            try:
                with suppress(ClientDisconnect, MossAudioError):
                    await unless_gone(Request(scope, receive), self._send(send))
            except asyncio.TimeoutError:
                self._speech.ending = "stalled"

    async def _send(self, send: Send) -> None:
        head = {"status": self.status_code, "headers": self.raw_headers}
        await send({"type": "http.response.start", **head})
        header = self._sound.header
        chunk: Samples | None = self._first
        while chunk is not None:
            await self._push(send, header + self._sound.write(chunk), chunk)
            header, chunk = b"", await self._speech.next_chunk()
        await self._push(send, self._sound.finish(), self._first)
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _push(self, send: Send, body: bytes, chunk: Samples) -> None:
        """Send a chunk with a timeout, which a client that reads in real time never hits."""
        start = time.monotonic()
        message = {"type": "http.response.body", "body": body, "more_body": True}
        await asyncio.wait_for(send(message), self._left)
        left = self._left - (time.monotonic() - start) + self._sound.seconds(chunk)
        self._left = min(self._stall_seconds, left)
