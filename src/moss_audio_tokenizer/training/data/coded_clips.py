"""Codes of clips: read where they are stored, or encoded from sound, and kept in memory.

Stored codes must all be of one model. A recording can be encoded in several versions: at another
level and speed, with a little noise. What is random in a version follows from the seed, the version
and the speaker: all clips of a speaker change in the same way, so that they can still be joined.
Knows nothing of rows or batches.
"""

import zlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, UInt16

from ...audio import load_audio, resample
from ...codes import AudioCodes, Codec, CodecInfo
from ...codes.formats import FORMATS
from ...codes.shards import CodeShards, has_code_shards, read_shards
from ...errors import CodesFileError, ConfigError, InputError, ModelMismatchError, MossAudioError
from ...manifest import ManifestEntry
from ...sources.entries import explain, location, open_entry
from .audio_rows import check_length, levelled
from .clip_sources import Report, audio_seconds, read_entries
from .data_config import CodesDataConfig

_RATES = ("sampling_rate", "num_channels", "downsample_rate", "codebook_size")
# The slowest and the fastest version.
_SPEEDS = (0.9, 1.1)


class StoredCodes:
    """The codes among a run's data; folders of shards stay open."""

    def __init__(self) -> None:
        self._folders: dict[Path, CodeShards] = {}

    def read_entries(
        self, path: str, split: str | None, report: Report = print
    ) -> list[ManifestEntry]:
        """`clip_sources.read_entries`, and an entry for every clip of a folder of shards of codes.

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
        found = (self._readable(entry) for entry in entries if self.holds(entry))
        return next((_described(codes) for codes in found if codes is not None), None)

    def _readable(self, entry: ManifestEntry) -> AudioCodes | None:
        with suppress(CodesFileError):  # it is named when its clip is drawn
            return self.load(entry)
        return None


def _entry(folder: Path, shards: CodeShards, row: int, fact: dict[str, Any]) -> ManifestEntry:
    texts = ("domain", "split", "name", "speaker", "text", "task", "language")
    entry = ManifestEntry(folder, row=row, **{name: fact[name] for name in texts})
    return replace(entry, seconds=fact["num_samples"] / shards.head.sampling_rate)


def _described(codes: AudioCodes) -> CodecInfo:
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


@dataclass(frozen=True)
class Variation:
    """How a version differs from its recording.

    Attributes:
        speed: the factor by which it is faster.
        level: its level in dBFS (RMS).
        noise_db: how far the noise lies below that, in dB.
        seed: the seed of the noise.
    """

    speed: float
    level: float
    noise_db: float
    seed: tuple[int, ...]

    def applied(
        self, audio: Float32[np.ndarray, "channels samples"], sampling_rate: int
    ) -> Float32[np.ndarray, "channels changed"]:
        """Audio in this version, about ``samples / speed`` samples."""
        # Doubled, because rates below 8,000 samples a second are refused.
        rate = round(2 * sampling_rate * self.speed)
        changed = levelled(resample(audio, rate, 2 * sampling_rate), self.level)
        noise = np.random.default_rng(self.seed).standard_normal(changed.shape, np.float32)
        level = np.sqrt(np.mean(np.square(changed))) * 10 ** (-self.noise_db / 20)
        return np.clip(changed + noise * np.float32(level), -1.0, 1.0)


class Variations:
    """The versions of every entry.

    Args:
        config: the recipe's group ``data``.
        seed: the seed that they follow from.
        is_stored: whether an entry holds codes, of which there is one version.
    """

    def __init__(
        self, config: CodesDataConfig, seed: int, is_stored: Callable[[ManifestEntry], bool]
    ) -> None:
        self._seed, self._is_stored = seed, is_stored
        self._ranges = (_SPEEDS, config.gain_db, config.noise_db)

    def of(self, entry: ManifestEntry, version: int) -> Variation | None:
        """A version of an entry; None for the first, the recording itself."""
        if version == 0 or self._is_stored(entry):
            return None
        draws = _draws(self._seed, version, entry.speaker or entry.name)
        speed, level, noise = (
            low + (high - low) * draw for (low, high), draw in zip(self._ranges, draws, strict=True)
        )
        return Variation(speed, level, noise, (self._seed, version, _number(entry.name)))

    def seconds(self, entry: ManifestEntry, version: int) -> float:
        """How long a version is by the entry's manifest."""
        changed = self.of(entry, version)
        return entry.seconds / (changed.speed if changed else 1.0)


@lru_cache(maxsize=1 << 14)
def _draws(seed: int, version: int, whose: str) -> tuple[float, ...]:
    return tuple(np.random.default_rng((seed, version, _number(whose))).random(3).tolist())


def _number(name: str) -> int:
    return zlib.crc32(name.encode())


class ClipReader:
    """Codes of any entry.

    Args:
        info: what all codes are, with the number of codebooks that is wanted.
        stored: the stored codes.
        codec: the codec that makes the others; None where all are stored.
        variations: what versions sound like.
        cache_seconds: the seconds of codes that are kept in memory, those that come first.
    """

    def __init__(
        self,
        info: CodecInfo,
        stored: StoredCodes,
        codec: Codec | None,
        variations: Variations,
        cache_seconds: float,
    ) -> None:
        self._info, self._stored, self._codec = info, stored, codec
        self._variations, self._room = variations, cache_seconds
        self._kept: dict[tuple[ManifestEntry, int], np.ndarray] = {}

    def codes(
        self, entry: ManifestEntry, version: int
    ) -> UInt16[np.ndarray, "num_quantizers frames"] | str:
        """Codes of a version of a clip, or a line that says why its file cannot be used.

        Raises:
            ModelMismatchError: they are another model's.
        """
        key = entry, 0 if self._stored.holds(entry) else version
        if key in self._kept:
            return self._kept[key]
        try:
            codes = self._read(entry) if self._stored.holds(entry) else self._made(entry, version)
        except ModelMismatchError:
            raise
        except MossAudioError as error:
            return " ".join(explain(entry, error).split())
        seconds = codes.shape[1] / self._info.frame_rate
        if seconds <= self._room:
            self._room -= seconds
            self._kept[key] = codes
        return codes

    def _read(self, entry: ManifestEntry) -> np.ndarray:
        codes, wanted = self._stored.load(entry), self._info.num_quantizers
        check_model(_described(codes), self._info, location(entry))
        check_length(entry, codes.duration_seconds, entry.seconds)
        if codes.num_quantizers < wanted:
            raise CodesFileError(
                f"'{location(entry)}' has {codes.num_quantizers} layers; expected at least "
                f"{wanted}: tokenize it again, or set data.num_quantizers"
            )
        return codes.first(wanted).codes.astype(np.uint16)

    def _made(self, entry: ManifestEntry, version: int) -> np.ndarray:
        if self._codec is None:
            raise ConfigError(f"'{location(entry)}' is sound; set data.codec to a model")
        rate = self._info.sampling_rate
        with open_entry(entry) as source:
            audio = load_audio(source, rate, self._info.num_channels)
        check_length(entry, audio.shape[1] / rate, entry.seconds)
        if changed := self._variations.of(entry, version):
            audio = changed.applied(audio, rate)
        # Alone, so that codes cannot depend on what else is in the batch.
        codes = self._codec.encode(audio, num_quantizers=self._info.num_quantizers)
        return np.asarray(codes).astype(np.uint16)
