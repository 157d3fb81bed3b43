"""HTTP: whole files to codes and back, and the voice cache.

Owns bodies and their limits; what is done with them is `clips`'s and `voices`'s.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Annotated, Any, Literal, TypeVar

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import JSONResponse
from fastapi.security import HTTPBearer
from pydantic.json_schema import SkipJsonSchema
from starlette.requests import ClientDisconnect

from ..codes import AudioCodes
from ..codes.moss_format import to_bytes
from .clips import decode_clip, encode_clip, largest_document
from .endings import end_tasks
from .refusals import Gate, Refused
from .streams import Streams
from .voices import VoiceCache, voice_name

_Result = TypeVar("_Result")
_MOSS = "application/vnd.moss-codes"
_MEDIA_TYPES = {"wav": "audio/wav", "flac": "audio/flac", "opus": "audio/ogg"}
_BINARY = {"schema": {"type": "string", "format": "binary"}}
_LEAST_BYTES_A_SECOND = 4000
# What is read of a body that is refused unread: most clients look for an answer only then.
_DISCARDED_BYTES = 1 << 20
_DISCARDED_SECONDS = 0.5

# Without null in the schema, which the documentation page cannot show.
NumQuantizers = Annotated[
    int | SkipJsonSchema[None],
    Query(ge=1, description="Only the first layers of codes: fewer layers, lower bitrate."),
]


def request_routes(
    streams: Streams, gate: Gate, voices: Callable[[], VoiceCache | None]
) -> APIRouter:
    """The routes of whole files and voices."""

    async def let_in(request: Request) -> None:
        gate.check(request)

    # HTTPBearer only describes itself here: the gate looks at the key.
    guards = [Depends(HTTPBearer(auto_error=False)), Depends(let_in)]
    router = APIRouter(prefix="/v1", dependencies=guards)
    _add_files(router, streams)
    _add_voices(router, streams, voices)
    return router


def _add_files(router: APIRouter, streams: Streams) -> None:
    @router.get("/model", tags=["server"])
    async def model() -> dict[str, Any]:
        """What the codec is, and what the server allows."""
        info, settings = streams.info, streams.settings
        return {
            "model": info.identity,
            "sampling_rate": info.sampling_rate,
            "num_channels": info.num_channels,
            "samples_per_frame": info.downsample_rate,
            "frame_rate": info.frame_rate,
            "num_quantizers": info.num_quantizers,
            "codebook_size": info.codebook_size,
            "max_streams": settings.max_streams,
            "max_clip_seconds": settings.max_clip_seconds,
            "max_upload_bytes": settings.max_upload_bytes,
        }

    @router.post(
        "/encode",
        tags=["whole files"],
        response_class=Response,
        openapi_extra=_body("a wav, flac, ogg, opus or mp3 file", "application/octet-stream"),
        responses={200: {"content": {_MOSS: _BINARY, "application/json": {}}}},
    )
    async def encode(
        request: Request,
        num_quantizers: NumQuantizers = None,
        format: Literal["moss", "json"] = "moss",  # noqa: A002 - what clients write
    ) -> Response:
        """A sound file to codes: a .moss document, or JSON."""

        async def work(recording: bytes) -> AudioCodes:
            return await encode_clip(streams, recording, num_quantizers)

        codes = await _with_body(request, streams, work)
        return _codes_json(codes) if format == "json" else _moss(codes)

    @router.post(
        "/decode",
        tags=["whole files"],
        response_class=Response,
        openapi_extra=_body("a .moss document", "application/octet-stream"),
        responses={200: {"content": dict.fromkeys(_MEDIA_TYPES.values(), _BINARY)}},
    )
    async def decode(
        request: Request,
        num_quantizers: NumQuantizers = None,
        format: Literal["wav", "flac", "opus"] = "wav",  # noqa: A002 - what clients write
    ) -> Response:
        """A .moss document to a sound file."""

        async def work(document: bytes) -> bytes:
            return await decode_clip(streams, document, num_quantizers, format)

        largest = largest_document(streams.info, streams.settings.max_clip_seconds)
        sound = await _with_body(request, streams, work, largest)
        return Response(sound, media_type=_MEDIA_TYPES[format])


def _add_voices(
    router: APIRouter, streams: Streams, voices: Callable[[], VoiceCache | None]
) -> None:
    def cache() -> VoiceCache:
        found = voices()
        if found is None:
            raise Refused("not_found", "this server keeps no voices; start it with --voices DIR")
        return found

    async def find(voice: str) -> AudioCodes | None:
        codes = await asyncio.to_thread(cache().find, voice)
        streams.metrics.looked_up(codes is not None)
        return codes

    @router.post(
        "/voices",
        tags=["voices"],
        openapi_extra=_body("a reference recording", "application/octet-stream"),
    )
    async def add_voice(request: Request) -> dict[str, Any]:
        """Keep the codes of a reference recording; the same recording is encoded only once."""
        cache()

        async def work(recording: bytes) -> dict[str, Any]:
            voice = voice_name(recording)
            codes = await find(voice)
            facts = {"voice": voice, "was_cached": codes is not None}
            if codes is None:
                codes = await encode_clip(streams, recording, None)
                await asyncio.to_thread(cache().keep, voice, codes)
            return facts | {"seconds": codes.duration_seconds, "frames": codes.num_frames}

        return await _with_body(request, streams, work)

    @router.get(
        "/voices/{voice}",
        tags=["voices"],
        response_class=Response,
        responses={200: {"content": {_MOSS: _BINARY}}},
    )
    async def get_voice(voice: str, num_quantizers: NumQuantizers = None) -> Response:
        """The codes of a voice, as a .moss document."""
        codes = await find(voice)
        if codes is None:
            raise Refused("not_found", "no such voice; upload the recording (again)")
        return _moss(codes if num_quantizers is None else codes.first(num_quantizers))

    @router.delete("/voices/{voice}", tags=["voices"], status_code=204)
    async def drop_voice(voice: str) -> Response:
        """Forget a voice."""
        if not await asyncio.to_thread(cache().drop, voice):
            raise Refused("not_found", "no such voice")
        return Response(status_code=204)


def _body(what: str, media_type: str) -> dict[str, Any]:
    """How the OpenAPI document shows a body that is a file."""
    content = {media_type: _BINARY}
    return {"requestBody": {"required": True, "description": what, "content": content}}


def _moss(codes: AudioCodes) -> Response:
    return Response(to_bytes(codes), media_type=_MOSS)


def _codes_json(codes: AudioCodes) -> Response:
    return JSONResponse(codes.metadata | {"codes": codes.codes.tolist()})


async def _with_body(
    request: Request,
    streams: Streams,
    work: Callable[[bytes], Coroutine[Any, Any, _Result]],
    max_bytes: float = float("inf"),
) -> _Result:
    """Work on a request's body, in turn, for as long as its client is there."""
    limit = min(max_bytes, streams.settings.max_upload_bytes)
    async with _answered_after_reading(request), streams.turn():
        body = await _read_body(request, int(limit), streams.settings.idle_seconds)
        return await _unless_gone(request, work(body))


