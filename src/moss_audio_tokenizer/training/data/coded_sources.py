"""Stored codes as sources of training data: files that a manifest names, and folders of shards.

Owns which entries stand for codes, how these are read, and whether all are of one model. Knows
nothing of encoding or of batches.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...codes import AudioCodes, CodecInfo
from ...codes.formats import FORMATS
from ...codes.shards import CodeShards, has_code_shards, read_shards
from ...errors import CodesFileError, InputError, ModelMismatchError
from ...manifest import ManifestEntry
from ...sources.entries import location
from .sources import Report, audio_seconds, read_entries

_RATES = ("sampling_rate", "num_channels", "downsample_rate", "codebook_size")


class StoredCodes:
    """The codes among a run's data; folders of shards stay open."""

    def __init__(self) -> None:
        self._folders: dict[Path, CodeShards] = {}

    def read_entries(
        self, path: str, split: str | None, report: Report = print
    ) -> list[ManifestEntry]:
        """`sources.read_entries`, and an entry for every clip of a folder of shards of codes.

        Raises:
            InputError: the source cannot be read, or has nothing of the split.
            CodesFileError: a shard of codes is damaged.
        """
        if not has_code_shards(path):
            return read_entries(path, split, report)
        folder = Path(path).absolute()
        if folder not in self._folders:
            self._folders[folder] = read_shards(folder)
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
        found = (self._described(entry) for entry in entries if self.holds(entry))
        return next((info for info in found if info is not None), None)

    def _described(self, entry: ManifestEntry) -> CodecInfo | None:
        try:
            return described(self.load(entry))
        except CodesFileError:
            return None  # it is named when its clip is drawn


def described(codes: AudioCodes) -> CodecInfo:
    """What codes are, as far as they say."""
    return CodecInfo(
        identity=codes.model,
        sampling_rate=codes.sampling_rate,
        num_channels=codes.num_channels,
        downsample_rate=codes.downsample_rate,
        num_quantizers=codes.num_quantizers,
        codebook_size=codes.codebook_size,
    )


def check_model(found: CodecInfo, wanted: CodecInfo, where: str) -> None:
    """Refuse codes of another model; those of one that is not known need the same rates.

    Args:
        found: what codes are.
        wanted: what they are to be.
        where: they lie, to tell people.

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


def first_layers(codes: AudioCodes, num_quantizers: int, entry: ManifestEntry) -> AudioCodes:
    """Codes cut to their first layers.

    Raises:
        CodesFileError: there are fewer.
    """
    if codes.num_quantizers < num_quantizers:
        raise CodesFileError(
            f"'{location(entry)}' has {codes.num_quantizers} layers; expected at least "
            f"{num_quantizers}: tokenize it again, or set data.num_quantizers"
        )
    return codes.first(num_quantizers)


def _entry(folder: Path, shards: CodeShards, row: int, fact: dict[str, Any]) -> ManifestEntry:
    texts = ("domain", "split", "name", "speaker", "text", "task", "language")
    entry = ManifestEntry(folder, row=row, **{name: fact[name] for name in texts})
    return replace(entry, seconds=fact["num_samples"] / shards.head.sampling_rate)
