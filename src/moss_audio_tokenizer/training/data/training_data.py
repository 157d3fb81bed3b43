"""Batches of a run: a share of the planned rows, with others in place of those that cannot be read.

What rows of audio and of codes have in common, and the count of what cannot be read. A batch is a
pure function of the seed, the step's number and the process's rank, so that a resumed run sees what
an uninterrupted one would have.
"""

import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from typing import Any, Generic, TypeVar

from ...errors import TrainingError
from ...manifest import ManifestEntry
from .clip_sources import Report, Source, with_lengths
from .data_config import SourcesConfig
from .planning import Planner

_MOST_REDRAWS = 100
# The share of unreadable clips among those tried says nothing before so many have been.
_FEWEST_TRIED = 200

RowType = TypeVar("RowType")
BatchType = TypeVar("BatchType")


class Unreadable:
    """The files of a run that cannot be read: each is named once, and too many end the run.

    Args:
        where: the paths that the clips are from, for messages.
        most_share: the share of all clips, or of at least 200 that were tried, that may be
            unreadable.
        report: a function that is called with a line about every file that is skipped.

    Attributes:
        reasons: for each file that could not be read so far, what is wrong with it.
        num_clips: the number of all clips, readable or not; set by `measured`.
    """

    def __init__(self, where: str, most_share: float, report: Report) -> None:
        self.reasons, self.num_clips = dict[str, str](), 0
        self._where, self._most_share, self._report = where, most_share, report
        self._tried: set[int] = set()

    def measured(
        self, sources: Sequence[Source], seconds_of: Callable[[ManifestEntry], float]
    ) -> list[Source]:
        """The sources with the seconds of every clip, without clips of unknown length.

        Raises:
            TrainingError: too many clips cannot be read.
        """
        self.num_clips = sum(len(source.entries) for source in sources)
        measured = []
        for source in sources:
            entries, unknown = with_lengths(source.entries, seconds_of)
            for entry, reason in unknown:
                self.skip(entry.location, reason)
            measured.append(replace(source, entries=entries))
        self.check(self.num_clips)
        return [source for source in measured if source.entries]

    def skip(self, name: str, reason: str) -> bool:
        """Report a file that cannot be read, once; whether it is the first time."""
        if name in self.reasons:
            return False
        self.reasons[name] = reason
        self._report(f"skipped: {reason}")
        return True

    def note(self, clip: int, name: str, reason: str | None) -> None:
        """Count clip number ``clip`` as tried, and as unreadable where there is a reason.

        Raises:
            TrainingError: too many clips are unreadable.
        """
        self._tried.add(clip)
        if reason is not None and self.skip(name, reason):
            self.check(self.num_clips)
            if len(self._tried) >= _FEWEST_TRIED:
                self.check(len(self._tried))

    def check(self, total: int) -> None:
        """Raise a TrainingError if too many of ``total`` clips could not be read."""
        count = len(self.reasons)
        if count == total or count > self._most_share * total:
            names = ", ".join(itertools.islice(self.reasons, 3))
            raise TrainingError(
                f"{count} of the {total} training clips in {self._where} cannot be read, named "
                f"above ({names}{', ...' if count > 3 else ''}); expected a share of at most "
                f"{self._most_share:g}: repair them or raise data.max_unreadable_share"
            )


class TrainingData(ABC, Generic[RowType, BatchType]):
    """Batches of one process of a run.

    Args:
        config: the recipe's group ``data``.
        rank: the rank of this process.
        world: the number of processes, which divide the rows of a step among them.
        report: a function that is called with a line about every file that is skipped.

    Attributes:
        unreadable: for each file that could not be read so far, what is wrong with it.
    """

    _planner: Planner[RowType]

    def __init__(
        self, config: SourcesConfig, rank: int, world: int, report: Callable[[str], None]
    ) -> None:
        self._rank, self._world, self._report = rank, world, report
        where = ", ".join(path for path, _ in config.weighted_paths)
        self._skipped = Unreadable(where, config.max_unreadable_share, report)
        self.unreadable = self._skipped.reasons

    @abstractmethod
    def batch(self, step: int) -> BatchType:
        """This process's rows of a step.

        Raises:
            TrainingError: too many clips cannot be read.
        """

    def batches(self, first_step: int) -> Generator[BatchType]:
        """The batches of ``first_step`` and all after it; see `batch`."""
        yield from map(self.batch, itertools.count(first_step))

    @abstractmethod
    def _make(self, row: RowType) -> Any:
        """A row with its content, or a line that says why a file of it cannot be read."""

    def _note(self, row: RowType, made: Any) -> None:
        """Count the clips of a row as tried, and as unreadable where it could not be made."""

    def _own(self, rows: Sequence[RowType]) -> tuple[int, Sequence[RowType]]:
        """This process's share of the rows of a step, and the index of its first."""
        count = len(rows) // self._world
        first = self._rank * count
        return first, rows[first : first + count]

    def _replaced(self, step: int, index: int, row: RowType, made: Any) -> tuple[RowType, Any]:
        """A row and its content; another one's where a file of it cannot be read."""
        for attempt in range(_MOST_REDRAWS):
            self._note(row, made)
            if not isinstance(made, str):
                return row, made
            row = self._planner.redraw(step, index, attempt)
            made = self._make(row)
        raise TrainingError(
            f"{_MOST_REDRAWS} rows drawn for row {index} of step {step + 1} hold clips that cannot "
            f"be read, the last of them being: {made}; repair the data"
        )


def part_of(num_rows: int, index: int, count: int, remedy: str) -> slice:
    """The rows of part ``index`` of ``count`` equal ones, in order.

    Raises:
        TrainingError: the rows cannot be shared out equally; the message names the ``remedy``.
    """
    rows, rest = divmod(num_rows, count)
    if rest or not rows:
        raise TrainingError(
            f"{num_rows} rows cannot be shared out equally to {count}; make {remedy} a multiple of "
            f"{count}"
        )
    return slice(index * rows, (index + 1) * rows)
