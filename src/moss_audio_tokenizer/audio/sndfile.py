"""libsndfile as this package uses it: streams that are read once, forward, and in silence.

Its decoder of MP3 prints to the C library's ``stderr`` where a decoder is placed in the middle of a
stream ("part2_3_length too large"): the frames before a crop, which are thrown away. The messages
name no file, and there is no option against them. Damage that matters is found otherwise. Only the
pointer that C code prints through is exchanged, so that Python's ``sys.stderr`` and the programs
that it starts are not affected. Where the C library is not glibc, nothing is done.
"""

import ctypes
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import numpy as np
import soundfile
from jaxtyping import Float

from ..errors import AudioFileError
from ..files import PartOfFile, require_file
from .mpeg import length_tag

_BLOCK_VALUES = 1 << 20
UNKNOWN_LENGTH = 1 << 62

# A path, or a binary file object that can seek, such as io.BytesIO.
AudioSource: TypeAlias = str | os.PathLike[str] | BinaryIO
_Blocks: TypeAlias = Iterator[Float[np.ndarray, "samples channels"]]


def source_name(source: AudioSource) -> str:
    """What messages call a file."""
    if isinstance(source, str | os.PathLike):
        return repr(os.fspath(source))
    return repr(getattr(source, "name", None) or "audio in memory")


@contextmanager
def bytes_of(source: AudioSource) -> Iterator[tuple[BinaryIO, int]]:
    """A file's bytes from the start on, and their number; a file object keeps its position."""
    if isinstance(source, str | os.PathLike):
        size = require_file(source, error=AudioFileError)
        with Path(source).open("rb") as file:
            yield file, size
        return
    position = source.tell()
    size = source.seek(0, os.SEEK_END)
    if size == 0:
        raise AudioFileError(f"{source_name(source)} is empty (0 bytes); it must be written again")
    source.seek(0)
    yield source, size
    source.seek(position)


class ForwardFile(soundfile.SoundFile):
    """A sound file read once from start to end.

    soundfile seeks after every read, which fails at the end of a FLAC file of unknown length,
    and clips reads to the declared length, which can be wrong; for streams it does neither.
    """

    def seekable(self) -> bool:
        """No, for soundfile's own bookkeeping; `seek` works all the same."""
        return False

    def blocks(self) -> _Blocks:
        """All samples, block by block; the declared length is not trusted with an allocation."""
        length, num_samples = max(1, _BLOCK_VALUES // self.channels), 0
        while True:
            block = self.read(length, dtype="float32", always_2d=True)
            num_samples += len(block)
            yield block
            if len(block) < length:
                break
        if num_samples < self.frames < UNKNOWN_LENGTH:
            raise AudioFileError(
                f"it is damaged: {num_samples} of its {self.frames} samples can be decoded; "
                "get a whole copy, or encode it again"
            )


class JoinedSound:
    """Several streams joined in one file, read one behind the other.

    Args:
        open_link: opens one of them.
        links: first byte and size of each.
    """

    def __init__(self, open_link: Any, links: tuple[tuple[int, int], ...]) -> None:
        self._open_link, self._links = open_link, links
        with open_link(*links[0]) as first:
            self.samplerate, self.channels = first.samplerate, first.channels
            self.format, self.subtype = f"{first.format} ({len(links)} joined)", ""
        self.frames = UNKNOWN_LENGTH

    def blocks(self) -> _Blocks:
        """All samples of all streams, in order."""
        for number, link in enumerate(self._links, 1):
            with self._open_link(*link) as sound:
                if (sound.samplerate, sound.channels) != (self.samplerate, self.channels):
                    raise AudioFileError(
                        f"it holds {len(self._links)} streams, joined; stream {number} has "
                        f"{sound.channels} channels at {sound.samplerate} Hz, the first "
                        f"{self.channels} at {self.samplerate} Hz: join them by encoding again"
                    )
                yield from sound.blocks()


@contextmanager
def open_link(source: AudioSource, first: int, size: int) -> Iterator[ForwardFile]:
    """One stream of a file, which may be all there is."""
    with bytes_of(source) as (file, size_of_all):
        states_length = length_tag(file, first) is not None
        is_whole = (first, size) == (0, size_of_all)
        file.seek(0)
        part: Any = file if is_whole else PartOfFile(file, first, size)
        if is_whole and isinstance(source, str | os.PathLike):
            part = os.fsencode(source)  # names are bytes: they need not be UTF-8
        with ForwardFile(part) as sound:
            if sound.format != "MP3" or states_length:
                yield sound
                return
    # Without a tag the length is guessed from the first frame, and reading stops there. From
    # a pipe there is nothing to guess from, so the decoder reads to the end.
    with (
        _poured(source, first, size) as descriptor,
        ForwardFile(descriptor, closefd=False) as sound,
    ):
        yield sound


@contextmanager
def _poured(source: AudioSource, first: int, size: int) -> Iterator[int]:
    """The read end of a pipe that a thread fills with some bytes of a file."""
    reader, writer = os.pipe()

    problems: list[OSError] = []

    def pour() -> None:
        try:
            # The pipe comes first, so that it is closed when the file does not open.
            with os.fdopen(writer, "wb") as sink, bytes_of(source) as (stream, _):
                shutil.copyfileobj(PartOfFile(stream, first, size), sink)
        except BrokenPipeError:
            pass  # the reader has had enough
        except OSError as problem:
            problems.append(problem)

    thread = threading.Thread(target=pour, daemon=True)
    thread.start()
    try:
        yield reader
    finally:
        os.close(reader)
        thread.join()
    if problems:
        raise problems[0]


class _CStderr:
    """The C library's ``stderr``, which several threads may divert at the same time."""

    def __init__(self) -> None:
        self._forget_threads()
        self._original: int | None = None
        self._nowhere: int | None = None
        self._pointer = self._find()

    def _find(self) -> ctypes.c_void_p | None:
        """Where glibc holds the pointer; elsewhere it may be constant."""
        with suppress(AttributeError, OSError, ValueError):
            if (os.confstr("CS_GNU_LIBC_VERSION") or "").startswith("glibc"):
                library = ctypes.CDLL(None)
                library.fopen.restype = ctypes.c_void_p
                self._nowhere = library.fopen(os.fsencode(os.devnull), b"w")
                return ctypes.c_void_p.in_dll(library, "stderr") if self._nowhere else None
        return None

    def _forget_threads(self) -> None:
        """A forked process has none of the threads that divert."""
        self._lock = threading.Lock()
        self._num_users = 0

    def begin_child(self) -> None:
        """Start afresh in a forked process, in whatever state its parent was."""
        if self._num_users and self._pointer is not None:
            self._pointer.value = self._original
        self._forget_threads()

    def divert(self) -> None:
        """Let C code print to nowhere, until as many calls of `restore`."""
        if self._pointer is None:
            return
        with self._lock:
            if self._num_users == 0:
                self._original, self._pointer.value = self._pointer.value, self._nowhere
            self._num_users += 1

    def restore(self) -> None:
        """Undo one `divert`."""
        if self._pointer is None:
            return
        with self._lock:
            self._num_users = max(0, self._num_users - 1)
            if self._num_users == 0:
                self._pointer.value = self._original


_stderr = _CStderr()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_stderr.begin_child)


@contextmanager
def silenced() -> Iterator[None]:
    """Drop what C libraries print to their ``stderr`` in the body, in all threads."""
    _stderr.divert()
    try:
        yield
    finally:
        _stderr.restore()
