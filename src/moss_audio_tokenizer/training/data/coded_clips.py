"""Codes of clips: read where they are stored, or encoded from sound, and kept in memory.

A recording can be encoded in several versions: at another
level and speed, with a little noise. What is random in a version follows from the seed, the version
and the speaker: all clips of a speaker change in the same way, so that they can still be joined.
Knows nothing of rows or batches.
"""

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Float32, UInt16

from ...audio import load_audio, resample
from ...codes import Codec, CodecInfo
from ...errors import CodesFileError, ConfigError, ModelMismatchError, MossAudioError, one_line
from ...manifest import ManifestEntry
from ...sources.recordings import open_entry
from .audio_rows import check_length, leveled
from .clip_sources import StoredCodes, check_model, described
from .data_config import CodesDataConfig

# The slowest and the fastest version.
_SPEEDS = (0.9, 1.1)


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
        changed = leveled(resample(audio, rate, 2 * sampling_rate), self.level)
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
        info: what all codes are, with the number of codebooks that every source has.
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
            return one_line(entry.explain(error))
        seconds = codes.shape[1] / self._info.frame_rate
        if seconds <= self._room:
            self._room -= seconds
            self._kept[key] = codes
        return codes

    def _read(self, entry: ManifestEntry) -> np.ndarray:
        codes, wanted = self._stored.load(entry), self._info.num_quantizers
        check_model(described(codes), self._info, entry.location)
        check_length(entry, codes.duration_seconds, entry.seconds)
        if codes.num_quantizers < wanted:
            raise CodesFileError(
                f"'{entry.location}' has {codes.num_quantizers} layers; expected at least "
                f"{wanted}: tokenize it again"
            )
        return codes.first(wanted).codes.astype(np.uint16)

    def _made(self, entry: ManifestEntry, version: int) -> np.ndarray:
        if self._codec is None:
            raise ConfigError(f"'{entry.location}' is sound; set data.codec to a model")
        rate = self._info.sampling_rate
        with open_entry(entry) as source:
            audio = load_audio(source, rate, self._info.num_channels)
        check_length(entry, audio.shape[1] / rate, entry.seconds)
        if changed := self._variations.of(entry, version):
            audio = changed.applied(audio, rate)
        # Alone, so that codes cannot depend on what else is in the batch.
        codes = self._codec.encode(audio, num_quantizers=self._info.num_quantizers)
        return np.asarray(codes).astype(np.uint16)
