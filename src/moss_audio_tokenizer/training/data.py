"""Training data: clips in memory, and the batch of every step.

Owns what a batch is; knows nothing of models. A batch is a pure function of the seed and the
step's number, so that a resumed run sees what an uninterrupted one would have seen.
"""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int16

from ..audio import load_audio
from ..errors import MossAudioError, TrainingError
from ..manifest import ManifestEntry
from .config import DataConfig


@dataclass(frozen=True)
class Clip:
    """A clip in memory as 16-bit samples: an hour at 24 kHz takes 170 MB."""

    entry: ManifestEntry
    samples: Int16[np.ndarray, "channels samples"]

    def cut(self, start: int, length: int) -> Float[np.ndarray, "channels length"]:
        """``length`` samples from ``start`` on, as float32, zero past the end."""
        piece = self.samples[:, start : start + length].astype(np.float32) / 32768.0
        return np.pad(piece, ((0, 0), (0, length - piece.shape[1])))


def load_clips(
    entries: Sequence[ManifestEntry], sampling_rate: int, channels: int, workers: int = 2
) -> tuple[list[Clip], list[str]]:
    """Decode and resample clips: (those that could be read, a line for each that could not).

    Damaged files and samples that are not finite are such lines, which name the file.
    """

    def load(entry: ManifestEntry) -> Clip | str:
        try:
            audio = load_audio(entry.path, sampling_rate, channels)
        except MossAudioError as error:
            name = str(entry.path)
            return str(error) if name in str(error) else f"{name!r}: {error}"
        return Clip(entry, np.clip(np.rint(audio * 32768.0), -32768, 32767).astype(np.int16))

    with ThreadPoolExecutor(workers) as pool:
        loaded = list(pool.map(load, entries))
    clips = [item for item in loaded if isinstance(item, Clip)]
    return clips, [item for item in loaded if isinstance(item, str)]


class CropSampler:
    """Random crops: a domain by weight, a clip by length, a place in it, and a level.

    Attributes:
        left_out: clips of each domain that ``data.domain_weights`` gives no share.

    Raises:
        TrainingError: no clip is of a domain with a share.
    """

    def __init__(
        self, clips: Iterable[Clip], config: DataConfig, sampling_rate: int, seed: int
    ) -> None:
        self.config = config
        self.seed = seed
        self.crop_samples = round(config.crop_seconds * sampling_rate)
        self._groups: dict[str, list[Clip]] = {}
        for clip in clips:
            self._groups.setdefault(clip.entry.domain, []).append(clip)
        weights = self._present_weights()
        self.left_out = {
            name: len(group) for name, group in self._groups.items() if not weights.get(name)
        }
        self._domains = list(weights)
        self._weights = np.array(list(weights.values())) / sum(weights.values())
        self._lengths = {
            name: _shares([clip.samples.shape[1] for clip in self._groups[name]])
            for name in self._domains
        }

    def _present_weights(self) -> dict[str, float]:
        """The shares of the domains that have clips."""
        wanted = dict(self.config.domain_weights)
        weights = {name: weight for name, weight in wanted.items() if name in self._groups}
        if not sum(weights.values()) > 0:
            raise TrainingError(
                f"data.domain_weights gives shares to {[n for n, w in wanted.items() if w]}, but "
                f"the readable clips are of the domains {sorted(self._groups)}; set "
                "data.domain_weights"
            )
        return weights

    def batch(self, step: int) -> Float[np.ndarray, "batch channels samples"]:
        """The crops of step ``step``."""
        return np.stack([crop for _, crop in self._draw(step)])

    def files(self, step: int) -> list[Path]:
        """The file of every crop of step ``step``, to name them when something is wrong."""
        return [clip.entry.path for clip, _ in self._draw(step)]

    def _draw(self, step: int) -> Iterator[tuple[Clip, Float[np.ndarray, "channels samples"]]]:
        random = np.random.default_rng((self.seed, step))
        for _ in range(self.config.batch_size):
            clip, start = self._place(random)
            yield clip, self._level(clip.cut(start, self.crop_samples), random)

    def _place(self, random: np.random.Generator) -> tuple[Clip, int]:
        domain = self._domains[random.choice(len(self._domains), p=self._weights)]
        shares = self._lengths[domain]
        clip = self._groups[domain][int(np.searchsorted(shares, random.random(), side="right"))]
        latest = max(0, clip.samples.shape[1] - self.crop_samples)
        return clip, int(random.integers(latest + 1))

    def _level(self, crop: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """Bring a crop to a random loudness without clipping it."""
        target = random.uniform(*self.config.gain_db)
        rms = 20 * np.log10(np.sqrt(np.mean(crop**2)) + 1e-6)
        gain = 10 ** (min(target - rms, self.config.max_gain_db) / 20)
        peak = float(np.abs(crop).max()) + 1e-9
        return (crop * min(gain, 0.99 / peak)).astype(np.float32)


def _shares(lengths: list[int]) -> np.ndarray:
    cumulative = np.cumsum(lengths) / sum(lengths)
    cumulative[-1] = 1.0
    return cumulative
