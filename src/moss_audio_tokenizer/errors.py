"""Every error that this package raises on purpose.

Each message says what was got, what was expected, and what to do about it.

    MossAudioError                the base: catch this to catch them all
    ├── InputError (ValueError)   something that the caller passed is wrong
    │   ├── AudioError            samples: empty, not finite, wrong channel count or type
    │   ├── CodesError            codes: out of range, not integers, too many quantizers
    │   └── ConfigError           configurations and recipes: unknown keys, impossible values
    ├── AudioFileError            a sound file is missing, unreadable, or cannot be written
    ├── CodesFileError            a codes file is missing, damaged, or of another format
    ├── StreamFileError           a file of saved streams is missing, damaged, or cannot be written
    ├── CheckpointError           a checkpoint is pickled, or its tensors do not fit
    ├── ModelMismatchError        codes were made by another model than the one asked to decode them
    ├── SlotsFull                 a session has no free slot for another stream
    ├── MissingDependencyError    an optional dependency is needed: the message names the extra
    ├── ServerBusy                a server has no room now: try again later
    ├── ServerError               a server cannot start, refused a request, or broke off
    ├── TrainingError             a run cannot start, continue or resume
    ├── EvaluationError           a codec under test failed, or its results cannot be used
    └── BulkError                 work on a whole data set cannot start, continue or resume
"""

# What readers run into where a file is damaged or made to harm: each becomes an error of ours.
MALFORMED = (
    *(OSError, ValueError, TypeError, KeyError, IndexError, AttributeError),
    *(OverflowError, RecursionError, NotImplementedError),
)


# Longer messages are shortened: a value of a damaged file, which they show, may be of any length.
_MAX_MESSAGE = 2000


def shortened(message: str) -> str:
    """A message of bounded length: its beginning and, where it is too long, its end."""
    if len(message) <= _MAX_MESSAGE:
        return message
    return f"{message[: _MAX_MESSAGE // 2]} ... {message[-_MAX_MESSAGE // 2 :]}"


class MossAudioError(Exception):
    """Base class of all errors raised on purpose by this package."""

    def __str__(self) -> str:
        """The message, in a bounded length."""
        return shortened(super().__str__())


class InputError(MossAudioError, ValueError):
    """A value given by the caller cannot be used."""


class AudioError(InputError):
    """Audio samples that cannot be encoded: empty, not finite, wrong channels or type."""


class CodesError(InputError):
    """Codes that cannot be decoded: out of range, not integers, too many quantizers."""


class ConfigError(InputError):
    """A configuration or a recipe with unknown keys or impossible values."""


class AudioFileError(MossAudioError, OSError):
    """A sound file is missing, unreadable, or cannot be written."""


class CodesFileError(MossAudioError, OSError):
    """A codes file is missing, truncated, altered, of another format, or cannot be written."""


class StreamFileError(MossAudioError, OSError):
    """A file of saved streams is missing, damaged, of another session, or cannot be written."""


class CheckpointError(MossAudioError, ValueError):
    """A checkpoint is missing, pickled, or its tensors do not fit the configuration."""


class ModelMismatchError(MossAudioError, ValueError):
    """Codes were made by another model than the one asked to decode them."""


class SlotsFull(MossAudioError, RuntimeError):  # noqa: N818 - a state of affairs, not a mistake
    """A session has no free slot for another stream."""


class MissingDependencyError(MossAudioError, ImportError):
    """An optional dependency is not installed; the message names the extra to install."""


class ServerBusy(MossAudioError, RuntimeError):  # noqa: N818 - a state of affairs, not a mistake
    """A server has no room for another stream or request; the message says when to try again."""


class ServerError(MossAudioError, RuntimeError):
    """A server cannot start, refused what a client asked for, or broke off a stream."""


class TrainingError(MossAudioError, RuntimeError):
    """A training run cannot start, continue or resume."""


class EvaluationError(MossAudioError, RuntimeError):
    """A codec under test failed, or the results of an evaluation cannot be used."""


class BulkError(MossAudioError, RuntimeError):
    """Work on a whole data set cannot start, continue or resume."""


def one_line(problem: object, most: int | None = None) -> str:
    """What another program's error says, in one line, cut to so many characters if need be."""
    return " ".join(str(problem).split())[:most]
