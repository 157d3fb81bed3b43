"""Sources: manifests, folders of shards, and the clips in them that a run may use.

Owns the filters of the recipe, the lengths that a manifest does not state, and stored codes: which
entries are codes, how they are read, and whether all are of one model. Opens sound only to learn
its length; knows nothing of encoding or batches.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from ...audio import audio_info
from ...codes import AudioCodes, CodecInfo
from ...codes.container import FORMATS
from ...codes.shards import CodeShards, has_code_shards
from ...codes.shards import read_shards as read_code_shards
from ...errors import CodesFileError, InputError, ModelMismatchError, MossAudioError, TrainingError
from ...manifest import ManifestEntry, read_manifest
from ...sources.recordings import find_recordings, open_entry
from ...sources.tar_shards import has_shards, read_shards
from .data_config import SourcesConfig

_PROBING_THREADS = 4
_RATES = ("sampling_rate", "num_channels", "downsample_rate", "codebook_size")

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
            return entry.explain(error)

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


class StoredCodes:
    """The codes among a run's data; folders of shards stay open."""

    def __init__(self) -> None:
        self._folders: dict[Path, CodeShards] = {}

    def read_entries(
        self, path: str, split: str | None, report: Report = print
    ) -> list[ManifestEntry]:
        """`read_entries`, and an entry for every clip of a folder of shards of codes.

        Raises:
            InputError: the source cannot be read, or has nothing of the split.
            CodesFileError: a shard of codes is damaged.
        """
        if not has_code_shards(path):
            return read_entries(path, split, report)
        folder = Path(path).absolute()
        if folder not in self._folders:
            self._folders[folder] = read_code_shards(folder)
        shards = self._folders[folder]
        entries = [_entry(folder, shards, row, fact) for row, fact in enumerate(shards.facts())]
        kept = [entry for entry in entries if split in (None, entry.split)]
        if not kept:
            found = ", ".join(sorted({entry.split for entry in entries})) or "nothing"
            raise InputError(f"{path} has no codes of split {split!r}; it has {found}")
        return kept

    def holds(self, entry: ManifestEntry) -> bool:
        """Whether an entry stands for codes, and not for sound."""
        if entry.path in self._folders:
            return True
        alone = entry.member is None and entry.row is None
        return alone and entry.path.suffix.lower() in FORMATS

    def load(self, entry: ManifestEntry) -> AudioCodes:
        """The codes of an entry.

        Raises:
            CodesFileError: they cannot be read.
        """
        if entry.row is not None and entry.path in self._folders:
            return self._folders[entry.path][entry.row].codes
        return AudioCodes.load(entry.path)

    def seconds(self, entry: ManifestEntry) -> float:
        """The length of an entry, of codes or of sound, from its file.

        Raises:
            CodesFileError, AudioFileError: it cannot be read.
        """
        return self.load(entry).duration_seconds if self.holds(entry) else audio_seconds(entry)

    def described(self, entries: Sequence[ManifestEntry]) -> CodecInfo | None:
        """What the first readable codes of a source are; None where there are none."""
        found = (self._readable(entry) for entry in entries if self.holds(entry))
        return next((described(codes) for codes in found if codes is not None), None)

    def _readable(self, entry: ManifestEntry) -> AudioCodes | None:
        with suppress(CodesFileError):  # it is named when its clip is drawn
            return self.load(entry)
        return None


def _entry(folder: Path, shards: CodeShards, row: int, fact: dict[str, Any]) -> ManifestEntry:
    texts = ("domain", "split", "name", "speaker", "text", "task", "language")
    entry = ManifestEntry(folder, row=row, **{name: fact[name] for name in texts})
    return replace(entry, seconds=fact["num_samples"] / shards.head.sampling_rate)


def described(codes: AudioCodes) -> CodecInfo:
    """What codes are, as far as they say."""
    shared = {name: getattr(codes, name) for name in (*_RATES, "num_quantizers")}
    return CodecInfo(identity=codes.model, **shared)


def check_model(found: CodecInfo, wanted: CodecInfo, where: str) -> None:
    """Refuse codes of another model; those of one that is not known need the same rates.

    Args:
        found: what the codes are.
        wanted: what they are expected to be.
        where: the path of the codes, for messages.

    Raises:
        ModelMismatchError: another identity, or other rates.
    """
    names = [name for name in _RATES if getattr(found, name) != getattr(wanted, name)]
    if found.identity and wanted.identity and found.identity != wanted.identity:
        names.insert(0, "identity")
    if names:
        name = names[0]
        raise ModelMismatchError(
            f"{where!r} holds codes of another model ({name} {getattr(found, name)}; expected "
            f"{getattr(wanted, name)}); set data.codec to the model that made all of them, or "
            "tokenize the data again"
        )
