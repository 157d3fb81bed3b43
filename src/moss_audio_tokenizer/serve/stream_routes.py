"""Live streams over WebSockets: one connection, one direction, one batch slot.

The server first sends the codec's facts; then binary messages go both ways, until the client sends
``{"type": "end"}``. docs/serving.md describes the protocol. Owns the order of messages and the time
limits; `wire_format` converts bytes, `streams` queues chunks.
"""

import asyncio
import json
import logging
from collections.abc import Awaitable, Coroutine
from contextlib import suppress
from typing import Any, TypeVar

from fastapi import APIRouter, WebSocket
from starlette.websockets import WebSocketDisconnect, WebSocketState

from ..codes.codec import CodecInfo
from ..errors import MossAudioError
from .admission import (
    STATUS,
    Gate,
    Refused,
    TokenBucket,
    client_of,
    document_of,
    refusal_of,
    unknown_name,
)
from .model_service import end_tasks
from .settings import MAX_MESSAGES_A_SECOND
from .streams import Stream, Streams
from .wire_format import PackedFrames, audio_reader, audio_writer

_log = logging.getLogger(__name__)
_Result = TypeVar("_Result")
# The burst of a stream, in seconds of audio at the largest speed.
_BURST_SECONDS = 1.0
_DEFAULT_OPUS_BITRATE = 32_000
# A long message is read in parts of so many frames, so that it never holds up other streams.
_PART_FRAMES = 25
# Texts of a client are short.
_MAX_TEXT = 1000
_MAX_DIGITS = 18


def stream_routes(streams: Streams, gate: Gate) -> APIRouter:
    """Create the routes of live streams."""
    router = APIRouter()

    @router.websocket("/v1/encode/stream")
    async def encode_stream(socket: WebSocket) -> None:
        await _serve(socket, streams, gate, "encode")

    @router.websocket("/v1/decode/stream")
    async def decode_stream(socket: WebSocket) -> None:
        await _serve(socket, streams, gate, "decode")

    return router


async def _serve(socket: WebSocket, streams: Streams, gate: Gate, side: str) -> None:
    """Accept a connection, exchange messages, and end it with a message that gives the reason."""
    # Accepted before it is refused: browsers do not show the reason of an earlier refusal.
    await socket.accept()
    try:
        gate.check(socket)
        await _exchange(socket, streams, side)
    except WebSocketDisconnect:
        return
    except Exception as error:
        refusal = refusal_of(error)
        streams.metrics.refused.labels(refusal.code).inc()
        if refusal.code == "server" and _is_unexpected(error):
            _log.error("a stream failed", exc_info=error)
        await _end(socket, document_of(refusal) | {"type": "error"}, refusal.code)


def _is_unexpected(error: Exception) -> bool:
    """Whether an error is worth a traceback; a stream that the server's stop breaks off is not."""
    return not isinstance(error, MossAudioError) or error.__cause__ is not None


async def _end(socket: WebSocket, message: dict[str, Any], code: str | None = None) -> None:
    """Send a last message and close, if the client is still connected."""
    status = 1000 if code is None else STATUS[code].socket
    with suppress(WebSocketDisconnect, RuntimeError, asyncio.TimeoutError):
        if socket.application_state == WebSocketState.CONNECTED:
            await asyncio.wait_for(socket.send_text(json.dumps(message)), 1)
            await asyncio.wait_for(socket.close(status, code), 1)


async def _exchange(socket: WebSocket, streams: Streams, side: str) -> None:
    """Exchange the messages of a stream; "encode" takes audio and gives codes."""
    info = streams.info
    audio_format, num_quantizers, bitrate = _options(socket, side)
    frames = PackedFrames(info, num_quantizers)
    if side == "encode":
        reader: Any = audio_reader(audio_format, info)
        writer: Any = frames
        frame_size = info.downsample_rate
    else:
        reader, writer = frames, audio_writer(audio_format, info, bitrate)
        frame_size = 1
    async with streams.live(side, client_of(socket)) as stream:
        source = _StreamInput(socket, stream, streams, frame_size)
        await socket.send_text(_first_message(side, info, frames, audio_format))

        async def read() -> None:
            while (message := await source.next_message()) is not None:
                for part in reader.parts(message, _PART_FRAMES * frame_size):
                    await source.feed(reader.read(part))
            await source.feed(reader.rest())
            await source.finish()

        async def write() -> None:
            num_frames = 0
            async for result, count in stream.results():
                for message in writer.messages(result):
                    await source.send(message)
                num_frames += count
            for message in writer.last_messages():
                await source.send(message)
            made = num_frames * info.downsample_rate
            samples = source.num_fed if side == "encode" else made
            await _end(socket, {"type": "done", "frames": num_frames, "samples": samples})

        await _together(read(), write())


