"""Clips: decoding what an entry names, and keeping it in memory.

Owns how sound gets from an entry into an array; knows nothing of batches.
"""

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int16

from ...audio import load_audio
from ...errors import MossAudioError
from ...manifest import ManifestEntry
from ...sources.entries import explain, open_entry


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
