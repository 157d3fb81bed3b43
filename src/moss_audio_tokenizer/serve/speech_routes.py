"""Text to speech over HTTP, in the form of OpenAI's interface.

Owns the requests and answers of that interface; `model_service` synthesizes. wav and raw PCM are
streamed, other formats are sent whole. A streamed speech that breaks off lacks its last chunk, so
the client notices.
"""

import asyncio
import io
import struct
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack, suppress
from typing import Annotated, Any, Literal, NoReturn

import numpy as np
import soundfile
import soxr
from fastapi import APIRouter, Request, Response
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.json_schema import SkipJsonSchema
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from ..audio import encode_audio
from ..errors import AudioFileError, MossAudioError
from ..speech.sampling import MIN_TEMPERATURE
from .admission import Gate, Refused, client_of
from .model_service import Samples, SpeechRequest, TextToSpeech
from .request_body import BINARY, answered_after_reading, read_body, unless_gone
from .settings import MAX_TEXT_CHARACTERS, ServerSettings
from .voices import VoiceCache
from .wire_format import PcmWriter

OPENAI_PATHS = ("/v1/audio/", "/v1/models")
MODEL = "cat-tts"
_MEDIA_TYPES = {
    "wav": "audio/wav",
    "pcm": "audio/pcm",
    "flac": "audio/flac",
    "opus": "audio/ogg",
    "mp3": "audio/mpeg",
}
_STREAMED = ("wav", "pcm")
_RAW_RATE = 24_000
_UNKNOWN_SIZE = 0xFFFFFFFF
_DEFAULT_VOICE = "default"
_NO_MODEL = "this server has no TTS model; start it with --tts FOLDER"
# A character of JSON takes 12 bytes at most, and the other fields are short.
_BODY_BYTES = 12 * MAX_TEXT_CHARACTERS + 4096
_SAMPLING = {
    *("seed", "temperature", "top_k", "top_p", "guidance", "code_choice", "num_quantizers"),
}
# Without null in the schema, which the documentation page cannot show.
_Nothing = SkipJsonSchema[None]


