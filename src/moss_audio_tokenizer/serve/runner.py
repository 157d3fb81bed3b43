"""Runs a server: the port, and a shutdown that lets live streams end.

The first SIGTERM or SIGINT drains: new work is refused, and live streams may continue for a while.
The second stops the server at once.
"""

import asyncio
import socket
import sys
from collections.abc import Callable
from types import FrameType

import uvicorn

from ..errors import ServerError
from .app import CodecServer
from .connections import LimitedWebSocket, http_protocol, raise_file_limit

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
