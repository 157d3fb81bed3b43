"""Rows: the sound that a plan asks for, from a file or from memory, at its level.

Owns what happens to the sound of one row. A row's job is all that another process needs to know
to make it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32

from ...audio import crop_start, load_audio, load_crop
from ...errors import AudioError, MossAudioError
from ...manifest import ManifestEntry
from ...sources.entries import explain, location, open_entry
from .clips import Clip
from .planning import Row

# Manifests round their seconds, and some codecs pad their ends.
_LENGTH_TOLERANCE = 1.02
_LENGTH_SLACK_SECONDS = 0.1


@dataclass(frozen=True)
class RowFormat:
    """What all rows have in common."""

    sampling_rate: int
    channels: int
    max_gain_db: float


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
    return levelled(samples, job.row.level, wanted.max_gain_db)


def _decoded(job: Job, wanted: RowFormat) -> Float32[np.ndarray, "channels samples"]:
    rate, channels = wanted.sampling_rate, wanted.channels
    with open_entry(job.entry) as source:
        if job.row.whole:
            return load_audio(source, rate, channels)
        return load_crop(source, job.row.place, job.row.num_samples, rate, channels)


def _cut(clip: Clip, row: Row) -> Float32[np.ndarray, "channels samples"]:
    total = clip.samples.shape[1]
    length = total if row.whole else min(total, row.num_samples)
    start = crop_start(total, length, row.place)
    piece = clip.samples[:, start : start + length]
    return np.multiply(piece, np.float32(1 / 32768), dtype=np.float32)


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
    samples: Float32[np.ndarray, "channels samples"], target: float, max_gain_db: float
) -> Float32[np.ndarray, "channels samples"]:
    """Bring a row to a loudness (dBFS, RMS) without clipping it or raising it by more than that."""
    # Not a dot product: that may round otherwise with another number of threads.
    rms = 20 * np.log10(np.sqrt(np.mean(np.square(samples))) + 1e-6)
    gain = 10 ** (min(target - rms, max_gain_db) / 20)
    peak = max(float(samples.max()), -float(samples.min())) + 1e-9
    return samples * np.float32(min(gain, 0.99 / peak))
