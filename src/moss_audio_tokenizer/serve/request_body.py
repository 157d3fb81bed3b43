"""Request bodies: read within limits of size and time, and only while the client is connected.

Owns the ways in which a file may come: as the body itself, compressed, or in a form
(multipart/form-data, as browsers, curl -F and OpenAI's clients send files). Knows no routes.
"""

import asyncio
import io
import re
import time
import zlib
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from fastapi import Request
from starlette.requests import ClientDisconnect

from ..codes.moss_format import MAGIC
from ..errors import AudioFileError, CodesFileError, one_line
from .admission import Refused, client_of
from .model_service import end_tasks
from .settings import ServerSettings
from .streams import Streams

_Result = TypeVar("_Result")
BINARY = {"schema": {"type": "string", "format": "binary"}}
_LEAST_BYTES_A_SECOND = 4000
# Most clients look for an answer only after they have sent the body, so some of a refused body is
# read.
_DISCARDED_BYTES = 1 << 20
_DISCARDED_SECONDS = 0.5
# What a form adds to its file.
_FORM_BYTES = 1 << 14
_MAX_PARTS = 32
_MAX_FIELD_BYTES = 1 << 14
_BOUNDARY = re.compile(r'boundary=(?:"([^"]{1,70})"|([^\s;,]{1,70}))', re.IGNORECASE)
_NAME = re.compile(rb'(?:^|[;\s])name=(?:"([^"\r\n]*)"|([^\s;"]+))', re.IGNORECASE)
_FILE_NAME = re.compile(rb"(?:^|[;\s])filename\*?=", re.IGNORECASE)
_URL_FORM = "application/x-www-form-urlencoded"
_MAGIC = {
    b"RIFF": "a wav file",
    b"RF64": "a wav file",
    b"fLaC": "a flac file",
    b"OggS": "an ogg file",
    b"ID3": "an mp3 file",
    b"\xff\xfb": "an mp3 file",
    MAGIC: "a .moss document",
}


def file_body(what: str, media_type: str) -> dict[str, Any]:
    """The OpenAPI description of a body that is a file, by itself or in a form."""
    form = {"type": "object", "required": ["file"], "properties": {"file": BINARY["schema"]}}
    content = {media_type: BINARY, "multipart/form-data": {"schema": form}}
    return {"requestBody": {"required": True, "description": what, "content": content}}


async def with_body(
    request: Request,
    streams: Streams,
    work: Callable[[bytes], Coroutine[Any, Any, _Result]],
    expected: str,
    max_bytes: float = float("inf"),
) -> _Result:
    """Read the body's file in turn and run ``work`` on it while the client is connected."""
    limit = int(min(max_bytes, streams.settings.max_upload_bytes))
    async with answered_after_reading(request), streams.turn(client_of(request)):
        body = await read_body(request, limit + _FORM_BYTES, streams.settings, expected)
        file = await asyncio.to_thread(_file_of, request, body, limit)
        check_kind(file, expected)
        with _explained(request):
            return await unless_gone(request, work(file))


@contextmanager
def _explained(request: Request) -> Iterator[None]:
    """Add a hint to the refusal of a file that ``curl -d`` may have altered."""
    try:
        yield
    except (AudioFileError, CodesFileError) as problem:
        if not request.headers.get("content-type", "").startswith(_URL_FORM):
            raise
        message = f"{one_line(problem)}; curl -d alters files: send them by -F file=@"
        raise Refused("bad_input", f"{message}FILE or --data-binary @FILE") from problem


def _file_of(request: Request, body: bytes, limit: int) -> bytes:
    """The file in a body, or in the form that it is."""
    file, kind = _decompressed(request, body, limit), request.headers.get("content-type", "")
    if is_form(kind):
        file = _only_file(parse_form(kind, file))
    if len(file) > limit:
        raise _too_large(limit)
    return file


def _decompressed(request: Request, body: bytes, limit: int) -> bytes:
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding in ("", "identity"):
        return body
    if encoding not in ("gzip", "x-gzip", "deflate"):
        raise Refused(
            "bad_input", f"Content-Encoding is {encoding!r:.40}; expected gzip, deflate or none"
        )
    # 32: accepts the headers of both gzip and zlib.
    coder = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)
    try:
        plain = coder.decompress(body, limit + _FORM_BYTES + 1)
    except zlib.error as problem:
        raise Refused("bad_input", f"the body is not {encoding}: {problem}") from problem
    if len(plain) > limit + _FORM_BYTES:
        raise _too_large(limit)
    if not coder.eof:
        raise Refused("bad_input", f"the {encoding} body is cut short; send all of it")
    return plain


def check_kind(file: bytes, expected: str) -> None:
    """Refuse a file that is obviously not "a sound file" or "a .moss document"."""
    kind = next((kind for magic, kind in _MAGIC.items() if file.startswith(magic)), None)
    is_moss = kind == "a .moss document"
    if kind is None or is_moss == (expected == "a .moss document"):
        return
    where = "/v1/decode" if is_moss else "/v1/encode"
    raise Refused("bad_input", f"this is {kind}; expected {expected} (send it to {where}?)")


def _too_large(limit: int) -> Refused:
    return Refused("too_large", f"the body has more than {limit} bytes; send it in parts")


