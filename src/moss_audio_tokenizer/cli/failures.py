"""Exit codes and one-line messages of errors.

Owns how an error looks to a person at a terminal; knows no command. 2 means that the user can
repair it by giving something else (a value, a file, an option), 1 that something failed on this
machine (a full disk, a missing dependency, a bug), 130 that the user interrupted.
"""

import os
from collections.abc import Iterator
from concurrent.futures import BrokenExecutor
from contextlib import contextmanager
from importlib import import_module

from ..errors import (
    BulkError,
    MissingDependencyError,
    MossAudioError,
    TrainingError,
    one_line,
    shortened,
)
from ..files import is_machine_failure
from .display import print_progress_line

FAILURE = 1
BAD_INPUT = 2
INTERRUPTED = 130
_PACKAGE = "moss_audio_tokenizer"
_FAULTS_OF_A_PATH = (
    FileExistsError,
    FileNotFoundError,
    IsADirectoryError,
    NotADirectoryError,
    PermissionError,
)


def wants_traceback() -> bool:
    """Whether MOSS_AUDIO_DEBUG=1 asks for errors as Python shows them."""
    return os.environ.get("MOSS_AUDIO_DEBUG", "") not in ("", "0")


def exit_code_of(error: BaseException) -> int:
    """2 for what the user gave, 1 for what failed here."""
    if isinstance(error, BulkError | MissingDependencyError | TrainingError):
        return FAILURE
    # BrokenExecutor: a process of ours was killed, or died, which others report as their own
    if is_machine_failure(error) or isinstance(error, BrokenExecutor):
        return FAILURE
    if isinstance(error.__cause__, BrokenExecutor):
        return FAILURE
    return BAD_INPUT if isinstance(error, (MossAudioError, *_FAULTS_OF_A_PATH)) else FAILURE


def message_of(error: BaseException) -> str:
    """What to tell the user, in one line of a bounded length."""
    text = shortened(one_line(error))
    if isinstance(error, OSError) and error.strerror and not isinstance(error, MossAudioError):
        text = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
        return shortened(text)
    if isinstance(error, MossAudioError | OSError) and text:
        return text
    # An unforeseen error: its type says as much as its message.
    return f"{type(error).__name__}: {text} (MOSS_AUDIO_DEBUG=1 shows where)"


def print_error(message: str) -> None:
    """One line on stderr, in the form of all command-line errors."""
    print_progress_line(f"moss-audio: error: {message}")


def require_packages(extra: str, purpose: str, *packages: str) -> None:
    """Fail before the work, not after it, where its results cannot be made."""
    with needs_extra(extra, purpose):
        for package in packages:
            import_module(package)


@contextmanager
def needs_extra(extra: str, purpose: str) -> Iterator[None]:
    """Imports in the body belong to an optional extra.

    Raises:
        MissingDependencyError: a package that the extra brings is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing == _PACKAGE:
            raise
        raise MissingDependencyError(
            f"{purpose} needs {missing}, which is not installed; "
            f"pip install 'moss-audio-tokenizer[{extra}]'"
        ) from error
