"""Whole files: the routes that encode and decode them, and their way through the batch.

A whole file is a stream that is fed at once. So a long file delays live streams by one step at
most, and gives the codes and the audio of offline encoding and decoding.
"""

import io
from functools import partial
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse
from jaxtyping import Float
from pydantic.json_schema import SkipJsonSchema

from ..audio import encode_audio, load_audio
from ..audio.reading import open_audio
from ..codes import AudioCodes, CodecInfo
from ..codes.moss_format import HEADER_SIZE
from ..errors import CodesError, ModelMismatchError
from .admission import Gate
from .request_body import BINARY, file_body, with_body
from .streams import Streams

MOSS_TYPE = "application/vnd.moss-codes"
_MEDIA_TYPES = {"wav": "audio/wav", "flac": "audio/flac", "opus": "audio/ogg"}

# Without null in the schema, which the documentation page cannot show.
NumQuantizers = Annotated[
    int | SkipJsonSchema[None],
    Query(ge=1, description="Only the first N quantizers: fewer quantizers, lower bitrate."),
]

# The most values per second of a file, over all channels: 48 kHz stereo.
_MAX_VALUES_A_SECOND = 96_000


def file_routes(streams: Streams, gate: Gate) -> APIRouter:
    """Create the routes of whole files."""
    router = APIRouter(prefix="/v1", dependencies=gate.guards())

    @router.get("/model", tags=["server"])
    @router.head("/model", include_in_schema=False)
    async def model() -> dict[str, Any]:
        """The codec's facts and the server's limits."""
        return _model_facts(streams)

    @router.post(
        "/encode",
        tags=["whole files"],
        response_class=Response,
        openapi_extra=file_body("a wav, flac, ogg, opus or mp3 file", "application/octet-stream"),
        responses={200: {"content": {MOSS_TYPE: BINARY, "application/json": {}}}},
    )
    async def encode(
        request: Request,
        num_quantizers: NumQuantizers = None,
        format: Literal["moss", "json"] = "moss",  # noqa: A002 - the name in the query
    ) -> Response:
        """Encode a sound file to a .moss document or JSON."""

        async def work(recording: bytes) -> AudioCodes:
            return await encode_clip(streams, recording, num_quantizers)

        codes = await with_body(request, streams, work, "a sound file")
        if format == "moss":
            return moss_response(codes)
        return JSONResponse(codes.metadata | {"codes": codes.codes.tolist()})

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
        format: Literal["wav", "flac", "opus"] = "wav",  # noqa: A002 - the name in the query
    ) -> Response:
        """Decode a .moss document to a sound file."""

        async def work(document: bytes) -> bytes:
            return await decode_clip(streams, document, num_quantizers, format)

        # The largest size in bytes of a document of so many seconds.
        most_seconds = streams.settings.max_clip_seconds + 1
        largest = HEADER_SIZE + most_seconds * streams.info.bitrate() / 8
        sound = await with_body(request, streams, work, "a .moss document", largest)
        return Response(sound, media_type=_MEDIA_TYPES[format])

    return router


def _model_facts(streams: Streams) -> dict[str, Any]:
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


def moss_response(codes: AudioCodes) -> Response:
    """Answer with a .moss document."""
    return Response(codes.to_bytes(), media_type=MOSS_TYPE)


async def encode_clip(streams: Streams, recording: bytes, num_quantizers: int | None) -> AudioCodes:
    """Encode a sound file.

    Raises:
        AudioError, AudioFileError, CodesError: The file or `num_quantizers` cannot be used.
        ServerError: The stream was broken off.
    """
    info = streams.info
    num_quantizers = _checked_quantizers(num_quantizers, info)
    async with streams.clip("encode") as stream:
        with Upload(recording) as file:
            read = partial(_read, file, info, streams.settings.max_clip_seconds)
            audio = await streams.in_thread(read)
        await stream.feed(audio)
        stream.finish()
        chunks = [codes async for codes, _ in stream.results()]
    codes = np.concatenate(chunks, axis=1)[:num_quantizers]
    return AudioCodes.of_codec(info, codes, audio.shape[1])


async def decode_clip(
    streams: Streams, document: bytes, num_quantizers: int | None, audio_format: str
) -> bytes:
    """Decode a .moss document to a sound file: "wav", "flac" or "opus".

    Raises:
        CodesError, CodesFileError, ModelMismatchError, AudioFileError: The codes or the format
            cannot be used.
        ServerError: The stream was broken off.
    """
    codes = await streams.in_thread(partial(AudioCodes.from_bytes, document, "the document"))
    require_model(codes, streams.info)
    got, most = codes.duration_seconds, streams.settings.max_clip_seconds
    if got > most:
        raise CodesError(
            f"the codes hold {got:.0f} s; expected at most {most:g} s: send them in parts"
        )
    num_quantizers = _checked_quantizers(num_quantizers, streams.info)
    async with streams.clip("decode") as stream:
        await stream.feed(codes.codes[:num_quantizers])
        stream.finish()
        chunks = [audio async for audio, _ in stream.results()]
        audio = np.concatenate(chunks, axis=1)[:, : codes.num_samples]
        rate = streams.info.sampling_rate
        return await streams.in_thread(partial(encode_audio, audio, rate, f".{audio_format}"))


def require_model(codes: AudioCodes, info: CodecInfo) -> None:
    """Refuse codes of another model."""
    if codes.model and codes.model != info.identity:
        raise ModelMismatchError(
            f"these codes were made by model {codes.model}; this server runs {info.identity}"
        )


def _checked_quantizers(num_quantizers: int | None, info: CodecInfo) -> int:
    wanted = info.num_quantizers if num_quantizers is None else num_quantizers
    if not 1 <= wanted <= info.num_quantizers:
        raise CodesError(f"num_quantizers is {wanted}; expected 1 to {info.num_quantizers}")
    return wanted


class Upload(io.BytesIO):
    """A file in memory that ends early once its block is left, so that a reading thread stops."""

    is_dropped = False

    def __exit__(self, *_: object) -> None:
        self.is_dropped = True

    def read(self, size: int | None = -1) -> bytes:
        """Read bytes; none after the block was left."""
        return b"" if self.is_dropped else super().read(size)

    def readinto(self, buffer: Any) -> int:
        """Read bytes into a buffer; none after the block was left."""
        return 0 if self.is_dropped else super().readinto(buffer)


def _read(
    file: io.BytesIO, info: CodecInfo, max_seconds: float
) -> Float[np.ndarray, "channels samples"]:
    with open_audio(file) as sound:
        values_a_second = sound.samplerate * sound.channels
    file.seek(0)
    allowed = max_seconds * min(1.0, _MAX_VALUES_A_SECOND / values_a_second)
    return load_audio(file, info.sampling_rate, info.num_channels, max_seconds=allowed)
