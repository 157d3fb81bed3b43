"""The training data of a codec: rows of audio with their texts.

Owns the way from a recipe to batches: clips in memory where they fit, files otherwise.
"""

import itertools
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float32, Int64

from .audio_rows import Clip, Job, RowFormat, RowWorkers, Sound, load_clips, make_row
from .clip_sources import Source, audio_seconds, find_sources
from .data_config import DataConfig
from .planning import AudioPlanner, AudioRow, whole_frames
from .training_data import TrainingData, part_of

_STEPS_AHEAD = 3
_DECODING_THREADS = 2


@dataclass(frozen=True)
class Batch:
    """Rows of audio and their texts.

    Attributes:
        audio: zero behind the end of each row.
        lengths: samples of each row that are recorded ones, at least 1.
        texts: of each row; empty for a row of audio alone.
        tasks: what each text is: "asr", "ms_asr" or "caption"; empty for a row of audio alone.
        names: what the manifest calls each row's file.
    """

    audio: Float32[np.ndarray, "rows channels samples"]
    lengths: Int64[np.ndarray, " rows"]
    texts: tuple[str, ...]
    tasks: tuple[str, ...]
    names: tuple[str, ...]

    def part(self, index: int, count: int) -> "Batch":
        """The rows of part ``index`` of ``count`` equal ones, in order.

        Raises:
            TrainingError: the rows cannot be shared out equally.
        """
        remedy = "data.batch_size (or data.row_multiple)"
        own = part_of(len(self.names), index, count, remedy)
        return Batch(
            self.audio[own], self.lengths[own], self.texts[own], self.tasks[own], self.names[own]
        )