@asynccontextmanager
async def answered_after_reading(request: Request) -> AsyncIterator[None]:
    """If the block refuses the request, read some more of the body, so the client sees why."""
    try:
        yield
    except Exception:
        if not getattr(request.state, "is_body_read", False):
            with suppress(asyncio.TimeoutError, RuntimeError):
                await asyncio.wait_for(_read_on(request), _DISCARDED_SECONDS)
        raise


async def read_body(
    request: Request, limit: int, settings: ServerSettings, expected: str = ""
) -> bytes:
    """Read the whole body, of at most ``limit`` bytes and the expected kind of file, if any.

    Raises:
        Refused: It is too large, arrives too slowly, or is obviously of another kind.
    """
    body = io.BytesIO()
    declared = _declared_length(request)
    async for chunk in _in_time(request.stream(), settings):
        if expected and chunk and not body.tell():
            check_kind(chunk, expected)
        if max(declared, body.tell() + len(chunk)) > limit:
            raise _too_large(limit)
        body.write(chunk)
    request.state.is_body_read = True
    return body.getvalue()


def _declared_length(request: Request) -> int:
    length = request.headers.get("content-length", "")
    return int(length) if length.isdigit() and len(length) < 20 else 0


async def _in_time(chunks: AsyncIterator[bytes], settings: ServerSettings) -> AsyncIterator[bytes]:
    """Pass the chunks on; refuses a client that stops sending or sends too slowly."""
    idle_seconds = settings.idle_seconds
    end = time.monotonic() + settings.max_upload_seconds
    deadline = time.monotonic() + idle_seconds
    chunk: bytes | None = b""
    while chunk is not None:
        now = time.monotonic()
        left = min(idle_seconds, deadline - now, end - now)
        try:
            chunk = await asyncio.wait_for(anext(chunks, None), max(0.0, left))
        except asyncio.TimeoutError:
            raise Refused(
                "idle",
                f"too little arrived within {idle_seconds:g} s; send the whole body, faster "
                f"than {_LEAST_BYTES_A_SECOND} bytes a second and within "
                f"{settings.max_upload_seconds:g} s",
            ) from None
        deadline += len(chunk or b"") / _LEAST_BYTES_A_SECOND
        yield chunk or b""


async def _read_on(request: Request) -> None:
    num_bytes, more = 0, True
    while more and num_bytes < _DISCARDED_BYTES:
        event = await request.receive()
        num_bytes += len(event.get("body", b""))
        more = event.get("more_body", False)


async def unless_gone(request: Request, work: Coroutine[Any, Any, _Result]) -> _Result:
    """Run ``work``, and cancel it if the client disconnects.

    Raises:
        ClientDisconnect: The client disconnected.
    """
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


@dataclass(frozen=True)
class Form:
    """A form: its text fields, of a repeated name all values, and its part "file", if any."""

    fields: dict[str, list[str]]
    file: bytes | None


def is_form(content_type: str) -> bool:
    """Whether a content type is multipart/form-data."""
    return content_type.partition(";")[0].strip().lower() == "multipart/form-data"


def _only_file(form: Form) -> bytes:
    if form.fields:
        field = next(iter(form.fields))
        raise Refused("bad_input", f"the form has the field {field!r:.40}; expected only 'file'")
    if form.file is None:
        raise Refused("bad_input", "the form has no part 'file'; send it as curl -F file=@FILE")
    return form.file


def parse_form(content_type: str, body: bytes) -> Form:
    """Parse a form.

    Raises:
        Refused: It is damaged or has too many parts.
    """
    fields: dict[str, list[str]] = {}
    file = None
    for head, content in _parts(content_type, body):
        name = _name_of(head)
        if name == "file":
            if file is not None:
                raise Refused("bad_input", "the form has two parts 'file'; send one at a time")
            file = content
        elif _FILE_NAME.search(head) or len(content) > _MAX_FIELD_BYTES:
            raise Refused("bad_input", f"the form has the part {name!r:.40}; name the file 'file'")
        else:
            fields.setdefault(name, []).append(content.decode("utf-8", "replace"))
    return Form(fields, file)


def _parts(content_type: str, body: bytes) -> list[tuple[bytes, bytes]]:
    """Head and content of every part."""
    found = _BOUNDARY.search(content_type)
    if found is None:
        raise Refused("bad_input", "the form's Content-Type has no boundary; let the client set it")
    delimiter = b"\r\n--" + (found[1] or found[2]).encode("latin-1", "replace")
    damaged = Refused(
        "bad_input", f"the form is damaged, or has more than {_MAX_PARTS} parts; send it again"
    )
    parts: list[tuple[bytes, bytes]] = []
    # No line break comes before the first delimiter.
    if (at := body.find(delimiter[2:])) < 0:
        raise damaged
    at += len(delimiter) - 2
    while not body.startswith(b"--", at):
        head_end = body.find(b"\r\n\r\n", at, at + _MAX_FIELD_BYTES)
        end = body.find(delimiter, head_end + 2) if head_end >= 0 else -1
        if end < 0 or len(parts) == _MAX_PARTS:
            raise damaged
        parts.append((body[at:head_end], body[head_end + 4 : end]))
        at = end + len(delimiter)
    return parts


def _name_of(head: bytes) -> str:
    for line in head.split(b"\r\n"):
        kind, _, value = line.partition(b":")
        if kind.strip().lower() == b"content-disposition" and (found := _NAME.search(value)):
            return (found[1] or found[2] or b"").decode("utf-8", "replace")
    return ""
