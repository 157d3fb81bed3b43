"""What a server allows, and how it batches: one frozen set of numbers."""

from dataclasses import dataclass, fields
from pathlib import Path

from ..errors import ConfigError


@dataclass(frozen=True)
class ServerSettings:
    """Limits of a server; a stream is one direction, encode or decode.

    Attributes:
        max_streams: live streams at once; another gets the answer "busy".
        max_clips: whole files of each direction that are worked on together.
        max_waiting_clips: whole files that may wait for that; others get "busy".
        step_frames: frames of one live stream that a step takes at most.
        clip_step_frames: frames of one whole file that a step takes at most.
        gather_seconds: how long a step waits for company once a stream is ready.
        clip_patience_seconds: how long live streams may keep whole files from stepping.
        max_ahead_seconds: audio that a stream may have waiting, on either side of the model.
        max_speed: times real time at which a stream may be fed; its reading slows down beyond.
        max_messages_a_second: of one stream; its reading slows down beyond.
        max_requests_a_minute: requests and new streams of one client; 0 for no limit.
        max_message_bytes: of one WebSocket message.
        max_upload_bytes: of one request's body.
        max_stream_seconds: audio of one live stream.
        max_clip_seconds: audio of one whole file.
        max_waiting_speeches: texts that may wait behind the one that is spoken; others get "busy".
        max_speech_characters: of one text.
        max_speech_seconds: of what is said to one text.
        max_prompt_seconds: of a recording in whose voice a text is spoken.
        idle_seconds: how long a client may send nothing.
        stall_seconds: how long a client may refuse to take what is sent to it.
        drain_seconds: how long live streams may go on after SIGTERM.
        voice_folder: where codes of reference recordings are kept; None keeps none.
        max_voice_bytes: of all voices; the longest unused go first.
        api_keys: any of these opens the interface; none means that it is open to all.

    Raises:
        ConfigError: a number makes no sense.
    """

    max_streams: int = 16
    max_clips: int = 2
    max_waiting_clips: int = 16
    step_frames: int = 4
    clip_step_frames: int = 10
    gather_seconds: float = 0.004
    clip_patience_seconds: float = 0.25
    max_ahead_seconds: float = 2.0
    max_speed: float = 4.0
    max_messages_a_second: float = 200.0
    max_requests_a_minute: float = 600.0
    max_message_bytes: int = 1 << 20
    max_upload_bytes: int = 64 << 20
    max_stream_seconds: float = 4 * 3600.0
    max_clip_seconds: float = 600.0
    max_waiting_speeches: int = 8
    max_speech_characters: int = 4096
    max_speech_seconds: float = 20.0
    max_prompt_seconds: float = 30.0
    idle_seconds: float = 30.0
    stall_seconds: float = 30.0
    drain_seconds: float = 30.0
    voice_folder: Path | None = None
    max_voice_bytes: int = 256 << 20
    api_keys: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        may_be_zero = {"max_waiting_clips", "gather_seconds", "clip_patience_seconds"}
        may_be_zero |= {"max_waiting_speeches", "max_requests_a_minute", "drain_seconds"}
        for name in (field.name for field in fields(self)):
            value = getattr(self, name)
            if isinstance(value, int | float) and not (
                value > 0 or (value == 0 and name in may_be_zero)
            ):
                raise ConfigError(f"{name} is {value}; expected a number above 0")
        if any(len(key) < 8 or not key.isascii() for key in self.api_keys):
            raise ConfigError("an API key has fewer than 8 characters, or others than ASCII")
