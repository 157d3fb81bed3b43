"""Clips: opening what an entry names, decoding it, and keeping it in memory.

Owns how sound gets from an entry into an array; knows nothing of batches.
"""

import io
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int16

from ...audio import AudioSource, load_audio
from ...errors import AudioFileError, MossAudioError
from ...manifest import ManifestEntry

_BUFFER_BYTES = 1 << 16


@dataclass(frozen=True)
class Clip:
    """A clip in memory as 16-bit samples: an hour at 24 kHz takes 170 MB."""

    entry: ManifestEntry
    samples: Int16[np.ndarray, "channels samples"]

    def cut(self, start: int, length: int) -> Float[np.ndarray, "channels length"]:
        """``length`` samples from ``start`` on, as float32, zero past the end."""
        piece = self.samples[:, start : start + length].astype(np.float32) / 32768.0
        return np.pad(piece, ((0, 0), (0, length - piece.shape[1])))


def load_clips(
    entries: Sequence[ManifestEntry], sampling_rate: int, channels: int, workers: int = 2
) -> tuple[list[Clip], list[str]]:
    """Decode and resample clips: (those that could be read, a line for each that could not).

    Damaged files and samples that are not finite are such lines, which name the file.
    """
    loaded = decode_all(entries, sampling_rate, channels, workers)
    clips = [item for item in loaded if isinstance(item, Clip)]
    return clips, [item for item in loaded if isinstance(item, str)]


def decode_all(
    entries: Iterable[ManifestEntry], sampling_rate: int, channels: int, workers: int
) -> list[Clip | str]:
    """Each entry's clip, or the line that says why it cannot be read."""

    def load(entry: ManifestEntry) -> Clip | str:
        try:
            with open_entry(entry) as source:
                audio = load_audio(source, sampling_rate, channels)
        except MossAudioError as error:
            return explain(entry, error)
        return Clip(entry, np.clip(np.rint(audio * 32768.0), -32768, 32767).astype(np.int16))

    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(load, entries))


@contextmanager
def open_entry(entry: ManifestEntry) -> Iterator[AudioSource]:
    """What to read an entry's sound from: its path, or its part of an archive.

    Raises:
        AudioFileError: the archive cannot be read, or ends before the recording does.
    """
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
    return str(entry.path if entry.member is None else entry.path.parent / entry.name)


def explain(entry: ManifestEntry, error: Exception) -> str:
    """A line that says what is wrong with an entry's recording, and which it is."""
    where = location(entry)
    return str(error) if where in str(error) else f"{where!r}: {error}"
