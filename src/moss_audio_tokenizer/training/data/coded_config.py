"""What a language model on codes trains on: a frozen dataclass, checked when built.

Standard library only; knows nothing of files, of sound, or of codes.
"""

from dataclasses import dataclass

from ..overrides import require
from .config import SourcesConfig

_MOST_VERSIONS = 10_000
_MOST_JOINED = 64


@dataclass(frozen=True)
class CodesDataConfig(SourcesConfig):
    """Where codes and their texts come from, and what rows are made of them.

    A manifest may name sound files, which are encoded when they are first drawn, and files of
    codes (.moss, .safetensors, .npz); a folder holds shards of sound or of codes.

    Attributes:
        codec: encodes sound; a model folder, a hub id, or "bundled". Stored codes must be this
            model's. Empty: there is no sound, and the codes are what their files say.
        num_quantizers: layers that are used; 0 for all that every source has.
        versions: versions of each sound file that are encoded, up to 10,000. The first is the
            recording as it is, the others differ in level, speed and noise.
        speed: versions are played so many times as fast, with pitch and tempo.
        gain_db: level of a version, in dBFS (RMS).
        noise_db: how far white noise lies below the level of a version, in dB.
        text_seconds: the shortest clip and the longest row that are used.
        batch_seconds: about so much audio a step, of all processes together.
        max_join: up to so many clips of one speaker and source make up a row; 64 at most.
        join_share: share of the rows for which more than one clip is looked for.
        row_multiple: rows of each process are a multiple of this.
        max_unreadable_share: a run ends when more of the training clips than this cannot be read.
        cache_hours: codes of so many hours are kept in memory: 3 MB an hour with 32 layers.
    """

    codec: str = "bundled"
    num_quantizers: int = 0
    versions: int = 1
    speed: tuple[float, float] = (0.9, 1.1)
    gain_db: tuple[float, float] = (-32.0, -14.0)
    noise_db: tuple[float, float] = (30.0, 60.0)
    text_seconds: tuple[float, float] = (0.3, 12.0)
    batch_seconds: float = 60.0
    max_join: int = 1
    join_share: float = 0.5
    row_multiple: int = 1
    max_unreadable_share: float = 0.05
    cache_hours: float = 300.0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, most in (("versions", _MOST_VERSIONS), ("max_join", _MOST_JOINED)):
            require(1 <= getattr(self, name) <= most, self, name, f"1 to {most}")
        require(self.row_multiple >= 1, self, "row_multiple", "at least 1")
        for name in ("num_quantizers", "cache_hours"):
            require(getattr(self, name) >= 0, self, name, "0 or more")
        for name in ("join_share", "max_unreadable_share"):
            require(0 <= getattr(self, name) <= 1, self, name, "0 to 1")
        require(self.batch_seconds > 0, self, "batch_seconds", "a time above 0")
        low, high = self.text_seconds
        require(0 < low < high, self, "text_seconds", "(shortest, longest) above 0 seconds")
        low, high = self.speed
        require(0.5 <= low <= high <= 2, self, "speed", "(slowest, fastest) from 0.5 to 2")
        low, high = self.gain_db
        require(low <= high <= 0, self, "gain_db", "(lower, upper) in dBFS, up to 0")
        low, high = self.noise_db
        require(0 <= low <= high, self, "noise_db", "(lower, upper) in dB below the level")
