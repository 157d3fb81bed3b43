"""Sources: manifests, folders of shards, and the clips in them that a run may use.

Owns the filters of the recipe, the lengths that a manifest does not state, and the count of files
that cannot be read. Opens sound only to learn its length; knows nothing of encoding or batches.
"""

import itertools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

import numpy as np

from ...audio import audio_info
from ...errors import MossAudioError, TrainingError
from ...manifest import ManifestEntry, read_manifest
from ...sources.entries import explain, location, open_entry
from ...sources.recordings import find_recordings
from ...sources.tar_shards import has_shards, read_shards
from .data_config import SourcesConfig

_PROBING_THREADS = 4
# The share of unreadable clips among those tried says nothing before so many have been.
_FEWEST_TRIED = 200

Report: TypeAlias = Callable[[str], None]
# What a manifest or folder has of a split (None: of all).
Reader: TypeAlias = Callable[[str, str | None, Report], list[ManifestEntry]]


@dataclass(frozen=True)
class Source:
    """The usable clips of one manifest or folder, and its weight among the others."""

    path: str
    weight: float
    entries: list[ManifestEntry]


def read_entries(path: str, split: str | None, report: Report = print) -> list[ManifestEntry]:
    """The recordings of a split (None: of all) in a manifest, a folder of shards or of sound files.

    Sound files of a folder without a list are speech of the split "train".

    Raises:
        InputError: it cannot be read, or has nothing of the split.
    """
    if not has_shards(path):
        return read_manifest(path, split)
    if any(Path(path).glob("*.tar")) or any(Path(path).glob("shards/*.tar")):
        return read_shards(path, split, report)
    lines, problems = find_recordings(Path(path), (split,) if split else (), "speech")
    for problem in problems:
        report(f"skipped: {problem['error']}")
    return [line.entry for line in lines]


def find_sources(
    config: SourcesConfig, split: str, report: Report = print, read: Reader = read_entries
) -> list[Source]:
    """The clips of a split that the recipe's filters keep, source by source.

    Args:
        config: the recordings of the recipe.
        split: the split to read.
        report: a function that is called with a line about everything that is skipped.
        read: a function that reads the entries of a path.

    Raises:
        InputError: a manifest or folder cannot be read, or has nothing of the split.
        TrainingError: the filters keep nothing.
    """
    sources = [
        Source(path, weight, [entry for entry in read(path, split, report) if config.keeps(entry)])
        for path, weight in config.weighted_paths
    ]
    if not any(source.entries for source in sources):
        wanted = ", ".join((*config.speakers, *config.languages))
        raise TrainingError(
            f"{', '.join(source.path for source in sources)} has no clips of split {split!r} by "
            f"{wanted}; set data.speakers and data.languages to names that it has"
        )
    return [source for source in sources if source.entries]


def find_clips(
    config: SourcesConfig, split: str, report: Report = print, read: Reader = read_entries
) -> list[ManifestEntry]:
    """All clips of a split, of all sources that have it; arguments and errors of `find_sources`.

    Returns:
        The clips; none where no source has the split.
    """
    holding = [
        (path, 1.0)
        for path, _ in config.weighted_paths
        if any(entry.split == split for entry in read(path, None, report))
    ]
    if not holding:
        return []
    narrowed = replace(config, manifest="", sources=tuple(holding))
    sources = find_sources(narrowed, split, report, read)
    return [entry for source in sources for entry in source.entries]


def audio_seconds(entry: ManifestEntry) -> float:
    """The length of an entry's sound, from its file.

    Raises:
        AudioFileError: it cannot be read.
    """
    with open_entry(entry) as source:
        return audio_info(source).duration_seconds


def with_lengths(
    entries: list[ManifestEntry], seconds_of: Callable[[ManifestEntry], float] = audio_seconds
) -> tuple[list[ManifestEntry], list[tuple[ManifestEntry, str]]]:
    """The entries, all with their seconds; and those whose length cannot be read, and why.

    Args:
        entries: any entries.
        seconds_of: a function that gives the length of a clip whose manifest does not state it.
    """

    def measure(entry: ManifestEntry) -> ManifestEntry | str:
        if entry.seconds:
            return entry
        try:
            return replace(entry, seconds=seconds_of(entry))
        except MossAudioError as error:
            return explain(entry, error)

    with ThreadPoolExecutor(_PROBING_THREADS) as pool:
        measured = list(pool.map(measure, entries))
    known = [item for item in measured if isinstance(item, ManifestEntry)]
    pairs = zip(entries, measured, strict=True)
    return known, [(entry, item) for entry, item in pairs if isinstance(item, str)]


def spread_evenly(entries: Sequence[ManifestEntry], count: int) -> list[ManifestEntry]:
    """At most ``count`` of the entries, evenly spaced in the order of their names."""
    ordered = sorted(entries, key=lambda entry: entry.name or str(entry.path))
    indices = np.linspace(0, len(ordered) - 1, min(count, len(ordered))).round().astype(int)
    return [ordered[index] for index in indices]


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
                self.skip(location(entry), reason)
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
