"""Sources: manifests and folders of shards, and the clips in them that a run may use.

Owns the filters of the recipe and lengths that a manifest does not state; opens no sound but to
learn its length.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from ...audio import audio_info
from ...errors import MossAudioError, TrainingError
from ...manifest import ManifestEntry, has_split, read_manifest
from ...sources.entries import explain, open_entry
from ...sources.shards import has_shards, read_shards
from .config import DataConfig

_PROBING_THREADS = 4


@dataclass(frozen=True)
class Source:
    """The usable clips of one manifest or folder, and its weight among the others."""

    path: str
    weight: float
    entries: list[ManifestEntry]


def find_sources(
    config: DataConfig, split: str, report: Callable[[str], None] = print
) -> list[Source]:
    """The clips of a split that the recipe's filters keep, source by source.

    Raises:
        InputError: a manifest or folder cannot be read, or has nothing of the split.
        TrainingError: the filters keep nothing.
    """
    pairs = config.sources or ((config.manifest, 1.0),)
    found = [(path, weight, _read(path, split, report)) for path, weight in pairs]
    sources = [Source(path, weight, _filtered(entries, config)) for path, weight, entries in found]
    if not any(source.entries for source in sources):
        wanted = ", ".join((*config.speakers, *config.languages))
        raise TrainingError(
            f"{', '.join(source.path for source in sources)} has no clips of split {split!r} by "
            f"{wanted}; set data.speakers and data.languages to names that it has"
        )
    return [source for source in sources if source.entries]


def find_clips(
    config: DataConfig, split: str, report: Callable[[str], None] = print
) -> list[ManifestEntry]:
    """All clips of a split that the recipe's filters keep; none when no source has the split.

    Raises:
        InputError: a manifest or folder cannot be read.
        TrainingError: there is the split, but the filters keep nothing of it.
    """
    paths = [path for path, _ in config.sources] or [config.manifest]
    holding = [path for path in paths if _has_split(path, split, report)]
    if not holding:
        return []
    pairs = tuple((path, 1.0) for path in holding)
    narrowed = replace(config, manifest="", sources=pairs)
    return [entry for source in find_sources(narrowed, split, report) for entry in source.entries]


def _read(path: str, split: str, report: Callable[[str], None]) -> list[ManifestEntry]:
    if has_shards(path):
        return read_shards(path, split, report)
    return read_manifest(path, split)


def _has_split(path: str, split: str, report: Callable[[str], None]) -> bool:
    if has_shards(path):
        return any(entry.split == split for entry in read_shards(path, None, report))
    return has_split(path, split)


def _filtered(entries: list[ManifestEntry], config: DataConfig) -> list[ManifestEntry]:
    return [
        entry
        for entry in entries
        if (not config.speakers or entry.speaker in config.speakers)
        and (not config.languages or entry.language in config.languages)
    ]


def with_lengths(
    entries: list[ManifestEntry],
) -> tuple[list[ManifestEntry], list[tuple[ManifestEntry, str]]]:
    """The entries, all with their seconds; and those whose length cannot be read, and why."""

    def measure(entry: ManifestEntry) -> ManifestEntry | str:
        if entry.seconds:
            return entry
        try:
            with open_entry(entry) as source:
                return replace(entry, seconds=audio_info(source).duration_seconds)
        except MossAudioError as error:
            return explain(entry, error)

    with ThreadPoolExecutor(_PROBING_THREADS) as pool:
        measured = list(pool.map(measure, entries))
    known = [item for item in measured if isinstance(item, ManifestEntry)]
    pairs = zip(entries, measured, strict=True)
    return known, [(entry, item) for entry, item in pairs if isinstance(item, str)]
