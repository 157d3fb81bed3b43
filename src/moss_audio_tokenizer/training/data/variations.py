"""Versions of a recording: another level, another speed, a little noise.

Owns what is random in them, a pure function of the seed, the version and the speaker: all clips of
a speaker sound alike in a version, as if somebody else had said them elsewhere, so that they can
still be joined. Knows nothing of codes.
"""

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Float32

from ...audio import resample
from ...manifest import ManifestEntry
from .coded_config import CodesDataConfig
from .rows import levelled

_MAX_GAIN_DB = 20.0


@dataclass(frozen=True)
class Variation:
    """How a version differs from its recording.

    Attributes:
        speed: so many times as fast.
        level: dBFS (RMS).
        noise_db: how far the noise lies below that.
        seed: of the noise.
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
        changed = levelled(resample(audio, rate, 2 * sampling_rate), self.level, _MAX_GAIN_DB)
        noise = np.random.default_rng(self.seed).standard_normal(changed.shape, np.float32)
        level = np.sqrt(np.mean(np.square(changed))) * 10 ** (-self.noise_db / 20)
        return np.clip(changed + noise * np.float32(level), -1.0, 1.0)


class Variations:
    """The versions of every entry.

    Args:
        config: the recipe's group ``data``.
        seed: what they follow from.
        is_stored: whether an entry holds codes, of which there is one version.
    """

    def __init__(
        self, config: CodesDataConfig, seed: int, is_stored: Callable[[ManifestEntry], bool]
    ) -> None:
        self._seed, self._is_stored = seed, is_stored
        self._ranges = (config.speed, config.gain_db, config.noise_db)

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
def _draws(seed: int, version: int, whose: str) -> tuple[float, float, float]:
    first, second, third = np.random.default_rng((seed, version, _number(whose))).random(3)
    return float(first), float(second), float(third)


def _number(name: str) -> int:
    return zlib.crc32(name.encode())
