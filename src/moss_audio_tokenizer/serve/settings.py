"""Limits and batch sizes of a server: one frozen dataclass."""

from dataclasses import dataclass
from pathlib import Path

from ..errors import ConfigError

# How long a step waits for more streams once one is ready.
GATHER_SECONDS = 0.004
# Messages of one stream; it is read more slowly beyond that.
MAX_MESSAGES_A_SECOND = 200.0
# The length of one text.
MAX_TEXT_CHARACTERS = 4096
_MAY_BE_ZERO = (
    *("max_waiting_clips", "max_waiting_speeches", "max_streams_a_client"),
    *("max_requests_a_minute", "clip_patience_seconds", "drain_seconds"),
)


@dataclass(frozen=True)
class ServerSettings:
    """The limits of a server; a stream is one direction, encode or decode.

    Attributes:
        max_streams: The number of live streams; a further one is answered "busy".
        max_streams_a_client: The number of live streams of one client; 0 for no limit.
        max_clips: The number of whole files of each direction that are processed together.
        max_waiting_clips: The number of whole files that may wait; a further one is "busy".
        step_frames: The largest number of frames of one live stream in a step.
        clip_step_frames: The largest number of frames of one whole file in a step.
        clip_patience_seconds: How long live streams may delay the steps of whole files.
        max_ahead_seconds: Audio that a stream may have queued, on either side of the model.
        max_speed: The speed at which a stream may be fed, in times real time.
        max_requests_a_minute: Requests and new streams of one client; 0 for no limit.
        max_message_bytes: The size of a WebSocket message.
        max_upload_bytes: The size of a file in a request.
        max_upload_seconds: How long a request's body may take to arrive.
        max_stream_seconds: The audio of one live stream.
        max_clip_seconds: The audio of one whole file.
        max_waiting_speeches: Texts that may wait behind the current one; a further one is "busy".
        max_speech_seconds: The audio of one speech.
        max_prompt_seconds: The recording in whose voice a text is spoken.
        idle_seconds: How long a client may send nothing, or read nothing.
        drain_seconds: How long live streams may continue after SIGTERM.
        voice_folder: The folder of the voice cache; None for a server without voices.
        max_voice_bytes: The size of the voice cache; the longest unused voices are dropped.
        api_keys: The valid API keys; an empty set admits everybody.
        cors_origins: Sites whose web pages may use the server; "*" stands for all.
        allowed_hosts: The names by which the server may be addressed; None for any.
        trusts_proxy: Whether X-Forwarded-For of a proxy on this machine names the client.

    Raises:
        ConfigError: A number is out of range, or an API key is too short.
    """

    max_streams: int = 16
    max_streams_a_client: int = 0
    max_clips: int = 2
    max_waiting_clips: int = 16
    step_frames: int = 4
    clip_step_frames: int = 10
    clip_patience_seconds: float = 0.25
    max_ahead_seconds: float = 2.0
    max_speed: float = 4.0
    max_requests_a_minute: float = 600.0
    max_message_bytes: int = 1 << 20
    max_upload_bytes: int = 64 << 20
    max_upload_seconds: float = 300.0
    max_stream_seconds: float = 4 * 3600.0
    max_clip_seconds: float = 600.0
    max_waiting_speeches: int = 8
    max_speech_seconds: float = 20.0
    max_prompt_seconds: float = 30.0
    idle_seconds: float = 30.0
    drain_seconds: float = 30.0
    voice_folder: Path | None = None
    max_voice_bytes: int = 256 << 20
    api_keys: frozenset[str] = frozenset()
    cors_origins: frozenset[str] = frozenset()
    allowed_hosts: frozenset[str] | None = None
    trusts_proxy: bool = False

    def __post_init__(self) -> None:
        numbers = {name: value for name, value in vars(self).items() if type(value) in (int, float)}
        for name, value in numbers.items():
            if not (value > 0 or (value == 0 and name in _MAY_BE_ZERO)):  # NaN neither
                raise ConfigError(f"{name} is {value}; expected a number above 0")
        if any(len(key) < 8 or not key.isascii() for key in self.api_keys):
            raise ConfigError("an API key has fewer than 8 characters, or others than ASCII")
