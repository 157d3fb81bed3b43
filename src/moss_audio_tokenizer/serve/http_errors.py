"""Errors as clients see them: a code for programs, a message for people, and a status.

Owns the one table of codes for HTTP and WebSockets, in this server's form and in OpenAI's.
"""

from dataclasses import dataclass

from ..errors import (
    AudioFileError,
    CodesFileError,
    InputError,
    MissingDependencyError,
    ModelMismatchError,
    MossAudioError,
    ServerBusy,
    ServerError,
    shortened,
)

_RETRY_SECONDS = 2


class Refused(Exception):  # noqa: N818 - an answer to a client, not a bug
    """A request that the server refuses.

    Args:
        code: A key of `STATUS`.
        message: What was got, what was expected, and what to do.
        retry_seconds: When to try again; 0 if that does not help.
        field: The field of the request that caused the refusal, if it is one field.
    """

    def __init__(
        self, code: str, message: str, retry_seconds: float = 0.0, field: str | None = None
    ) -> None:
        super().__init__(shortened(message))
        self.code = code
        self.retry_seconds = retry_seconds
        self.field = field


@dataclass(frozen=True)
class Status:
    """The numbers of an error code.

    Attributes:
        http: The status of a response.
        socket: The close code of a WebSocket.
    """

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
        return Refused("bad_input", " ".join(str(error).split()))
    if isinstance(error, MissingDependencyError | ServerError | MossAudioError):
        return Refused("server", " ".join(str(error).split()))
    return Refused("server", f"the server failed ({type(error).__name__}); its log says where")


def document_of(refusal: Refused) -> dict[str, dict[str, str]]:
    """The JSON document of a refusal."""
    return {"error": {"code": refusal.code, "message": str(refusal)}}


def openai_document_of(refusal: Refused) -> dict[str, dict[str, str | None]]:
    """The JSON document of a refusal in OpenAI's form: `document_of`, a type, and the field."""
    kind = _OPENAI_TYPES.get(refusal.code, "invalid_request_error")
    more = {"type": kind, "param": refusal.field}
    return {"error": {**document_of(refusal)["error"], **more}}


def openai_status_of(refusal: Refused) -> int:
    """The HTTP status in OpenAI's form: as `STATUS`, but 400 for input that cannot be used."""
    return 400 if refusal.code == "bad_input" else STATUS[refusal.code].http