class AudioData(TrainingData[AudioRow, Batch]):
    """Batches of audio of one process of a run.

    Args:
        config: as in `TrainingData`, which has rank, world and report too.
        sampling_rate: the sampling rate of the rows.
        channels: the number of channels of the rows.
        frame_samples: the number of samples in a frame; batches of whole utterances are padded to a
            multiple of it.
        seed: the seed that a batch follows from, together with step and rank.
        fits: whether a text is short enough for the model that reads it; a clip with another one
            is used without its text.

    Attributes:
        num_clips: training clips that there are, of domains with a share or not.
        left_out: clips of each domain that ``data.domain_weights`` gives no share.

    Raises:
        InputError: a manifest or a folder of shards cannot be read.
        ConfigError: ``data.batch_size`` cannot be shared out to the processes.
        TrainingError: too many clips cannot be read, or none is of a domain with a share.
    """

    _planner: AudioPlanner

    def __init__(
        self,
        config: DataConfig,
        sampling_rate: int,
        channels: int,
        frame_samples: int,
        seed: int,
        rank: int = 0,
        world: int = 1,
        report: Callable[[str], None] = print,
        fits: Callable[[str], bool] = bool,
    ) -> None:
        super().__init__(config, rank, world, report)
        self.config, self._fits, self._frame = config, fits, frame_samples
        self._format = RowFormat(sampling_rate, channels)
        found = find_sources(config, "train", report)
        sources = self._without_long_texts(self._skipped.measured(found, audio_seconds))
        self.num_clips = self._skipped.num_clips
        unit = world * config.row_multiple
        self._planner = AudioPlanner(sources, config, sampling_rate, frame_samples, seed, unit)
        self.left_out = self._planner.left_out
        self._cache = self._decoded()

    def _without_long_texts(self, sources: list[Source]) -> list[Source]:
        """The sources; clips with a text that is too long have none."""
        if not self.config.text_share:
            return sources
        texts = [entry.text for source in sources for entry in source.entries]
        long = {text for text in set(texts) if text and not self._fits(text)}
        if long:
            self._report(
                f"left out: the texts of {sum(text in long for text in texts)} clips, which are "
                f"too long, such as {min(long, key=len)[:40]!r}"
            )
        return [
            replace(
                source,
                entries=[
                    replace(entry, text="", task="") if entry.text in long else entry
                    for entry in source.entries
                ],
            )
            for source in sources
        ]

    def _decoded(self) -> dict[int, Clip] | None:
        """All clips that are used, when they are small enough to be kept in memory."""
        used = [int(index) for index in self._planner.used]
        entries = [self._planner.entries[index] for index in used]
        if sum(entry.seconds for entry in entries) > self.config.cache_hours * 3600:
            return None
        threads = max(_DECODING_THREADS, self.config.workers)
        found = load_clips(entries, self._format.sampling_rate, self._format.channels, threads)
        for entry, item in zip(entries, found, strict=True):
            if isinstance(item, str):
                self._skipped.skip(entry.location, item)
        self._skipped.check(self.num_clips)
        pairs = zip(used, found, strict=True)
        return {index: item for index, item in pairs if isinstance(item, Clip)}

    def batch(self, step: int) -> Batch:
        """This process's rows of a step.

        Raises:
            TrainingError: too many clips cannot be read.
        """
        _, rows = self._own(self._planner.plan(step))
        return self._assemble(step, [self._make(row) for row in rows])

    def batches(self, first_step: int) -> Generator[Batch]:
        """The batches of ``first_step`` and all after it, made ahead where there are workers.

        Close the iterator to end the worker processes, or the thread for clips in memory.

        Raises:
            TrainingError: too many clips cannot be read, or a worker has died.
        """
        if not self.config.workers:
            yield from super().batches(first_step)
            return
        if self._cache is not None:
            yield from self._made_ahead(first_step)
            return
        with RowWorkers(self.config.workers, self._format) as workers:
            ahead = deque[tuple[int, Sequence[Future[list[Sound | str]]]]]()
            for step in itertools.count(first_step):
                _, rows = self._own(self._planner.plan(step))
                jobs = [Job(self._planner.entries[row.clip], row) for row in rows]
                ahead.append((step, workers.submit(jobs)))
                if len(ahead) > _STEPS_AHEAD:
                    done, futures = ahead.popleft()
                    yield self._assemble(done, workers.collect(futures))

    def _made_ahead(self, first_step: int) -> Generator[Batch]:
        """Batches of clips in memory by one thread: cutting them is too little for processes."""
        pool, ahead = ThreadPoolExecutor(1), deque[Future[Batch]]()
        try:
            for step in itertools.count(first_step):
                ahead.append(pool.submit(self.batch, step))
                if len(ahead) > _STEPS_AHEAD:
                    yield ahead.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)

    def _make(self, row: AudioRow) -> Sound | str:
        job = Job(self._planner.entries[row.clip], row)
        if self._cache is None:
            return make_row(job, self._format)
        if row.clip not in self._cache:
            return self.unreadable[job.entry.location]
        return make_row(job, self._format, self._cache[row.clip])

    def _note(self, row: AudioRow, made: Sound | str) -> None:
        name = self._planner.entries[row.clip].location
        self._skipped.note(row.clip, name, made if isinstance(made, str) else None)

    def _assemble(self, step: int, made: Sequence[Sound | str]) -> Batch:
        """The batch of this process's rows, with others in place of those that were not made."""
        planned = self._planner.plan(step)
        first, rows = self._own(planned)
        pairs = [
            self._replaced(step, first + index, row, item)
            for index, (row, item) in enumerate(zip(rows, made, strict=True))
        ]
        lengths = np.array([sound.shape[1] for _, sound in pairs], np.int64)
        # Lengths in manifests are rounded: a whole clip may be a little longer than planned.
        width = self._planner.width(planned)
        if lengths.max() > width:
            width = whole_frames(int(lengths.max()), self._frame)
        audio = np.zeros((len(pairs), self._format.channels, width), np.float32)
        for line, (_, sound) in zip(audio, pairs, strict=True):
            line[:, : sound.shape[1]] = sound
        entries = [(self._planner.entries[row.clip], row.whole) for row, _ in pairs]
        return Batch(
            audio,
            lengths,
            tuple(entry.text * whole for entry, whole in entries),
            tuple(entry.task * whole for entry, whole in entries),
            tuple(entry.name or str(entry.path) for entry, _ in entries),
        )
