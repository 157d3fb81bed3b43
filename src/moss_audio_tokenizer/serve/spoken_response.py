"""An answer that is sent while it is spoken.

Owns the pace at which a client must take it, and its end: one that breaks off looks broken off to
the client too, for the last chunk is missing.
"""

import asyncio
import time
from contextlib import AsyncExitStack, suppress

from fastapi import Request, Response
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from ..errors import MossAudioError
from .bodies import unless_gone
from .speaking import Samples, Speech
from .speech_sound import StreamedSound


class SpokenResponse(Response):
    """A speech as it comes.

    Args:
        first: its first sound, which says that there is one.
        speech: has the rest.
        sound: makes bytes of it.
        stall_seconds: by which a client may fall behind what it is sent, in real time.
        turn: is over once this is sent, or the client is gone.
    """

    def __init__(
        self,
        first: Samples,
        speech: Speech,
        sound: StreamedSound,
        stall_seconds: float,
        turn: AsyncExitStack,
    ) -> None:
        self.status_code = 200
        self.media_type = sound.media_type
        self.background = None
        # Not the parent's constructor: it would declare the length of a body.
        self.init_headers()
        self._first = first
        self._speech = speech
        self._sound = sound
        self._stall_seconds = self._patience = stall_seconds
        self._turn = turn

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it, for as long as the client is there."""
        async with self._turn:
            try:
                with suppress(ClientDisconnect, MossAudioError):
                    await unless_gone(Request(scope, receive), self._send(send))
            except asyncio.TimeoutError:
                self._speech.ending = "stalled"

    async def _send(self, send: Send) -> None:
        head = {"status": self.status_code, "headers": self.raw_headers}
        await send({"type": "http.response.start", **head})
        header = self._sound.header
        piece: Samples | None = self._first
        while piece is not None:
            await self._push(send, header + self._sound.write(piece), piece)
            header, piece = b"", await self._speech.next_piece()
        await self._push(send, self._sound.finish(), self._first)
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _push(self, send: Send, body: bytes, piece: Samples) -> None:
        """Send some, in time: who takes sound as slowly as it plays is never too slow."""
        start = time.monotonic()
        message = {"type": "http.response.body", "body": body, "more_body": True}
        await asyncio.wait_for(send(message), self._patience)
        left = self._patience - (time.monotonic() - start) + self._sound.seconds(piece)
        self._patience = min(self._stall_seconds, left)
