"""Text to speech over HTTP, in the form of OpenAI's interface.

Owns the requests and answers of that interface; `tts_thread` synthesizes.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.json_schema import SkipJsonSchema

from .auth import Gate, client_of
from .http_errors import Refused
from .request_body import BINARY, answered_after_reading, read_body, unless_gone
from .settings import MAX_TEXT_CHARACTERS, ServerSettings
from .speech_response import MEDIA_TYPES, STREAMED, SpeechEncoder, SpeechResponse, whole_sound
from .tts_thread import SpeechQueue
from .voices import VoiceCache

OPENAI_PATHS = ("/v1/audio/", "/v1/models")
MODEL = "cat-tts"
_ANY_VOICE = "default"
# A character of JSON takes 12 bytes at most, and the other fields are short.
_BYTES_A_CHARACTER = 12
_BYTES_OF_FIELDS = 4096
# Below this, float32 scores overflow; top_k=1 is greedy.
_MIN_TEMPERATURE = 1e-3
# Without null in the schema, which the documentation page cannot show.
_Nothing = SkipJsonSchema[None]


class SpeechBody(BaseModel):
    """The fields of a request; those after ``stream_format`` are additions of this server."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    input: Annotated[str, Field(min_length=1, description="The text to say.")]
    model: Annotated[str, Field(description="A model of /v1/models.")] = MODEL
    voice: Annotated[
        str, Field(description="A voice of POST /v1/voices with a text, or 'default'.")
    ] = _ANY_VOICE
    response_format: Annotated[
        Literal["wav", "pcm", "flac", "opus", "mp3"],
        Field(description="wav and pcm (24 kHz, 16 bits, mono) are streamed."),
    ] = "wav"
    speed: Annotated[float, Field(ge=1, le=1, description="Only 1 is supported.")] = 1.0
    stream_format: Literal["audio"] = "audio"
    seed: Annotated[int, Field(ge=0, lt=1 << 62)] | _Nothing = None
    temperature: Annotated[float, Field(ge=_MIN_TEMPERATURE, lt=100)] | _Nothing = None
    top_k: Annotated[int, Field(ge=0, description="0 for all codes.")] | _Nothing = None
    top_p: Annotated[float, Field(gt=0, le=1)] | _Nothing = None
    guidance: (
        Annotated[float, Field(ge=0, le=100, description="0: the model's own.")] | _Nothing
    ) = None
    num_quantizers: (
        Annotated[int, Field(ge=1, description="Quantizers that are generated.")] | _Nothing
    ) = None
    max_seconds: Annotated[float, Field(gt=0, description="Longest speech.")] | _Nothing = None

    def sampling(self) -> dict[str, Any]:
        """The sampling options of the request, for `SpeechSynthesizer.stream`."""
        names = {"seed", "temperature", "top_k", "top_p", "guidance", "num_quantizers"}
        return self.model_dump(include=names, exclude_none=True)


def speech_routes(
    speeches: SpeechQueue | None, gate: Gate, voices: Callable[[], VoiceCache | None]
) -> APIRouter:
    """Create the routes of speech; without ``speeches`` they answer that no model is served."""
    router = APIRouter(prefix="/v1", dependencies=gate.guards(), tags=["speech"])
    _add_speech(router, speeches, voices)
    return router


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


def _add_speech(
    router: APIRouter, speeches: SpeechQueue | None, voices: Callable[[], VoiceCache | None]
) -> None:
    @router.post(
        "/audio/speech",
        response_class=Response,
        openapi_extra=_json_body(),
        responses={200: {"content": dict.fromkeys(MEDIA_TYPES.values(), BINARY)}},
    )
    async def speak(request: Request) -> Response:
        """Synthesize a text; wav and pcm are streamed from the first frame on."""
        if speeches is None:
            raise Refused("not_found", "this server has no TTS model; start it with --tts FOLDER")
        async with AsyncExitStack() as turn:
            async with answered_after_reading(request):
                speech = await turn.enter_async_context(speeches.turn(client_of(request)))
                document = await _read(request, speeches.settings)
            body = _parsed(document, speeches.settings)
            options = await _options(body, speeches, voices())
            speech.say(body.input, **options)
            rate, audio_format = speeches.info.sampling_rate, body.response_format
            if audio_format not in STREAMED:
                chunks = await unless_gone(request, speech.whole())
                return await _whole(chunks, rate, audio_format)
            if (first := await unless_gone(request, speech.next_chunk())) is None:
                raise _no_speech()
            sound = SpeechEncoder(audio_format, rate)
            patience = speeches.settings.idle_seconds
            return SpeechResponse(first, speech, sound, patience, turn.pop_all())