def _options(socket: WebSocket, side: str) -> tuple[str, int | None, int]:
    """Audio format, number of quantizers and bitrate from the query; the key is `admission`'s."""
    names = ("audio", "num_quantizers", "bitrate")[: 2 if side == "encode" else 3]
    query = {name: value for name, value in socket.query_params.items() if name != "key"}
    for name in query:
        if name not in names:
            raise unknown_name(name, names)
    numbers = {name: _number(name, query[name]) for name in names[1:] if name in query}
    bitrate = numbers.get("bitrate", _DEFAULT_OPUS_BITRATE)
    return query.get("audio", "pcm_s16le"), numbers.get("num_quantizers"), bitrate


def _number(name: str, value: str) -> int:
    if len(value) > _MAX_DIGITS or not value.removeprefix("-").isdecimal():
        raise Refused("bad_input", f"{name} is {value!r:.40}; expected a whole number")
    return int(value)


def _first_message(side: str, info: CodecInfo, frames: PackedFrames, audio_format: str) -> str:
    """The first message: all that a client needs to read and write the others."""
    return json.dumps(
        {
            "type": "ready",
            "side": side,
            "model": info.identity,
            "audio": audio_format,
            "sampling_rate": info.sampling_rate,
            "num_channels": info.num_channels,
            "samples_per_frame": info.downsample_rate,
            "num_quantizers": frames.num_quantizers,
            "codebook_size": info.codebook_size,
            "bits_per_code": frames.bits_per_code,
            "bytes_per_frame": frames.bytes_per_frame,
        }
    )


class _StreamInput:
    """The input of one stream, read within the limits; its entries are samples or frames."""

    def __init__(
        self, socket: WebSocket, stream: Stream, streams: Streams, frame_size: int
    ) -> None:
        self.num_fed = 0
        self._socket = socket
        self._stream = stream
        self._settings = settings = streams.settings
        self._rate = rate = frame_size * streams.info.frame_rate
        self._messages = TokenBucket(MAX_MESSAGES_A_SECOND, MAX_MESSAGES_A_SECOND)
        speed = settings.max_speed * rate
        self._speed = TokenBucket(speed, speed * _BURST_SECONDS)
        # At most one step at a time, so the speed limit takes effect within a long message.
        self._max_part = settings.step_frames * frame_size

    async def next_message(self) -> bytes | None:
        """Wait for the next binary message; None at the end of the stream."""
        seconds = self._settings.idle_seconds
        message = f"nothing arrived for {seconds:g} s; send audio, or end the stream"
        event = await _within(self._socket.receive(), seconds, "idle", message)
        _require_connected(event)
        data = event.get("bytes")
        if data is None:
            _require_end(event.get("text") or "")
            return None
        if not data:
            raise Refused("bad_input", "a message is empty; send audio or codes, or end the stream")
        await self._messages.wait(1)
        return data

    async def feed(self, chunk: Any) -> None:
        """Queue a chunk, at the allowed speed."""
        for start in range(0, chunk.shape[1], self._max_part):
            part = chunk[:, start : start + self._max_part]
            self.num_fed += part.shape[1]
            if self.num_fed > self._settings.max_stream_seconds * self._rate:
                got = f"the stream is longer than {self._settings.max_stream_seconds:g} s"
                raise Refused("too_long", f"{got}; end it and open another")
            await self._speed.wait(part.shape[1])
            await self._stream.feed(part)

    async def finish(self) -> None:
        """End the stream and watch the connection for a disconnect."""
        self._stream.finish()
        _require_connected(await self._socket.receive())
        message = "a message arrived after the end of the stream; open another stream"
        raise Refused("bad_input", message)

    async def send(self, message: bytes) -> None:
        """Send a message, as fast as the client reads."""
        seconds = self._settings.idle_seconds
        text = f"nothing was read for {seconds:g} s; read the messages of the server"
        await _within(self._socket.send_bytes(message), seconds, "stalled", text)


def _require_connected(event: Any) -> None:
    if event["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(event.get("code", 1005))


def _require_end(text: str) -> None:
    if len(text) <= _MAX_TEXT:  # longer ones are not worth the time to parse them
        with suppress(ValueError, RecursionError):
            message = json.loads(text)
            if isinstance(message, dict) and message.get("type") == "end":
                return
    raise Refused(
        "bad_input", f'got the text {text[:40]!r}; expected binary messages, or {{"type": "end"}}'
    )


async def _within(work: Awaitable[_Result], seconds: float, code: str, message: str) -> _Result:
    try:
        return await asyncio.wait_for(work, seconds)
    except asyncio.TimeoutError:
        raise Refused(code, message) from None


async def _together(read: Coroutine[Any, Any, None], write: Coroutine[Any, Any, None]) -> None:
    """Run both until everything is written or one of them fails; then cancel the other."""
    tasks = [asyncio.create_task(read), asyncio.create_task(write)]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        # If both have failed, the writer's error comes first: it is the stream's own.
        for task in reversed(tasks):
            if task in done:
                task.result()
    finally:
        await end_tasks(*tasks)
