"""The life of a model behind the server: loading, ready, draining, stopped.

Owns what live streams and speech have in common: a model that is opened on its own thread, the
checks before new work, and a drain that waits for open work up to a limit. Knows no protocol.
"""

import asyncio
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any, Protocol

from ..codes.codec import CodecInfo
from ..errors import ServerBusy, ServerError
from .metrics import Metrics
from .settings import ServerSettings

_LAST_MESSAGE_SECONDS = 2.0
_POLL_SECONDS = 0.02
_PATIENCE_SECONDS = 0.05
# The share of the queue that one client cannot take: one in so many places.
_RESERVED = 4


class OpenWork(Protocol):
    """A stream or a speech request that a drain may have to break off."""

    ending: str

    def fail(self, error: Exception) -> None:
        """End it with an error."""
        ...


class ModelService:
    """A model on its own thread, seen from asyncio.

    Args:
        name: The model's role in messages, such as "model" or "speech model".
        opened: Resolves to the codec's facts once the model is loaded.
        settings: The server's limits.
        metrics: The server's counters.

    Attributes:
        is_draining: Whether the server is about to stop.
    """

    def __init__(
        self, name: str, opened: "Future[CodecInfo]", settings: ServerSettings, metrics: Metrics
    ) -> None:
        self.settings = settings
        self.metrics = metrics
        self.is_draining = False
        self._name = name
        self._opened = opened
        self._info: CodecInfo | None = None
        self._open_work: set[Any] = set()
        self._held: Counter[tuple[str, str]] = Counter()

    async def stop(self) -> None:
        """Stop the model's thread."""
        raise NotImplementedError

    async def opened(self) -> CodecInfo:
        """Wait until the model is loaded.

        Raises:
            MossAudioError, OSError: The model could not be opened.
        """
        # Shielded: a caller that stops waiting must not cancel the loading for the others.
        self._info = await asyncio.shield(asyncio.wrap_future(self._opened))
        return self._info

    @property
    def info(self) -> CodecInfo:
        """The codec's facts.

        Raises:
            ServerBusy: The model is still loading.
        """
        if self._info is None:
            raise ServerBusy(f"the {self._name} is still being loaded; try again in some seconds")
        return self._info

    @property
    def is_healthy(self) -> bool:
        """Whether the model's thread is alive."""
        raise NotImplementedError

    @property
    def is_ready(self) -> bool:
        """Whether new work is accepted."""
        return self._info is not None and self.is_healthy and not self.is_draining

    def require_open(self) -> None:
        """Check that new work is accepted.

        Raises:
            ServerBusy: The model is loading, has stopped, or the server is about to stop.
        """
        if self.is_draining:
            raise ServerBusy("the server is about to stop; try another, or this one later")
        if not self.is_healthy:
            raise ServerBusy(f"the {self._name} has stopped; the server must be restarted")
        _ = self.info

    @contextmanager
    def _place(self, kind: str, client: str, num_taken: int, num_places: int) -> Iterator[None]:
        """Count a request of a client, which cannot take the last quarter of the queue.

        Raises:
            ServerBusy: The client has too many of them.
        """
        share = num_places - num_places // _RESERVED
        if self._held[kind, client] >= share and num_taken >= share:
            raise ServerBusy(
                f"{self._held[kind, client]} of {num_places} places are taken by this client, and "
                "the rest is for others; try again later"
            )
        with self._counted(kind, client):
            yield

    @contextmanager
    def _counted(self, kind: str, client: str) -> Iterator[None]:
        self._held[kind, client] += 1
        try:
            yield
        finally:
            self._held[kind, client] -= 1
            if not self._held[kind, client]:
                del self._held[kind, client]

    def _is_busy(self) -> bool:
        return bool(self._open_work)

    async def drain(self) -> None:
        """Refuse new work, wait for open work up to the limit, then break it off."""
        self.is_draining = True
        now = asyncio.get_running_loop().time
        deadline = now() + self.settings.drain_seconds
        while self._is_busy() and now() < deadline:
            await asyncio.sleep(_POLL_SECONDS)
        for work in self._open_work:
            work.ending = "drained"
            work.fail(ServerError("the server stops now; try again on another server"))
        # The last message may be stuck behind a client that does not read.
        while self._open_work and now() < deadline + _LAST_MESSAGE_SECONDS:
            await asyncio.sleep(_POLL_SECONDS)


async def end_tasks(*tasks: "asyncio.Future[Any]") -> None:
    """Cancel tasks and wait until they have ended; ignores what they raise.

    Cancels repeatedly: before Python 3.12, `asyncio.wait_for` drops a cancellation if the awaited
    result arrives at the same moment, and the task would run on.
    """
    left = set(tasks)
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=_PATIENCE_SECONDS)
    await asyncio.gather(*tasks, return_exceptions=True)
