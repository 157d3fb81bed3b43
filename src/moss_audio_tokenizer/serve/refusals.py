"""How errors look from outside: a code for programs, a message for people, and a status.

Owns that one table for HTTP and WebSockets, and who is let in at all.
"""

from dataclasses import dataclass

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
)
from .limits import RequestRates, is_known_key
from .metrics import Metrics
from .settings import ServerSettings

_RETRY_SECONDS = 2


class Refused(Exception):  # noqa: N818 - an answer, not a mistake
    """A request that is refused for what it is, not for what it holds.

    Args:
        code: of `STATUS`.
        message: what was got, what was expected, what to do.
        retry_seconds: when to try again, if that helps.
        field: what of the request is to blame, where it is one field.
    """

    def __init__(
        self, code: str, message: str, retry_seconds: float = 0.0, field: str | None = None
    ) -> None:
        super().__init__(message)
        self.code = code
        self.retry_seconds = retry_seconds
        self.field = field


@dataclass(frozen=True)
class Status:
    """An answer's numbers.

    Attributes:
        http: status of a response.
        socket: close code of a WebSocket.
    """

    http: int
    socket: int


STATUS = {
    "bad_input": Status(422, 1007),
    "unauthorized": Status(401, 1008),
    "not_found": Status(404, 1008),
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
    """What to answer to an error; what nobody foresaw tells nothing of the inside."""
    if isinstance(error, Refused):
        return error
    if isinstance(error, ServerBusy):
        return Refused("busy", str(error), _RETRY_SECONDS)
    if isinstance(error, InputError | AudioFileError | CodesFileError | ModelMismatchError):
        return Refused("bad_input", " ".join(str(error).split()))
    if isinstance(error, MissingDependencyError | ServerError | MossAudioError):
        return Refused("server", " ".join(str(error).split()))
    return Refused("server", f"the server failed ({type(error).__name__}); its log says where")


def document_of(refusal: Refused) -> dict[str, dict[str, str]]:
    """The JSON of a refusal."""
    return {"error": {"code": refusal.code, "message": str(refusal)}}


def openai_document_of(refusal: Refused) -> dict[str, dict[str, str | None]]:
    """The same as OpenAI's clients read it: all of `document_of`, a type, and the field."""
    kind = _OPENAI_TYPES.get(refusal.code, "invalid_request_error")
    more = {"type": kind, "param": refusal.field}
    return {"error": {**document_of(refusal)["error"], **more}}


def openai_status_of(refusal: Refused) -> int:
    """As `STATUS`, but what cannot be used is a 400."""
    return 400 if refusal.code == "bad_input" else STATUS[refusal.code].http


class Gate:
    """Who is let in: keys, and a rate for every client."""

    def __init__(self, settings: ServerSettings, metrics: Metrics) -> None:
        self._keys = settings.api_keys
        self._rates = RequestRates(settings.max_requests_a_minute)
        self._metrics = metrics

    def guards(self) -> list[Dependency]:
        """What keeps a router's routes."""

        async def let_in(request: Request) -> None:
            self.check(request)

        # HTTPBearer only describes itself here: the gate looks at the key.
        return [Depends(HTTPBearer(auto_error=False)), Depends(let_in)]

    def check(self, connection: HTTPConnection) -> None:
        """Let a request or a WebSocket pass.

        Raises:
            Refused: without a key, or too often.
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
    """The key in the header or, for browsers' WebSockets, which have none, in the query."""
    scheme, _, key = connection.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return key.strip()
    return connection.query_params.get("key", "") if connection.scope["type"] == "websocket" else ""
