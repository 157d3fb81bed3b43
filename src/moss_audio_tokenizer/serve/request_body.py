"""Request bodies: read within limits of size and time, and only while the client is connected.

Knows no routes, and does not interpret a body.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar

from fastapi import Request
from starlette.requests import ClientDisconnect

from .http_errors import Refused
from .lifecycle import end_tasks
from .streams import Streams

_Result = TypeVar("_Result")
BINARY = {"schema": {"type": "string", "format": "binary"}}
_LEAST_BYTES_A_SECOND = 4000
# Most clients look for an answer only after they have sent the body, so some of a refused body is
# read.
_DISCARDED_BYTES = 1 << 20
_DISCARDED_SECONDS = 0.5


def file_body(what: str, media_type: str) -> dict[str, Any]:
    """The OpenAPI description of a body that is a file."""
    content = {media_type: BINARY}
    return {"requestBody": {"required": True, "description": what, "content": content}}


async def with_body(
    request: Request,
    streams: Streams,
    work: Callable[[bytes], Coroutine[Any, Any, _Result]],
    max_bytes: float = float("inf"),
) -> _Result:
    """Read the body in turn and run ``work`` on it while the client is connected."""
    limit = min(max_bytes, streams.settings.max_upload_bytes)
    async with answered_after_reading(request), streams.turn():
        body = await read_body(request, int(limit), streams.settings.idle_seconds)
        return await unless_gone(request, work(body))


@asynccontextmanager
async def answered_after_reading(request: Request) -> AsyncIterator[None]:
    """If the block refuses the request, read some more of the body, so the client sees why."""
    try:
        yield
    except Exception:
        await _discard(request)
        raise


async def read_body(request: Request, limit: int, idle_seconds: float) -> bytes:
    """Read the whole body.

    Raises:
        Refused: It has more than ``limit`` bytes, or arrives too slowly.
    """
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
    """Pass the chunks on; refuses a client that stops sending or sends too slowly."""
    deadline = time.monotonic() + idle_seconds
    chunk: bytes | None = b""
    while chunk is not None:
        left = min(idle_seconds, deadline - time.monotonic())
        try:
            chunk = await asyncio.wait_for(_next(chunks), max(0.0, left))
        except asyncio.TimeoutError:
            raise Refused(
                "idle",
                f"too little arrived within {idle_seconds:g} s; send the whole body, and faster "
                f"than {_LEAST_BYTES_A_SECOND} bytes a second",
            ) from None
        deadline += len(chunk or b"") / _LEAST_BYTES_A_SECOND
        yield chunk or b""


async def _next(chunks: AsyncIterator[bytes]) -> bytes | None:
    async for chunk in chunks:
        return chunk
    return None


async def _discard(request: Request) -> None:
    """Read some more of the body, so the client sees the answer."""
    with suppress(asyncio.TimeoutError, RuntimeError):
        await asyncio.wait_for(_read_on(request), _DISCARDED_SECONDS)


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
