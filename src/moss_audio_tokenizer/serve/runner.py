"""Runs a server: the port, the limits of connections, and a shutdown that lets live streams end.

The first SIGTERM or SIGINT drains: new work is refused, and live streams may continue for a while.
The second stops the server at once. Subclasses of uvicorn's two protocols close a connection which
sends no request, sends control frames faster than messages are allowed, or leaves its answers
unread.
"""

import asyncio
import select
import socket
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import uvicorn
from uvicorn.protocols.http.auto import AutoHTTPProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from ..errors import ServerError
from .admission import TokenBucket
from .app import CodecServer
from .settings import MAX_MESSAGES_A_SECOND

_SWITCH_SECONDS = 0.0005
# Each round of accepting takes up to this many connections at once.
_BACKLOG = 64


def run(server: CodecServer, host: str, port: int, announce: Callable[[str], None]) -> None:
    """Serve until a signal arrives.

    Args:
        server: The server.
        host: The address to listen on.
        port: The port to listen on; 0 picks a free one.
        announce: Called with the server's URL once the model is loaded.

    Raises:
        ServerError: The server cannot listen on this port.
        MossAudioError, OSError: The codec cannot be opened.
    """
    # The model thread releases the interpreter's lock hundreds of times per step. With the default
    # interval it could wait 5 ms each time to get it back.
    sys.setswitchinterval(_SWITCH_SECONDS)
    listener = _listener(host, port)
    with listener:
        asyncio.run(_serve(server, listener, announce))


def uvicorn_of(server: CodecServer, max_connections: int = 1000) -> "DrainingServer":
    """Create the uvicorn server with its limits."""
    config = uvicorn.Config(
        server.app,
        ws=LimitedWebSocket,
        ws_max_size=server.settings.max_message_bytes,
        # A client that is slowed down cannot answer pings; streams have their own time limits.
        ws_ping_interval=None,
        ws_per_message_deflate=False,
        http=http_protocol(max_connections),
        proxy_headers=server.settings.trusts_proxy,
        backlog=_BACKLOG,
        access_log=False,  # it would log API keys
        log_level="warning",
        timeout_graceful_shutdown=5,
    )
    return DrainingServer(config, server)


