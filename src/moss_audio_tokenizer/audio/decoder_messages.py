"""Keeping what libmpg123 prints off the terminal.

libsndfile's decoder of MP3 prints to the C library's ``stderr`` where a decoder is placed in the
middle of a stream ("part2_3_length too large"): the frames before a crop, which are thrown away.
The messages name no file, and libsndfile has no option against them. Damage that matters is found
otherwise. Only the pointer that C code prints through is exchanged, so that Python's ``sys.stderr``
and the programs that it starts are not affected. Where the C library is not glibc, nothing is done.
"""

import ctypes
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress


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
