"""Admission: API keys, and how often a client may send requests.

Owns the checks that come before a request or a stream is read.
"""

import asyncio
import hmac
import time
from collections import OrderedDict
from collections.abc import Collection

from fastapi import Depends, Request
from fastapi.params import Depends as Dependency
from fastapi.security import HTTPBearer
from starlette.requests import HTTPConnection

from .http_errors import Refused
from .metrics import Metrics
from .settings import ServerSettings

# The number of clients with a bucket; the longest unseen are dropped first.
_MAX_CLIENTS = 10_000


class TokenBucket:
    """A token bucket: a rate limit with a burst.

    Args:
        rate: Units per second.
        burst: Units that may be spent at once after a pause.
    """

    def __init__(self, rate: float, burst: float) -> None:
        self._rate = rate
        self._burst = burst
        self._left = burst
        self._seen = time.monotonic()

    def spend(self, amount: float) -> float:
        """Spend units; returns the seconds to wait until the rate is met again."""
        now = time.monotonic()
        self._left = min(self._burst, self._left + (now - self._seen) * self._rate)
        self._seen = now
        self._left -= amount
        return max(0.0, -self._left / self._rate)

    def refund(self, amount: float) -> None:
        """Return units that were spent on a refused request."""
        self._left += amount

    async def wait(self, amount: float) -> None:
        """Spend units and sleep until the rate is met."""
        if seconds := self.spend(amount):
            await asyncio.sleep(seconds)


class RequestRates:
    """A token bucket for each client.

    Args:
        a_minute: Requests per minute of one client; 0 for no limit.
    """

    def __init__(self, a_minute: float) -> None:
        self._a_minute = a_minute
        self._buckets: OrderedDict[str, TokenBucket] = OrderedDict()

    def admit(self, client: str) -> float:
        """Count a request; returns 0, or the seconds to wait if it comes too early."""
        if not self._a_minute:
            return 0.0
        bucket = self._buckets.pop(client, None) or TokenBucket(
            self._a_minute / 60, max(1, self._a_minute / 6)
        )
        self._buckets[client] = bucket
        if len(self._buckets) > _MAX_CLIENTS:
            self._buckets.popitem(last=False)
        if wait := bucket.spend(1):
            bucket.refund(1)
        return wait


def is_known_key(key: str, keys: Collection[str]) -> bool:
    """Whether the key is valid; the time it takes does not depend on the keys."""
    given = key.encode()
    return sum(hmac.compare_digest(given, known.encode()) for known in keys) > 0


class Gate:
    """Admits requests: checks the API key and the rate of each client."""

    def __init__(self, settings: ServerSettings, metrics: Metrics) -> None:
        self._keys = settings.api_keys
        self._rates = RequestRates(settings.max_requests_a_minute)
        self._metrics = metrics

    def guards(self) -> list[Dependency]:
        """The dependencies of every router that needs admission."""

        async def admit(request: Request) -> None:
            self.check(request)

        # HTTPBearer only describes the key in the OpenAPI document; `check` compares it.
        return [Depends(HTTPBearer(auto_error=False)), Depends(admit)]

    def check(self, connection: HTTPConnection) -> None:
        """Admit a request or a WebSocket.

        Raises:
            Refused: The key is missing or wrong, or the client sends too many requests.
        """
        key = _key_of(connection)
        if self._keys and not is_known_key(key, self._keys):
            raise Refused(
                "unauthorized", "no valid API key; send it as 'Authorization: Bearer KEY'"
            )
        host = connection.client.host if connection.client else "?"
        if wait := self._rates.admit(key if self._keys else host):
            raise Refused(
                "too_many_requests", f"too many requests; try again in {wait:.1f} s", wait
            )


def _key_of(connection: HTTPConnection) -> str:
    """The key in the header, or in the query for WebSockets: browsers cannot set their headers."""
    scheme, _, key = connection.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return key.strip()
    return connection.query_params.get("key", "") if connection.scope["type"] == "websocket" else ""
