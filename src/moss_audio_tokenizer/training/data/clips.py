"""Clips: opening what an entry names, decoding it, and keeping it in memory.

Owns how sound gets from an entry into an array; knows nothing of batches.
"""

import io
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int16

from ...audio import AudioSource, load_audio
from ...errors import AudioFileError, MossAudioError
from ...manifest import ManifestEntry


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
            audio = load_audio(open_entry(entry), sampling_rate, channels)
        except MossAudioError as error:
            return explain(entry, error)
        return Clip(entry, np.clip(np.rint(audio * 32768.0), -32768, 32767).astype(np.int16))

    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(load, entries))


def open_entry(entry: ManifestEntry) -> AudioSource:
    """What to read an entry's sound from: its path, or its bytes out of an archive.

    Raises:
        AudioFileError: the archive cannot be read, or ends before the recording does.
    """
    if entry.member is None:
        return entry.path
    offset, size = entry.member
    try:
        with entry.path.open("rb") as archive:
            archive.seek(offset)
            data = archive.read(size)
    except OSError as error:
        raise AudioFileError(f"'{location(entry)}' cannot be read ({error})") from error
    if len(data) < size:
        raise AudioFileError(
            f"'{location(entry)}' is cut short: {len(data)} of its {size} bytes are there; "
            "get a whole copy of the shard"
        )
    return io.BytesIO(data)


def location(entry: ManifestEntry) -> str:
    """Where an entry's recording is, to tell people."""
    return str(entry.path if entry.member is None else entry.path.parent / entry.name)


def explain(entry: ManifestEntry, error: Exception) -> str:
    """A line that says what is wrong with an entry's recording, and which it is."""
    where = location(entry)
    return str(error) if where in str(error) else f"{where!r}: {error}"
