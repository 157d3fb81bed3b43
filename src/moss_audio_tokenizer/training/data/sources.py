"""Sources: manifests and folders of shards, and the clips in them that a run may use.

Owns the filters of the recipe and lengths that a manifest does not state; opens no sound but to
learn its length.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TypeAlias

from ...audio import audio_info
from ...errors import MossAudioError, TrainingError
from ...manifest import ManifestEntry, read_manifest
from ...sources.entries import explain, open_entry
from ...sources.tar_shards import has_shards, read_shards
from .config import SourcesConfig

_PROBING_THREADS = 4

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
    """The recordings of a split (None: of all) in a manifest or a folder of shards of sound.

    Raises:
        InputError: it cannot be read, or has nothing of the split.
    """
    if has_shards(path):
        return read_shards(path, split, report)
    return read_manifest(path, split)


def find_sources(
    config: SourcesConfig, split: str, report: Report = print, read: Reader = read_entries
) -> list[Source]:
    """The clips of a split that the recipe's filters keep, source by source.

    Args:
        config: which recordings.
        split: which of them.
        report: called with a line about whatever is skipped.
        read: what a path stands for.

    Raises:
        InputError: a manifest or folder cannot be read, or has nothing of the split.
        TrainingError: the filters keep nothing.
    """
    pairs = config.weighted_paths
    found = [(path, weight, read(path, split, report)) for path, weight in pairs]
    sources = [Source(path, weight, _filtered(entries, config)) for path, weight, entries in found]
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
    """All clips of a split that the recipe's filters keep; none when no source has the split.

    Args:
        config: which recordings.
        split: which of them.
        report: called with a line about whatever is skipped.
        read: what a path stands for.

    Raises:
        InputError: a manifest or folder cannot be read.
        TrainingError: there is the split, but the filters keep nothing of it.
    """
    holding = [
        path
        for path, _ in config.weighted_paths
        if any(entry.split == split for entry in read(path, None, report))
    ]
    if not holding:
        return []
    narrowed = replace(config, manifest="", sources=tuple((path, 1.0) for path in holding))
    sources = find_sources(narrowed, split, report, read)
    return [entry for source in sources for entry in source.entries]


def _filtered(entries: list[ManifestEntry], config: SourcesConfig) -> list[ManifestEntry]:
    return [
        entry
        for entry in entries
        if (not config.speakers or entry.speaker in config.speakers)
        and (not config.languages or entry.language in config.languages)
    ]


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
        entries: any.
        seconds_of: the length of one whose manifest does not say.
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