def _json_body() -> dict[str, Any]:
    content = {"application/json": {"schema": SpeechBody.model_json_schema()}}
    return {"requestBody": {"required": True, "content": content}}


async def _read(request: Request, settings: ServerSettings) -> bytes:
    limit = _BYTES_A_CHARACTER * MAX_TEXT_CHARACTERS + _BYTES_OF_FIELDS
    return await read_body(request, limit, settings)


def _parsed(document: bytes, settings: ServerSettings) -> SpeechBody:
    """Parse a request and check everything that needs no model.

    Raises:
        Refused: The request cannot be used.
    """
    try:
        body = SpeechBody.model_validate_json(document)
    except ValidationError as error:
        raise _refusal_of(error) from error
    _check(body, settings)
    return body


def _refusal_of(error: ValidationError) -> Refused:
    problem = error.errors(include_url=False)[0]
    if not problem["loc"]:
        return Refused("bad_input", f"the body cannot be used: {problem['msg']}; send an object")
    field = str(problem["loc"][0])
    got = "" if problem["type"] == "missing" else f" is {problem['input']!r:.60}"
    return Refused("bad_input", f"{field}{got}: {problem['msg']}", field=field)


def _check(body: SpeechBody, settings: ServerSettings) -> None:
    if body.model != MODEL:
        raise Refused(
            "not_found", f"there is no model {body.model!r:.60}; use {MODEL!r}", field="model"
        )
    if not body.input.strip():
        raise Refused("bad_input", "input is blank; send a text", field="input")
    if len(body.input) > MAX_TEXT_CHARACTERS:
        raise Refused(
            "bad_input",
            f"input has {len(body.input)} characters; expected up to "
            f"{MAX_TEXT_CHARACTERS}: send it in parts",
            field="input",
        )
    if body.max_seconds is not None and body.max_seconds > settings.max_speech_seconds:
        raise Refused(
            "bad_input",
            f"max_seconds is {body.max_seconds:g}; expected up to {settings.max_speech_seconds:g}",
            field="max_seconds",
        )


async def _options(
    body: SpeechBody, speeches: SpeechQueue, voices: VoiceCache | None
) -> dict[str, Any]:
    """The options of `SpeechSynthesizer.stream`."""
    longest = body.max_seconds or speeches.settings.max_speech_seconds
    options = body.sampling()
    options["max_frames"] = max(1, round(longest * speeches.info.frame_rate))
    if body.voice == _ANY_VOICE:
        return options
    if voices is None:
        raise _no_voice("this server keeps no voices; start it with --voices DIR, or use 'default'")
    text = await asyncio.to_thread(voices.text, body.voice)
    codes = await asyncio.to_thread(voices.find, body.voice)
    speeches.metrics.looked_up(codes is not None)
    if codes is None:
        raise _no_voice("no such voice; upload the recording (again), or use 'default'")
    if not text:
        raise _no_voice("it was uploaded without a transcript; upload it with ?text= to /v1/voices")
    most = speeches.settings.max_prompt_seconds
    if codes.duration_seconds > most:
        got = codes.duration_seconds
        raise _no_voice(f"its recording lasts {got:.0f} s; expected up to {most:g} s")
    return options | {"prompt_codes": codes.codes, "prompt_text": text}


def _no_voice(reason: str) -> Refused:
    return Refused("bad_input", f"this voice cannot be used: {reason}", field="voice")


def _no_speech() -> Refused:
    return Refused("bad_input", "the model generated no audio; try another seed or a longer text")


async def _whole(chunks: list[np.ndarray], sampling_rate: int, audio_format: str) -> Response:
    if not chunks:
        raise _no_speech()
    sound = await asyncio.to_thread(whole_sound, chunks, sampling_rate, audio_format)
    return Response(sound, media_type=MEDIA_TYPES[audio_format])