@asynccontextmanager
async def _answered_after_reading(request: Request) -> AsyncIterator[None]:
    try:
        yield
    except Exception:
        await _discard(request)
        raise


async def _read_body(request: Request, limit: int, idle_seconds: float) -> bytes:
    too_large = Refused("too_large", f"the body has more than {limit} bytes; send it in parts")
    if _declared_length(request) > limit:
        raise too_large
    body = bytearray()
    async for chunk in _in_time(request.stream(), idle_seconds):
        body += chunk
        if len(body) > limit:
            raise too_large
    return bytes(body)


def _declared_length(request: Request) -> int:
    length = request.headers.get("content-length", "")
    return int(length) if length.isdigit() else 0


async def _in_time(chunks: AsyncIterator[bytes], idle_seconds: float) -> AsyncIterator[bytes]:
    """The chunks, as long as they keep coming; who sends byte by byte holds up others too."""
    deadline = time.monotonic() + idle_seconds
    chunk: bytes | None = b""
    while chunk is not None:
        left = min(idle_seconds, deadline - time.monotonic())
        try:
            chunk = await asyncio.wait_for(_next(chunks), max(0.0, left))
        except asyncio.TimeoutError:
            raise Refused(
                "idle",
                f"too little came for {idle_seconds:g} s; send the whole body, and faster than "
                f"{_LEAST_BYTES_A_SECOND} bytes a second",
            ) from None
        deadline += len(chunk or b"") / _LEAST_BYTES_A_SECOND
        yield chunk or b""


async def _next(chunks: AsyncIterator[bytes]) -> bytes | None:
    async for chunk in chunks:
        return chunk
    return None


async def _discard(request: Request) -> None:
    """Read on a little, so that the client comes to see the answer."""
    with suppress(asyncio.TimeoutError, RuntimeError):
        await asyncio.wait_for(_read_on(request), _DISCARDED_SECONDS)


async def _read_on(request: Request) -> None:
    num_bytes, more = 0, True
    while more and num_bytes < _DISCARDED_BYTES:
        event = await request.receive()
        num_bytes += len(event.get("body", b""))
        more = event.get("more_body", False)


async def _unless_gone(request: Request, work: Coroutine[Any, Any, _Result]) -> _Result:
    """The result of some work, which is given up when the client goes."""
    working, gone = asyncio.ensure_future(work), asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait({working, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return working.result()
    finally:
        await end_tasks(working, gone)


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
