"""Admission and refusal: who may send requests, and how an error looks to a client.

Owns the checks that come before the body of a request or a stream is read (API keys, web pages of
other sites, rates), and the one table of error codes for HTTP and WebSockets, in this server's
form and in OpenAI's.
"""

import asyncio
import hmac
import time
from collections import OrderedDict
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from fastapi import Depends, Request
from fastapi.params import Depends as Dependency
from fastapi.security import HTTPBearer
from starlette.requests import HTTPConnection

from ..errors import (
    AudioFileError,
    CodesFileError,
    InputError,
    MissingDependencyError,
    ModelMismatchError,
    MossAudioError,
    ServerBusy,
    ServerError,
    one_line,
    shortened,
)
from .settings import ServerSettings

_RETRY_SECONDS = 2
# The number of clients with a bucket; the longest unseen are dropped first.
_MAX_CLIENTS = 10_000
# The length of a client's name that is remembered.
_MAX_NAME = 128
# Wrong API keys of one address per minute; for more, the answer is to wait.
_WRONG_KEYS_A_MINUTE = 60.0


class Refused(Exception):  # noqa: N818 - an answer to a client, not a bug
    """A request that the server refuses.

    Args:
        code: A key of `STATUS`.
        message: What was got, what was expected, and what to do.
        retry_seconds: When to try again; 0 if that does not help.
        field: The one field of the request that caused the refusal, or None.
    """

    def __init__(
        self, code: str, message: str, retry_seconds: float = 0.0, field: str | None = None
    ) -> None:
        super().__init__(shortened(message))
        self.code = code
        self.retry_seconds = retry_seconds
        self.field = field


class Status(NamedTuple):
    """The numbers of an error code: the status of a response, the close code of a WebSocket."""

    http: int
    socket: int


STATUS = {
    "bad_input": Status(422, 1007),
    "unauthorized": Status(401, 1008),
    "forbidden": Status(403, 1008),
    "not_found": Status(404, 1008),
    "method_not_allowed": Status(405, 1008),
    "too_large": Status(413, 1009),
    "too_long": Status(413, 1008),
    "too_many_requests": Status(429, 1013),
    "idle": Status(408, 1008),
    "stalled": Status(408, 1008),
    "busy": Status(503, 1013),
    "server": Status(500, 1011),
}


_OPENAI_TYPES = {
    "unauthorized": "authentication_error",
    "too_many_requests": "rate_limit_error",
    "busy": "server_error",
    "server": "server_error",
}


def refusal_of(error: BaseException) -> Refused:
    """Translate an error to a refusal; unexpected errors reveal only the type of the exception."""
    if isinstance(error, Refused):
        return error
    if isinstance(error, ServerBusy):
        return Refused("busy", str(error), _RETRY_SECONDS)
    if isinstance(error, InputError | AudioFileError | CodesFileError | ModelMismatchError):
        return Refused("bad_input", one_line(error))
    if isinstance(error, MissingDependencyError | ServerError | MossAudioError):
        return Refused("server", one_line(error))
    return Refused("server", f"the server failed ({type(error).__name__}); its log says where")


def document_of(refusal: Refused) -> dict[str, Any]:
    """The JSON document of a refusal."""
    return {"error": {"code": refusal.code, "message": str(refusal)}}


def openai_answer(refusal: Refused) -> tuple[dict[str, Any], int]:
    """Document and HTTP status in OpenAI's form: with a type and the field, and 400 for 422."""
    kind = _OPENAI_TYPES.get(refusal.code, "invalid_request_error")
    error = document_of(refusal)["error"] | {"type": kind, "param": refusal.field}
    return {"error": error}, 400 if refusal.code == "bad_input" else STATUS[refusal.code].http


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
    """Admits requests: checks where they come from, the API key, and the rate of each client."""

    def __init__(self, settings: ServerSettings) -> None:
        self._settings = settings
        self._keys = settings.api_keys
        self._rates = RequestRates(settings.max_requests_a_minute)
        self._wrong_keys = RequestRates(_WRONG_KEYS_A_MINUTE)

    def guards(self) -> list[Dependency]:
        """The dependencies of every router that needs admission."""

        async def admit(request: Request) -> None:
            self.check(request)

        # HTTPBearer only describes the key in the OpenAPI document; `check` compares it.
        return [Depends(HTTPBearer(auto_error=False)), Depends(admit)]

    def open_guards(self) -> list[Dependency]:
        """The dependencies of routes that need no key."""

        async def admit(request: Request) -> None:
            self._check_origin(request)
            _check_query(request)

        return [Depends(admit)]

    def check(self, connection: HTTPConnection) -> None:
        """Admit a request or a WebSocket; its client is `client_of` from then on.

        Raises:
            Refused: It comes from a foreign web page, the key is missing or wrong, or the client
                sends too many requests.
        """
        self._check_origin(connection)
        host = connection.client.host[:_MAX_NAME] if connection.client else "?"
        key = _key_of(connection)
        if self._keys:
            self._check_key(key, host)
        client = key[:_MAX_NAME] if self._keys else host
        if wait := self._rates.admit(client):
            raise _too_many("requests", wait)
        connection.state.client = client
        _check_query(connection)

    def _check_key(self, key: str, host: str) -> None:
        # A valid key always passes: others behind the same proxy must not lock it out.
        if is_known_key(key, self._keys):
            return
        if wait := self._wrong_keys.admit(host):
            raise _too_many("wrong API keys", wait)
        raise Refused("unauthorized", "no valid API key; send it as 'Authorization: Bearer KEY'")

    def _check_origin(self, connection: HTTPConnection) -> None:
        """Keep web pages of other sites from using a server that their visitor can reach."""
        allowed, host = self._settings.allowed_hosts, connection.headers.get("host", "").lower()
        if allowed is not None and _without_port(host) not in allowed:
            raise Refused(
                "forbidden",
                f"the Host {host!r:.80} is not allowed; start the server with --allowed-host NAME",
            )
        origin = connection.headers.get("origin", "").lower()
        if not origin or urlsplit(origin).netloc == host:
            return
        if not {origin, "*"} & self._settings.cors_origins:
            raise Refused(
                "forbidden",
                f"web pages of {origin!r:.80} are not allowed; start the server with --cors ORIGIN",
            )


def client_of(connection: HTTPConnection) -> str:
    """The client of an admitted request: its key, or its address without keys."""
    return connection.state.client


def _without_port(host: str) -> str:
    name = host.partition("]")[0].strip("[") if host.startswith("[") else host.partition(":")[0]
    return name.rstrip(".")


def _check_query(connection: HTTPConnection) -> None:
    """Refuse names in the query that the route does not know."""
    names = getattr(connection.scope.get("route"), "dependant", None)
    if names is None or connection.scope["type"] == "websocket":
        return
    known = [parameter.alias for parameter in names.query_params]
    for name in connection.query_params:
        if name not in known:
            raise unknown_name(name, known)


def unknown_name(name: str, known: Sequence[str]) -> Refused:
    """The refusal of an unknown name in a query."""
    expected = f"expected {', '.join(known)}" if known else "expected none"
    return Refused("bad_input", f"the query has {name!r:.60}; {expected}")


def _too_many(what: str, wait: float) -> Refused:
    return Refused("too_many_requests", f"too many {what}; try again in {wait:.1f} s", wait)


def _key_of(connection: HTTPConnection) -> str:
    """The key in the header, or in the query for WebSockets: browsers cannot set their headers."""
    scheme, _, key = connection.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return key.strip()
    return connection.query_params.get("key", "") if connection.scope["type"] == "websocket" else ""