class DrainingServer(uvicorn.Server):
    """A uvicorn server that lets live streams end before it stops."""

    def __init__(self, config: uvicorn.Config, server: CodecServer) -> None:
        super().__init__(config)
        self._codec_server = server
        self._draining: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start to listen; keeps the event loop for the signal handlers."""
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002
        """Drain at the first signal, stop at the second."""
        if self._draining is None and self._loop is not None:
            self._loop.call_soon_threadsafe(self.drain)
        else:
            # Without uvicorn's force_exit, which leaves the application without its shutdown.
            self.config.timeout_graceful_shutdown = 0
            self.should_exit = True

    def drain(self) -> None:
        """Start to drain."""
        if self._draining is None:
            self._draining = asyncio.ensure_future(self._drain())

    async def _drain(self) -> None:
        await self._codec_server.drain()
        self.should_exit = True


async def _serve(
    server: CodecServer, listener: socket.socket, announce: Callable[[str], None]
) -> None:
    host, port = listener.getsockname()[:2]
    runner = uvicorn_of(server, raise_file_limit())
    serving = asyncio.create_task(runner.serve([listener]))
    while not (runner.started or serving.done()):
        await asyncio.sleep(0.01)
    opening = asyncio.create_task(server.open())
    await asyncio.wait({serving, opening}, return_when=asyncio.FIRST_COMPLETED)
    if opening.done() and opening.exception() is None:
        announce(f"http://{f'[{host}]' if ':' in host else host}:{port}")
    elif opening.done():
        runner.should_exit = True
    await serving
    if opening.done():
        opening.result()
    opening.cancel()


def _listener(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio sets TCP_NODELAY only on sockets whose protocol is given.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        if sys.platform != "win32":
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except OSError as problem:
        listener.close()
        raise ServerError(
            f"cannot listen on {host}:{port} ({problem.strerror or problem}); choose another --port"
        ) from problem
    return listener


# A connection must have sent the head of a request after this time.
REQUEST_SECONDS = 10.0
# The time for the closing handshake of a WebSocket.
_CLOSE_SECONDS = 1.0
# Unsent answers to control frames.
_MAX_UNSENT_BYTES = 1 << 16
# Received data is parsed in parts of this size, so that a refusal takes effect in between.
_PART_BYTES = 4096
_HANG_UP_POLL_SECONDS = 1.0
# Files that the process needs beside its connections.
_OTHER_FILES = 128
_MOST_CONNECTIONS = 4096


def raise_file_limit() -> int:
    """Raise the limit of open files; returns the number of connections that it allows."""
    if sys.platform == "win32":
        return _MOST_CONNECTIONS
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MOST_CONNECTIONS + _OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(hard, wanted)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft == resource.RLIM_INFINITY:
        return _MOST_CONNECTIONS
    return max(16, min(_MOST_CONNECTIONS, soft - _OTHER_FILES))


def http_protocol(max_connections: int) -> type[asyncio.Protocol]:
    """The HTTP protocol of a server that allows so many connections."""

    class LimitedHttp(AutoHTTPProtocol):  # type: ignore[misc,valid-type]
        """HTTP whose requests must arrive in time."""

        _timer: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            if len(self.connections) > max_connections:
                transport.abort()
                return
            self._expect_request()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self.cycle is not None and not self.cycle.response_complete:
                self._stop_timer()
            elif self._timer is None:
                self._expect_request()

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop_timer()
            super().connection_lost(exc)

        def _expect_request(self) -> None:
            self._timer = self.loop.call_later(REQUEST_SECONDS, self._give_up)

        def _stop_timer(self) -> None:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

        def _give_up(self) -> None:
            self._timer = None
            is_idle = self.cycle is None or self.cycle.response_complete
            if is_idle and self.transport.get_protocol() is self:
                self.transport.abort()

    return LimitedHttp


class LimitedWebSocket(WebSocketsSansIOProtocol):
    """A WebSocket that limits control frames and unread answers, and notices a client that left."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.close_timeout = _CLOSE_SECONDS
        self._controls = TokenBucket(MAX_MESSAGES_A_SECOND, MAX_MESSAGES_A_SECOND)
        self._unparsed = bytearray()
        self._timer = self.loop.call_later(REQUEST_SECONDS, self._require_handshake)

    def data_received(self, data: bytes) -> None:
        """Parse in parts, and no further while the application is behind."""
        self._unparsed += data
        self._parse()

    def _parse(self) -> None:
        while self._unparsed and not (self.disconnected or self.read_paused):
            part = bytes(self._unparsed[:_PART_BYTES])
            del self._unparsed[:_PART_BYTES]
            super().data_received(part)
        if self.conn.handshake_exc is not None and not self.handshake_complete:
            self._abort()  # the request's head cannot be parsed

    async def receive(self) -> Any:
        """The next event; a client that has left has no messages."""
        while self.disconnected and self.queue.qsize() > 1:
            self.queue.get_nowait()
        event = await super().receive()
        self._parse()
        return event

    async def send(self, message: Any) -> None:
        """Send, and cut off a client that does not take the end."""
        await super().send(message)
        if message["type"] == "websocket.close":
            self._parse()
            self.loop.call_later(2 * self.close_timeout, self.transport.abort)

    def handle_ping(self) -> None:
        """Answer a ping, unless there are too many or the answers are not read."""
        unsent = self.transport.get_write_buffer_size()
        if self.close_sent or unsent > _MAX_UNSENT_BYTES or self._controls.spend(1):
            self._abort()
        else:
            super().handle_ping()

    def handle_pong(self, event: Any) -> None:
        """Count a pong; this server sends no pings."""
        self._abort() if self._controls.spend(1) else super().handle_pong(event)

    def handle_cont(self, event: Any) -> None:
        """Count a continuation: a message in countless frames is refused."""
        self._abort() if self._controls.spend(1) else super().handle_cont(event)

    def handle_parser_exception(self) -> None:
        """End a connection that is not a WebSocket; say why where a close frame can."""
        if self.conn.close_sent is None:
            self._abort()
            return
        super().handle_parser_exception()
        self.loop.call_later(self.close_timeout, self.transport.abort)

    def _abort(self) -> None:
        self._unparsed.clear()
        self.transport.abort()
        self.disconnected = True

    def _require_handshake(self) -> None:
        if not self.handshake_initiated:
            self._abort()
            return
        self._watch()

    def _watch(self) -> None:
        """Look for a client that hung up while its messages wait unread."""
        if self.disconnected or self.transport.is_closing():
            return
        if (self.read_paused or self._unparsed) and has_hung_up(self.transport):
            self._abort()
            return
        self._timer = self.loop.call_later(_HANG_UP_POLL_SECONDS, self._watch)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._timer.cancel()
        self._unparsed.clear()
        super().connection_lost(exc)


def has_hung_up(transport: asyncio.Transport) -> bool:
    """Whether the client has closed its side, found without reading; only on Linux."""
    own: socket.socket | None = transport.get_extra_info("socket")
    if own is None or not hasattr(select, "POLLRDHUP") or own.fileno() < 0:
        return False
    poll = select.poll()
    poll.register(own.fileno(), select.POLLRDHUP)
    return bool(poll.poll(0))
