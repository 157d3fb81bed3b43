"""Rates and keys: how often, how fast, and by whom a server may be used."""

import asyncio
import hmac
import time
from collections import OrderedDict
from collections.abc import Collection

# Clients whose rate is remembered; the longest unseen are forgotten first.
_MAX_CLIENTS = 10_000


class Pace:
    """A rate that may be exceeded for a moment: who is ahead of it has to wait.

    Args:
        rate: units a second.
        burst: units that may be spent at once after a rest.
    """

    def __init__(self, rate: float, burst: float) -> None:
        self._rate = rate
        self._burst = burst
        self._left = burst
        self._seen = time.monotonic()

    def spend(self, amount: float) -> float:
        """Spend so much; returns the seconds to wait until the rate is kept again."""
        now = time.monotonic()
        self._left = min(self._burst, self._left + (now - self._seen) * self._rate)
        self._seen = now
        self._left -= amount
        return max(0.0, -self._left / self._rate)

    def refund(self, amount: float) -> None:
        """Take back what was spent on something that was then refused."""
        self._left += amount

    async def keep(self, amount: float) -> None:
        """Spend so much, and wait as long as it takes."""
        if seconds := self.spend(amount):
            await asyncio.sleep(seconds)


class RequestRates:
    """A rate of requests for every client.

    Args:
        a_minute: requests of one client a minute; 0 for no limit.
    """

    def __init__(self, a_minute: float) -> None:
        self._a_minute = a_minute
        self._paces: OrderedDict[str, Pace] = OrderedDict()

    def admit(self, client: str) -> float:
        """Count a request; returns the seconds to wait instead, or 0 if it is welcome."""
        if not self._a_minute:
            return 0.0
        pace = self._paces.pop(client, None) or Pace(
            self._a_minute / 60, max(1, self._a_minute / 6)
        )
        self._paces[client] = pace
        if len(self._paces) > _MAX_CLIENTS:
            self._paces.popitem(last=False)
        if wait := pace.spend(1):
            pace.refund(1)
        return wait


def is_known_key(key: str, keys: Collection[str]) -> bool:
    """Whether a key opens the interface; how long it takes tells nothing of the keys."""
    given = key.encode()
    return sum(hmac.compare_digest(given, known.encode()) for known in keys) > 0
