"""HTTP: whole files to codes and back, and the voice cache.

Owns these routes; what they do is `clips`'s and `voices`'s, and their bodies are `bodies`'s.
"""

import asyncio
from collections.abc import Callable
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse
from pydantic.json_schema import SkipJsonSchema

from ..codes import AudioCodes
from ..codes.moss_format import to_bytes
from .bodies import BINARY, file_body, with_body
from .clips import decode_clip, encode_clip, largest_document
from .refusals import Gate, Refused
from .streams import Streams
from .voices import VoiceCache, voice_name

_MOSS = "application/vnd.moss-codes"
_MEDIA_TYPES = {"wav": "audio/wav", "flac": "audio/flac", "opus": "audio/ogg"}

# Without null in the schema, which the documentation page cannot show.
NumQuantizers = Annotated[
    int | SkipJsonSchema[None],
    Query(ge=1, description="Only the first layers of codes: fewer layers, lower bitrate."),
]


def request_routes(
    streams: Streams, gate: Gate, voices: Callable[[], VoiceCache | None]
) -> APIRouter:
    """The routes of whole files and voices."""
    router = APIRouter(prefix="/v1", dependencies=gate.guards())
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
        openapi_extra=file_body("a wav, flac, ogg, opus or mp3 file", "application/octet-stream"),
        responses={200: {"content": {_MOSS: BINARY, "application/json": {}}}},
    )
    async def encode(
        request: Request,
        num_quantizers: NumQuantizers = None,
        format: Literal["moss", "json"] = "moss",  # noqa: A002 - what clients write
    ) -> Response:
        """A sound file to codes: a .moss document, or JSON."""

        async def work(recording: bytes) -> AudioCodes:
            return await encode_clip(streams, recording, num_quantizers)

        codes = await with_body(request, streams, work)
        return _codes_json(codes) if format == "json" else _moss(codes)

    @router.post(
        "/decode",
        tags=["whole files"],
        response_class=Response,
        openapi_extra=file_body("a .moss document", "application/octet-stream"),
        responses={200: {"content": dict.fromkeys(_MEDIA_TYPES.values(), BINARY)}},
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
        sound = await with_body(request, streams, work, largest)
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
        openapi_extra=file_body("a reference recording", "application/octet-stream"),
    )
    async def add_voice(
        request: Request,
        text: Annotated[
            str, Query(description="What is said in it, for speech in this voice.")
        ] = "",
    ) -> dict[str, Any]:
        """Keep the codes of a reference recording; the same recording is encoded only once."""
        cache()
        said = _checked_text(text, streams.settings.max_speech_characters)

        async def work(recording: bytes) -> dict[str, Any]:
            voice = voice_name(recording, said)
            codes = await find(voice)
            facts = {"voice": voice, "was_cached": codes is not None}
            if codes is None:
                codes = await encode_clip(streams, recording, None)
                await asyncio.to_thread(cache().keep, voice, codes, said)
            return facts | {"seconds": codes.duration_seconds, "frames": codes.num_frames}

        return await with_body(request, streams, work)

    @router.get(
        "/voices/{voice}",
        tags=["voices"],
        response_class=Response,
        responses={200: {"content": {_MOSS: BINARY}}},
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


def _checked_text(text: str, limit: int) -> str:
    if len(text) > limit:
        raise Refused("bad_input", f"the text has {len(text)} characters; expected up to {limit}")
    return " ".join(text.split())


def _moss(codes: AudioCodes) -> Response:
    return Response(to_bytes(codes), media_type=_MOSS)


def _codes_json(codes: AudioCodes) -> Response:
    return JSONResponse(codes.metadata | {"codes": codes.codes.tolist()})
