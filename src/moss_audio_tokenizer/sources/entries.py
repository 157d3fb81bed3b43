"""Entries: opening the recording that an entry names, and what messages call it.

Owns where a recording's bytes are: a file, a part of an archive, a row of a table. It decodes none.
"""

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..audio import AudioSource
from ..errors import AudioFileError
from ..manifest import ManifestEntry
from .tables import open_row

_BUFFER_BYTES = 1 << 16


@contextmanager
def open_entry(entry: ManifestEntry) -> Iterator[AudioSource]:
    """What to read an entry's sound from: its path, its part of an archive, its row of a table.

    Raises:
        AudioFileError: the archive or table cannot be read, or ends before the recording does.
    """
    if entry.row is not None:
        yield open_row(entry)
        return
    if entry.member is None:
        yield entry.path
        return
    try:
        archive = entry.path.open("rb", buffering=0)
    except OSError as error:
        raise AudioFileError(f"'{location(entry)}' cannot be read ({error})") from error
    first, size = entry.member
    with archive:
        there = archive.seek(0, os.SEEK_END) - first
        if there < size:
            raise AudioFileError(
                f"'{location(entry)}' is cut short: {max(0, there)} of its {size} bytes are there; "
                "get a whole copy of the shard"
            )
        part = _Part(archive, first, size, location(entry))
        with io.BufferedReader(part, _BUFFER_BYTES) as file:
            yield file


class _Part(io.RawIOBase):
    """Some bytes of an open file, as a file with a name of its own."""

    def __init__(self, file: io.FileIO, first: int, size: int, name: str) -> None:
        self._file, self._first, self._size, self.name = file, first, size, name
        self._place = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self._size}[whence]
        self._place = max(0, start + offset)
        return self._place

    def readinto(self, buffer: Any) -> int:
        wanted = max(0, min(len(buffer), self._size - self._place))
        self._file.seek(self._first + self._place)
        count = self._file.readinto(memoryview(buffer)[:wanted]) or 0
        self._place += count
        return count


def location(entry: ManifestEntry) -> str:
    """Where an entry's recording is, to tell people."""
    if entry.row is not None:
        return str(entry.path / str(entry.row))
    return str(entry.path if entry.member is None else entry.path.parent / entry.name)


def explain(entry: ManifestEntry, error: Exception) -> str:
    """A line that says what is wrong with an entry's recording, and which it is."""
    where = location(entry)
    return str(error) if where in str(error) else f"{where!r}: {error}"
