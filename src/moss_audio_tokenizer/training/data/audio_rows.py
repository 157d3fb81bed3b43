"""Rows of audio: decoding clips, keeping them in memory, and cutting what a plan asks for.

Owns how sound gets from an entry into an array at its level. A row's job is all that another
process needs to know to make it. Knows nothing of batches.
"""

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32, Int16

from ...audio import crop_start, load_audio, load_crop
from ...errors import AudioError, MossAudioError
from ...manifest import ManifestEntry
from ...sources.recordings import explain, location, open_entry
from .planning import Row


@dataclass(frozen=True)
class Clip:
    """A clip in memory as 16-bit samples: an hour at 24 kHz takes 170 MB."""

    entry: ManifestEntry
    samples: Int16[np.ndarray, "channels samples"]

    def cut(self, start: int, length: int) -> Float[np.ndarray, "channels length"]:
        """``length`` samples from ``start`` on, as float32, zero past the end."""
        chunk = self.samples[:, start : start + length].astype(np.float32) / 32768.0
        return np.pad(chunk, ((0, 0), (0, length - chunk.shape[1])))


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


# Manifests round their seconds, and some codecs pad their ends.
_LENGTH_TOLERANCE = 1.02
_LENGTH_SLACK_SECONDS = 0.1
_MAX_GAIN_DB = 20.0


@dataclass(frozen=True)
class RowFormat:
    """What all rows have in common."""

    sampling_rate: int
    channels: int


@dataclass(frozen=True)
class Job:
    """A row, and the entry of its clip."""

    entry: ManifestEntry
    row: Row


def make_rows(
    jobs: Sequence[Job], wanted: RowFormat
) -> list[Float32[np.ndarray, "channels samples"] | str]:
    """The sound of each job, or a line that says why its file cannot be read."""
    return [make_row(job, wanted) for job in jobs]


def make_row(
    job: Job, wanted: RowFormat, clip: Clip | None = None
) -> Float32[np.ndarray, "channels samples"] | str:
    """The sound of a job, or a line that says why it cannot be used.

    Args:
        job: what to make.
        wanted: its format.
        clip: the job's clip where it is in memory; its file is read otherwise.
    """
    try:
        samples = _decoded(job, wanted) if clip is None else _cut(clip, job.row)
        if job.row.whole:
            planned = job.row.num_samples / wanted.sampling_rate
            check_length(job.entry, samples.shape[1] / wanted.sampling_rate, planned)
    except MossAudioError as error:
        return explain(job.entry, error)
    return levelled(samples, job.row.level)


def _decoded(job: Job, wanted: RowFormat) -> Float32[np.ndarray, "channels samples"]:
    rate, channels = wanted.sampling_rate, wanted.channels
    with open_entry(job.entry) as source:
        if job.row.whole:
            return load_audio(source, rate, channels)
        return load_crop(source, job.row.position, job.row.num_samples, rate, channels)


def _cut(clip: Clip, row: Row) -> Float32[np.ndarray, "channels samples"]:
    total = clip.samples.shape[1]
    length = total if row.whole else min(total, row.num_samples)
    start = crop_start(total, length, row.position)
    chunk = clip.samples[:, start : start + length]
    return np.multiply(chunk, np.float32(1 / 32768), dtype=np.float32)


def check_length(entry: ManifestEntry, seconds: float, planned: float) -> None:
    """Hold a whole clip to the seconds that its batch was planned with.

    Raises:
        AudioError: it is longer by more than rounding explains.
    """
    if seconds > planned * _LENGTH_TOLERANCE + _LENGTH_SLACK_SECONDS:
        raise AudioError(
            f"'{location(entry)}' is {seconds:.2f} s long, and its manifest says "
            f"{entry.seconds:g} s; correct the manifest"
        )


def levelled(
    samples: Float32[np.ndarray, "channels samples"], target: float
) -> Float32[np.ndarray, "channels samples"]:
    """Bring a row to a level (dBFS, RMS) without clipping it, or raising it by more than 20 dB."""
    # Not a dot product: that may round otherwise with another number of threads.
    rms = 20 * np.log10(np.sqrt(np.mean(np.square(samples))) + 1e-6)
    gain = 10 ** (min(target - rms, _MAX_GAIN_DB) / 20)
    peak = max(float(samples.max()), -float(samples.min())) + 1e-9
    return samples * np.float32(min(gain, 0.99 / peak))
