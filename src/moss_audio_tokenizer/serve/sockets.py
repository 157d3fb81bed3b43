"""Live streams over WebSockets: one connection, one direction, one slot.

The server says hello with what the codec is; then come binary messages both ways, and
``{"type": "end"}`` from a client that has no more. docs/serving.md describes it for clients.
Owns the conversation and its clocks; bytes are `wire`'s, batches `streams`'.
"""

import asyncio
import json
import logging
import math
from collections.abc import Awaitable, Coroutine
from contextlib import suppress
from typing import Any, TypeVar

from fastapi import APIRouter, WebSocket
from starlette.websockets import WebSocketDisconnect, WebSocketState

from ..codes.codec import CodecInfo
from .endings import end_tasks
from .limits import Pace
from .refusals import STATUS, Gate, Refused, document_of, refusal_of
from .settings import ServerSettings
from .streams import Stream, Streams
from .wire import PackedFrames, audio_reader, audio_writer

_log = logging.getLogger(__name__)
_Result = TypeVar("_Result")
# A rest is worth this much of feeding faster than the limit.
_BURST_SECONDS = 1.0
_DEFAULT_OPUS_BITRATE = 32_000


def socket_routes(streams: Streams, gate: Gate) -> APIRouter:
    """The routes of live streams."""
    router = APIRouter()

    @router.websocket("/v1/encode/stream")
    async def encode_stream(
        socket: WebSocket, audio: str = "pcm_s16le", num_quantizers: int | None = None
    ) -> None:
        async def talk() -> None:
            await _encode(socket, streams, audio, num_quantizers)

        await _conversation(socket, streams, gate, talk)

    @router.websocket("/v1/decode/stream")
    async def decode_stream(
        socket: WebSocket,
        audio: str = "pcm_s16le",
        num_quantizers: int | None = None,
        bitrate: int = _DEFAULT_OPUS_BITRATE,
    ) -> None:
        async def talk() -> None:
            await _decode(socket, streams, audio, num_quantizers, bitrate)

        await _conversation(socket, streams, gate, talk)

    return router


async def _conversation(socket: WebSocket, streams: Streams, gate: Gate, talk: Any) -> None:
    """Accept a connection, talk, and end it with a message that says why."""
    # Accepted before it is refused: a browser does not show what is said before.
    await socket.accept()
    try:
        gate.check(socket)
        await talk()
    except WebSocketDisconnect:
        return
    except Exception as error:
        refusal = refusal_of(error)
        streams.metrics.refused(refusal.code)
        if refusal.code == "server":
            _log.error("a stream failed", exc_info=error)
        await _end(socket, document_of(refusal) | {"type": "error"}, refusal.code)


async def _end(socket: WebSocket, message: dict[str, Any], code: str | None = None) -> None:
    """A last message and the end, if there is still someone to tell."""
    status = 1000 if code is None else STATUS[code].socket
    with suppress(WebSocketDisconnect, RuntimeError, asyncio.TimeoutError):
        if socket.application_state == WebSocketState.CONNECTED:
            await asyncio.wait_for(socket.send_text(json.dumps(message)), 1)
            await asyncio.wait_for(socket.close(status, code), 1)


async def _encode(
    socket: WebSocket, streams: Streams, audio_format: str, num_quantizers: int | None
) -> None:
    frames = PackedFrames(streams.info, num_quantizers)
    reader = audio_reader(audio_format, streams.info)
    async with streams.live("encode") as stream:
        inlet = _Inlet(socket, stream, streams.settings, streams.info, streams.info.sampling_rate)
        await socket.send_text(_hello("encode", streams.info, frames, audio_format))

        async def read() -> None:
            while (message := await inlet.next_message()) is not None:
                await inlet.feed(reader.read(message))
            await inlet.feed(reader.finish())
            await inlet.finish()

        async def write() -> None:
            num_frames = 0
            async for codes, count in stream.results():
                await inlet.send(frames.write(codes))
                num_frames += count
            await _end(socket, {"type": "done", "frames": num_frames, "samples": inlet.num_fed})

        await _together(read(), write())


