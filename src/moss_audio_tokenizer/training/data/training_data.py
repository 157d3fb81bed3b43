"""The training data of a run: the batch of every step, and what could not be read.

Owns the way from a recipe to batches: clips in memory where they fit, files otherwise, another
clip in place of one that cannot be read. A batch is a pure function of the seed, the step's
number and the process's rank, so that a resumed run sees what an uninterrupted one would have.
"""

import itertools
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np

from ...errors import TrainingError
from ...sources.recordings import location
from .audio_rows import Clip, Job, RowFormat, decode_all, make_row
from .batches import Batch
from .clip_sources import Source, find_sources, measured_sources
from .data_config import DataConfig
from .planning import Planner, Row, whole_frames
from .unreadable import Unreadable
from .workers import RowResults, RowWorkers

_STEPS_AHEAD = 3
_MOST_REDRAWS = 100
_DECODING_THREADS = 2


@dataclass(frozen=True)
class _Share:
    """A process's rows of a step, from row ``first`` of all processes on, and their samples."""

    step: int
    width: int
    first: int
    rows: tuple[Row, ...]


class TrainingData:
    """Batches of one process of a run.

    Args:
        config: the recipe's group ``data``.
        sampling_rate: the sampling rate of the rows.
        channels: the number of channels of the rows.
        frame_samples: the number of samples in a frame; batches of whole utterances are padded to a
            multiple of it.
        seed: the seed that a batch follows from, together with step and rank.
        rank: the rank of this process.
        world: the number of processes, which divide the rows of a step among them.
        report: a function that is called with a line about every file that is skipped.
        fits: whether a text is short enough for the model that reads it; a clip with another one
            is used without its text.

    Attributes:
        num_clips: training clips that there are, of domains with a share or not.
        unreadable: for each file that could not be read so far, what is wrong with it.
        left_out: clips of each domain that ``data.domain_weights`` gives no share.

    Raises:
        InputError: a manifest or a folder of shards cannot be read.
        ConfigError: ``data.batch_size`` cannot be shared out to the processes.
        TrainingError: too many clips cannot be read, or none is of a domain with a share.
    """

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
        self.config, self._rank, self._world = config, rank, world
        self._report, self._fits = report, fits
        where = ", ".join(path for path, _ in config.weighted_paths)
        self._skipped = Unreadable(where, config.max_unreadable_share, report)
        self.unreadable = self._skipped.reasons
        self._frame = frame_samples
        self._format = RowFormat(sampling_rate, channels)
        sources = measured_sources(find_sources(config, "train", report), self._skipped)
        sources = self._without_long_texts(sources)
        self.num_clips = self._skipped.num_clips
        unit = world * config.row_multiple
        self._planner = Planner(sources, config, sampling_rate, frame_samples, seed, unit)
        self.left_out = self._planner.left_out
        self._cache = self._decoded()

    def _without_long_texts(self, sources: Sequence[Source]) -> list[Source]:
        """The sources; clips with a text that is too long have none."""
        if not self.config.text_share:
            return list(sources)
        long = {
            entry.text
            for source in sources
            for entry in source.entries
            if entry.text and not self._fits(entry.text)
        }
        count = sum(entry.text in long for source in sources for entry in source.entries)
        if count:
            self._report(
                f"left out: the texts of {count} clips, which are too long, such as "
                f"{min(long, key=len)[:40]!r}"
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
        found = decode_all(entries, self._format.sampling_rate, self._format.channels, threads)
        for entry, item in zip(entries, found, strict=True):
            if isinstance(item, str):
                self._skipped.skip(location(entry), item)
        self._skipped.check(self.num_clips)
        pairs = zip(used, found, strict=True)
        return {index: item for index, item in pairs if isinstance(item, Clip)}

    def batch(self, step: int) -> Batch:
        """This process's rows of a step.

        Raises:
            TrainingError: too many clips cannot be read.
        """
        share = self._share(step)
        return self._assemble(share, [self._make(row) for row in share.rows])

    def batches(self, first_step: int) -> Generator[Batch]:
        """The batches of ``first_step`` and all after it, made ahead where there are workers.

        Close the iterator to end the worker processes, or the thread for clips in memory.

        Raises:
            TrainingError: too many clips cannot be read, or a worker has died.
        """
        if not self.config.workers:
            yield from map(self.batch, itertools.count(first_step))
            return
        if self._cache is not None:
            yield from self._made_ahead(first_step)
            return
        with RowWorkers(self.config.workers, self._format) as workers:
            ahead = deque[tuple[_Share, Sequence[Future[RowResults]]]]()
            for step in itertools.count(first_step):
                share = self._share(step)
                jobs = [Job(self._planner.entries[row.clip], row) for row in share.rows]
                ahead.append((share, workers.submit(jobs)))
                if len(ahead) > _STEPS_AHEAD:
                    share, futures = ahead.popleft()
                    yield self._assemble(share, workers.collect(futures))

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

    def _share(self, step: int) -> _Share:
        """What this process makes of a step."""
        plan = self._planner.plan(step)
        count = len(plan.rows) // self._world
        first = self._rank * count
        return _Share(step, plan.width, first, plan.rows[first : first + count])

    def _make(self, row: Row) -> np.ndarray | str:
        entry = self._planner.entries[row.clip]
        if self._cache is None:
            return make_row(Job(entry, row), self._format)
        if row.clip not in self._cache:
            return self.unreadable[location(entry)]
        return make_row(Job(entry, row), self._format, self._cache[row.clip])

    def _assemble(self, share: _Share, made: Sequence[np.ndarray | str]) -> Batch:
        """The batch of some rows, with others in place of those that could not be made."""
        pairs = [
            self._replaced(share.step, share.first + index, row, item)
            for index, (row, item) in enumerate(zip(share.rows, made, strict=True))
        ]
        lengths = np.array([sound.shape[1] for _, sound in pairs], np.int64)
        # Lengths in manifests are rounded: a whole clip may be a little longer than planned.
        width = share.width
        if lengths.max() > width:
            width = whole_frames(int(lengths.max()), self._frame)
        audio = np.zeros((len(pairs), self._format.channels, width), np.float32)
        for line, (_, sound) in zip(audio, pairs, strict=True):
            line[:, : sound.shape[1]] = sound
        entries = [self._planner.entries[row.clip] for row, _ in pairs]
        spoken = [row.whole for row, _ in pairs]
        return Batch(
            audio,
            lengths,
            tuple(entry.text * whole for entry, whole in zip(entries, spoken, strict=True)),
            tuple(entry.task * whole for entry, whole in zip(entries, spoken, strict=True)),
            tuple(entry.name or str(entry.path) for entry in entries),
        )

    def _replaced(
        self, step: int, index: int, row: Row, made: np.ndarray | str
    ) -> tuple[Row, np.ndarray]:
        """A row and its sound; another one's when its file cannot be read."""
        for attempt in range(_MOST_REDRAWS):
            name = location(self._planner.entries[row.clip])
            self._skipped.note(row.clip, name, made if isinstance(made, str) else None)
            if not isinstance(made, str):
                return row, made
            row = self._planner.redraw(step, index, attempt)
            made = self._make(row)
        raise TrainingError(
            f"{_MOST_REDRAWS} clips drawn for row {index} of step {step + 1} cannot be read, the "
            f"last of them being: {made}; repair the data"
        )