class SpeechBody(BaseModel):
    """The fields of a request; those after ``stream_format`` are additions of this server."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    input: Annotated[str, Field(min_length=1, description="The text to say.")]
    model: Annotated[str, Field(description="A model of /v1/models.")] = MODEL
    voice: Annotated[
        str,
        Field(
            description="A name of GET /v1/audio/voices, what POST /v1/voices with a text "
            "answered, or 'default', the first name."
        ),
    ] = _DEFAULT_VOICE
    response_format: Annotated[
        Literal["wav", "pcm", "flac", "opus", "mp3"],
        Field(description="wav and pcm (24 kHz, 16 bits, mono) are streamed."),
    ] = "wav"
    speed: Annotated[float, Field(ge=1, le=1, description="Only 1 is supported.")] = 1.0
    stream_format: Literal["audio"] = "audio"
    seed: Annotated[int, Field(ge=0, lt=1 << 62)] | _Nothing = None
    temperature: Annotated[float, Field(ge=MIN_TEMPERATURE, lt=100)] | _Nothing = None
    top_k: Annotated[int, Field(ge=0, description="0 for all codes.")] | _Nothing = None
    top_p: Annotated[float, Field(gt=0, le=1)] | _Nothing = None
    guidance: (
        Annotated[float, Field(ge=0, le=100, description="0: the model's own.")] | _Nothing
    ) = None
    code_choice: (
        Annotated[
            Literal["sample", "mean"],
            Field(description="mean takes codes near the mean of their vectors."),
        ]
        | _Nothing
    ) = None
    num_quantizers: (
        Annotated[int, Field(ge=1, description="Quantizers that are generated.")] | _Nothing
    ) = None
    max_seconds: Annotated[float, Field(gt=0, description="Longest speech.")] | _Nothing = None


def model_routes(names: Sequence[str], gate: Gate) -> APIRouter:
    """Create the route that lists the speech models by name."""
    router = APIRouter(prefix="/v1", dependencies=gate.guards(), tags=["speech"])
    created = int(time.time())

    @router.get("/models")
    @router.head("/models", include_in_schema=False)
    async def models() -> dict[str, Any]:
        """The models that requests may name."""
        facts = {"object": "model", "created": created, "owned_by": "moss-audio"}
        return {"object": "list", "data": [{"id": name} | facts for name in names]}

    return router


def speech_routes(
    speeches: TextToSpeech | None, gate: Gate, voices: Callable[[], VoiceCache | None]
) -> APIRouter:
    """Create the route of speech; without ``speeches`` it answers that no model is served."""
    router = APIRouter(prefix="/v1", dependencies=gate.guards(), tags=["speech"])
    schema = {"application/json": {"schema": SpeechBody.model_json_schema()}}

    @router.post(
        "/audio/speech",
        response_class=Response,
        openapi_extra={"requestBody": {"required": True, "content": schema}},
        responses={200: {"content": dict.fromkeys(_MEDIA_TYPES.values(), BINARY)}},
    )
    async def speak(request: Request) -> Response:
        """Synthesize a text; wav and pcm are streamed from the first frame on."""
        if speeches is None:
            raise Refused("not_found", _NO_MODEL)
        async with AsyncExitStack() as turn:
            async with answered_after_reading(request):
                speech = await turn.enter_async_context(speeches.turn(client_of(request)))
                document = await read_body(request, _BODY_BYTES, speeches.settings)
            body = _parsed(document, speeches.settings)
            speech.submit((body.input, await _options(body, speeches, voices())))
            rate, audio_format = speeches.info.sampling_rate, body.response_format
            if audio_format not in _STREAMED:
                chunks = _some(await unless_gone(request, speech.all_results()))
                sound = await asyncio.to_thread(_whole, chunks, rate, audio_format)
                return Response(sound, media_type=_MEDIA_TYPES[audio_format])
            first = _some(await unless_gone(request, speech.next_result()))
            encoder = SpeechEncoder(audio_format, rate)
            patience = speeches.settings.idle_seconds
            return SpeechResponse(first, speech, encoder, patience, turn.pop_all())

    @router.get("/audio/voices")
    @router.head("/audio/voices", include_in_schema=False)
    async def list_voices() -> dict[str, Any]:
        """The built-in voices, which requests may name; the first is the default."""
        if speeches is None:
            raise Refused("not_found", _NO_MODEL)
        speeches.require_open()
        names = list(speeches.voices)
        return {"voices": names, "default": names[0] if names else None}

    return router


def _parsed(document: bytes, settings: ServerSettings) -> SpeechBody:
    """Parse a request and check everything that needs no model."""
    try:
        body = SpeechBody.model_validate_json(document)
    except ValidationError as error:
        raise _refusal_of(error) from error
    longest = settings.max_speech_seconds
    if body.model != MODEL:
        raise Refused(
            "not_found", f"there is no model {body.model!r:.60}; use {MODEL!r}", 0, "model"
        )
    if not body.input.strip():
        _refuse("input", "input is blank; send a text")
    if len(body.input) > MAX_TEXT_CHARACTERS:
        got = f"input has {len(body.input)} characters"
        _refuse("input", f"{got}; expected up to {MAX_TEXT_CHARACTERS}: send it in parts")
    if body.max_seconds is not None and body.max_seconds > longest:
        got = f"max_seconds is {body.max_seconds:g}"
        _refuse("max_seconds", f"{got}; expected up to {longest:g}")
    return body


def _refusal_of(error: ValidationError) -> Refused:
    problem = error.errors(include_url=False)[0]
    if not problem["loc"]:
        return Refused("bad_input", f"the body cannot be used: {problem['msg']}; send an object")
    field = str(problem["loc"][0])
    got = "" if problem["type"] == "missing" else f" is {problem['input']!r:.60}"
    return Refused("bad_input", f"{field}{got}: {problem['msg']}", field=field)


def _refuse(field: str, message: str) -> NoReturn:
    raise Refused("bad_input", message, field=field)


async def _options(
    body: SpeechBody, speeches: TextToSpeech, voices: VoiceCache | None
) -> dict[str, Any]:
    """The options of `SpeechSynthesizer.stream`."""
    longest = body.max_seconds or speeches.settings.max_speech_seconds
    options = body.model_dump(include=_SAMPLING, exclude_none=True)
    options["max_frames"] = max(1, round(longest * speeches.info.frame_rate))
    if body.voice == _DEFAULT_VOICE:
        return options
    if body.voice in speeches.voices:
        return options | {"voice": body.voice}
    known = ", ".join((*speeches.voices, repr(_DEFAULT_VOICE)))
    if voices is None:
        _no_voice(
            f"there is no voice {body.voice!r:.60}; use {known}; or start the server with "
            "--voices DIR and upload a recording"
        )
    text = await asyncio.to_thread(voices.text, body.voice)
    codes = await asyncio.to_thread(voices.find, body.voice)
    speeches.metrics.looked_up(codes is not None)
    if codes is None:
        _no_voice(f"no such voice; upload the recording (again), or use {known}")
    if not text:
        _no_voice("it was uploaded without a transcript; upload it with ?text= to /v1/voices")
    got, most = codes.duration_seconds, speeches.settings.max_prompt_seconds
    if got > most:
        _no_voice(f"its recording lasts {got:.0f} s; expected up to {most:g} s")
    return options | {"prompt_codes": codes.codes, "prompt_text": text}


def _no_voice(reason: str) -> NoReturn:
    _refuse("voice", f"this voice cannot be used: {reason}")


def _some(speech: Any) -> Any:
    if speech is None or len(speech) == 0:
        raise Refused(
            "bad_input", "the model generated no audio; try another seed or a longer text"
        )
    return speech


def _whole(chunks: Sequence[Samples], sampling_rate: int, audio_format: str) -> bytes:
    """Encode a whole speech to a sound file."""
    samples = np.concatenate(chunks)
    if audio_format != "mp3":
        return encode_audio(samples, sampling_rate, f".{audio_format}")
    file = io.BytesIO()
    try:
        soundfile.write(file, samples, sampling_rate, format="MP3")
    except (soundfile.LibsndfileError, ValueError) as problem:
        raise AudioFileError(
            f"this server's libsndfile cannot write mp3 at {sampling_rate} Hz; use wav or flac"
        ) from problem
    return file.getvalue()


class SpeechEncoder:
    """Encodes mono samples to 16-bit PCM, chunk by chunk.

    Args:
        audio_format: "wav" at the rate of the samples, or "pcm" at 24 kHz.
        sampling_rate: The rate of the samples in Hz.
    """

    def __init__(self, audio_format: str, sampling_rate: int) -> None:
        self.media_type = _MEDIA_TYPES[audio_format]
        self.sampling_rate = sampling_rate
        is_raw = audio_format == "pcm"
        self.header = b"" if is_raw else _wav_header(sampling_rate)
        self._pcm = PcmWriter("pcm_s16le")
        self._resampler = None
        if is_raw and sampling_rate != _RAW_RATE:
            self._resampler = soxr.ResampleStream(sampling_rate, _RAW_RATE, 1, dtype="float32")

    def write(self, samples: Float[np.ndarray, " samples"], is_last: bool = False) -> bytes:
        """Encode samples; the last call also returns what the resampler still holds."""
        if self._resampler is not None:
            samples = self._resampler.resample_chunk(samples, last=is_last)
        return b"".join(self._pcm.messages(samples[None]))


def _wav_header(sampling_rate: int) -> bytes:
    """A wav header with the sizes that mean 'unknown', as programs write to a pipe."""
    layout = struct.pack("<IHHIIHH", 16, 1, 1, sampling_rate, 2 * sampling_rate, 2, 16)
    size = struct.pack("<I", _UNKNOWN_SIZE)
    return b"RIFF" + size + b"WAVEfmt " + layout + b"data" + size


class SpeechResponse(Response):
    """Speech that is sent while it is synthesized.

    Args:
        first: The first chunk of audio.
        speech: The request, which has the other chunks.
        encoder: The encoder of the answer's format.
        stall_seconds: How far a client may fall behind real time before it is cut off.
        turn: Released when the answer is sent or the client has disconnected.
    """

    def __init__(
        self,
        first: Samples,
        speech: SpeechRequest,
        encoder: SpeechEncoder,
        stall_seconds: float,
        turn: AsyncExitStack,
    ) -> None:
        self.status_code = 200
        self.media_type = encoder.media_type
        self.background = None
        # The parent's constructor would declare a content length.
        self.init_headers()
        self._first = first
        self._speech = speech
        self._encoder = encoder
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
        header = self._encoder.header
        chunk: Samples | None = self._first
        while chunk is not None:
            await self._push(send, header + self._encoder.write(chunk), len(chunk))
            header, chunk = b"", await self._speech.next_result()
        rest = self._encoder.write(np.zeros(0, np.float32), is_last=True)
        await self._push(send, rest, len(self._first))
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _push(self, send: Send, body: bytes, num_samples: int) -> None:
        """Send a chunk with a timeout, which a client that reads in real time never hits."""
        start = time.monotonic()
        message = {"type": "http.response.body", "body": body, "more_body": True}
        await asyncio.wait_for(send(message), self._left)
        left = self._left - (time.monotonic() - start)
        self._left = min(self._stall_seconds, left + num_samples / self._encoder.sampling_rate)