async def _decode(
    socket: WebSocket,
    streams: Streams,
    audio_format: str,
    num_quantizers: int | None,
    bitrate: int,
) -> None:
    frames = PackedFrames(streams.info, num_quantizers)
    writer = audio_writer(audio_format, streams.info, bitrate)
    async with streams.live("decode") as stream:
        inlet = _Inlet(socket, stream, streams.settings, streams.info, streams.info.frame_rate)
        await socket.send_text(_hello("decode", streams.info, frames, audio_format))

        async def read() -> None:
            while (message := await inlet.next_message()) is not None:
                await inlet.feed(frames.read(message))
            await inlet.finish()

        async def write() -> None:
            num_frames = 0
            async for audio, count in stream.results():
                for message in writer.write(audio):
                    await inlet.send(message)
                num_frames += count
            for message in writer.finish():
                await inlet.send(message)
            samples = num_frames * streams.info.downsample_rate
            await _end(socket, {"type": "done", "frames": num_frames, "samples": samples})

        await _together(read(), write())


def _hello(side: str, info: CodecInfo, frames: PackedFrames, audio_format: str) -> str:
    """The first message: all that a client must know to read and write the others."""
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


class _Inlet:
    """What a client sends, within its limits.

    Args:
        socket: the connection.
        stream: where it goes.
        settings: limits.
        info: the codec's.
        rate: entries (samples or frames) of a second.
    """

    def __init__(
        self,
        socket: WebSocket,
        stream: Stream,
        settings: ServerSettings,
        info: CodecInfo,
        rate: float,
    ) -> None:
        self.num_fed = 0
        self._socket = socket
        self._stream = stream
        self._settings = settings
        self._rate = rate
        self._messages = Pace(settings.max_messages_a_second, settings.max_messages_a_second)
        self._speed = Pace(settings.max_speed * rate, settings.max_speed * rate * _BURST_SECONDS)
        # No more at once than a step takes: else a burst would pass before its pace is felt.
        self._portion = max(1, math.ceil(settings.step_frames * rate / info.frame_rate))

    async def next_message(self) -> bytes | None:
        """The next binary message; None once the client has said that there are no more.

        Raises:
            Refused: nothing came for too long, or what came is no message of ours.
            WebSocketDisconnect: the client went.
        """
        seconds = self._settings.idle_seconds
        message = f"nothing came for {seconds:g} s; send audio, or end the stream"
        event = await _within(self._socket.receive(), seconds, "idle", message)
        if event["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(event.get("code", 1005))
        data = event.get("bytes")
        if data is None:
            _require_end(event.get("text") or "")
            return None
        await self._messages.keep(1)
        return data

    async def feed(self, chunk: Any) -> None:
        """Queue a chunk, at the pace that is allowed.

        Raises:
            Refused: the stream has become too long.
        """
        for start in range(0, chunk.shape[1], self._portion):
            part = chunk[:, start : start + self._portion]
            self.num_fed += part.shape[1]
            if self.num_fed > self._settings.max_stream_seconds * self._rate:
                raise Refused(
                    "too_long",
                    f"the stream is longer than {self._settings.max_stream_seconds:g} s; end it "
                    "and open another",
                )
            await self._speed.keep(part.shape[1])
            await self._stream.feed(part)

    async def finish(self) -> None:
        """End the stream and watch the connection: a client that goes now needs no results.

        Raises:
            Refused: something came behind the end.
            WebSocketDisconnect: the client went.
        """
        self._stream.finish()
        event = await self._socket.receive()
        if event["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(event.get("code", 1005))
        raise Refused("bad_input", "a message came behind the end of the stream; open another")

    async def send(self, message: bytes) -> None:
        """Send, as fast as the client takes it.

        Raises:
            Refused: it takes nothing.
            WebSocketDisconnect: the client went.
        """
        seconds = self._settings.stall_seconds
        text = f"nothing was taken for {seconds:g} s; read what is sent"
        await _within(self._socket.send_bytes(message), seconds, "stalled", text)


def _require_end(text: str) -> None:
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
    """Read and write until all is written, or either fails; then neither goes on."""
    tasks = [asyncio.create_task(read), asyncio.create_task(write)]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        # Both may have ended: the writer's reason is the stream's, the reader's the client's.
        for task in reversed(tasks):
            if task in done:
                task.result()
    finally:
        await end_tasks(*tasks)
