"""Entries: opening the recording that an entry names, and what messages call it.

Owns where a recording's bytes are: a file, a part of an archive, a row of a table. It decodes none.
"""

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager

from ..audio import AudioSource
from ..errors import AudioFileError
from ..files import PartOfFile
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
        part = PartOfFile(archive, first, size, location(entry))
        with io.BufferedReader(part, _BUFFER_BYTES) as file:
            yield file


def location(entry: ManifestEntry) -> str:
    """Where an entry's recording is, to tell people."""
    if entry.row is not None:
        return str(entry.path / str(entry.row))
    return str(entry.path if entry.member is None else entry.path.parent / entry.name)


def explain(entry: ManifestEntry, error: Exception) -> str:
    """A line that says what is wrong with an entry's recording, and which it is."""
    where = location(entry)
    return str(error) if where in str(error) else f"{where!r}: {error}"
