"""Rows of audio: decoding clips, keeping them in memory, and cutting what a plan asks for.

Owns how sound gets from an entry into an array at its level, and the worker processes that do so
ahead of the training loop. Knows nothing of batches.
"""

import multiprocessing
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from jaxtyping import Float, Float32, Int16

from ...audio import crop_start, load_audio, load_crop
from ...errors import AudioError, MossAudioError, TrainingError
from ...manifest import ManifestEntry
from ...sources.recordings import open_entry
from ...workers import prepare_worker
from .planning import AudioRow

# Manifests round their seconds, and some codecs pad their ends.
_LENGTH_TOLERANCE = 1.02
_LENGTH_SLACK_SECONDS = 0.1
_MAX_GAIN_DB = 20.0

Sound: TypeAlias = Float32[np.ndarray, "channels _"]


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
    entries: Iterable[ManifestEntry], sampling_rate: int, channels: int, threads: int = 2
) -> list[Clip | str]:
    """Each entry's clip, decoded and resampled, or the line that says why it cannot be read.

    Damaged files and samples that are not finite are such lines, which name the file.
    """

    def load(entry: ManifestEntry) -> Clip | str:
        try:
            with open_entry(entry) as source:
                audio = load_audio(source, sampling_rate, channels)
        except MossAudioError as error:
            return entry.explain(error)
        return Clip(entry, np.clip(np.rint(audio * 32768.0), -32768, 32767).astype(np.int16))

    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(load, entries))


@dataclass(frozen=True)
class RowFormat:
    """What all rows have in common."""

    sampling_rate: int
    channels: int


@dataclass(frozen=True)
class Job:
    """A row, and the entry of its clip: all that another process needs to make it."""

    entry: ManifestEntry
    row: AudioRow


def make_row(job: Job, wanted: RowFormat, clip: Clip | None = None) -> Sound | str:
    """The sound of a job, or a line that says why it cannot be used.

    Args:
        job: the row to make.
        wanted: the format of the row.
        clip: the job's clip where it is in memory; its file is read otherwise.
    """
    try:
        samples = _decoded(job, wanted) if clip is None else _cut(clip, job.row)
        if job.row.whole:
            planned = job.row.num_samples / wanted.sampling_rate
            check_length(job.entry, samples.shape[1] / wanted.sampling_rate, planned)
    except MossAudioError as error:
        return job.entry.explain(error)
    return leveled(samples, job.row.level)


def _decoded(job: Job, wanted: RowFormat) -> Sound:
    rate, channels = wanted.sampling_rate, wanted.channels
    with open_entry(job.entry) as source:
        if job.row.whole:
            return load_audio(source, rate, channels)
        return load_crop(source, job.row.position, job.row.num_samples, rate, channels)


def _cut(clip: Clip, row: AudioRow) -> Sound:
    total = clip.samples.shape[1]
    length = total if row.whole else min(total, row.num_samples)
    start = crop_start(total, length, row.position)
    chunk = clip.samples[:, start : start + length]
    return np.multiply(chunk, np.float32(1 / 32768), dtype=np.float32)


def check_length(entry: ManifestEntry, seconds: float, planned: float) -> None:
    """Refuse a whole clip that is longer than its batch was planned with.

    Raises:
        AudioError: it is longer by more than rounding explains.
    """
    if seconds > planned * _LENGTH_TOLERANCE + _LENGTH_SLACK_SECONDS:
        raise AudioError(
            f"'{entry.location}' is {seconds:.2f} s long, and its manifest says "
            f"{entry.seconds:g} s; correct the manifest"
        )


def leveled(
    samples: Float32[np.ndarray, "channels samples"], target: float
) -> Float32[np.ndarray, "channels samples"]:
    """Bring a row to a level (dBFS, RMS) without clipping it, or raising it by more than 20 dB."""
    # Not a dot product: that may round otherwise with another number of threads.
    rms = 20 * np.log10(np.sqrt(np.mean(np.square(samples))) + 1e-6)
    gain = 10 ** (min(target - rms, _MAX_GAIN_DB) / 20)
    peak = max(float(samples.max()), -float(samples.min())) + 1e-9
    return samples * np.float32(min(gain, 0.99 / peak))


class RowWorkers:
    """Processes that make rows ahead of the training loop; a context manager that ends them.

    They end with the process that made them, however it ends. Rows travel through pipes.

    Args:
        num_workers: the number of processes, at least 1.
        wanted: the format of all rows.
    """

    def __init__(self, num_workers: int, wanted: RowFormat) -> None:
        self._num_workers, self._wanted = num_workers, wanted
        # Spawned: a fork of a process with threads, as PyTorch's is, may hang.
        self._pool = ProcessPoolExecutor(
            num_workers, multiprocessing.get_context("spawn"), initializer=prepare_worker
        )

    def __enter__(self) -> "RowWorkers":
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def submit(self, jobs: Sequence[Job]) -> list[Future[list[Sound | str]]]:
        """Start to make rows, in as many parts as there are workers."""
        size = -(-len(jobs) // self._num_workers)
        parts = [jobs[first : first + size] for first in range(0, len(jobs), size)]
        try:
            return [self._pool.submit(_make_rows, part, self._wanted) for part in parts]
        except BrokenProcessPool as error:
            raise _dead_worker() from error

    def collect(self, futures: Sequence[Future[list[Sound | str]]]) -> list[Sound | str]:
        """The rows of a `submit`, in order.

        Raises:
            TrainingError: a worker has died.
        """
        try:
            return [row for future in futures for row in future.result()]
        except BrokenProcessPool as error:
            raise _dead_worker() from error


def _make_rows(jobs: Sequence[Job], wanted: RowFormat) -> list[Sound | str]:
    return [make_row(job, wanted) for job in jobs]


def _dead_worker() -> TrainingError:
    return TrainingError(
        "a process that decodes training data has died, killed from outside or for want of "
        "memory; set data.workers lower and continue with --resume"
    )
