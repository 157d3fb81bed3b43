"""What to make of a data set: everything that decides a byte of the result.

How many workers there are, and which engine runs them, is not part of it.
"""

from dataclasses import asdict, dataclass
from typing import Any

from ..codes.shards import SHARD_FORMATS
from ..errors import InputError

BATCHINGS = ("exact", "together")
# What is computed together on a CPU should fit its caches, on a GPU fill it; measured.
CPU_BATCH_SECONDS, GPU_BATCH_SECONDS = 16.0, 120.0


@dataclass(frozen=True)
class Tokenizing:
    """What to make of a data set.

    Attributes:
        source: manifest, or folder of sound files, tar files, Parquet or Arrow files.
        splits: which to tokenize; empty for all.
        domain: of recordings that do not say theirs.
        num_quantizers: layers of codes to keep; 0 keeps all.
        shard_format: "parquet", "webdataset" or "moss".
        shard_hours: a shard is full once it has about so many hours.
        shard_clips: and has no more clips than this.
        batch_seconds: seconds of audio that are decoded together, padding included.
        batching: "exact" computes every clip by itself; "together" the clips of a batch at once,
            which is faster, but may round a few codes another way.

    Raises:
        InputError: values that cannot be.
    """

    source: str
    splits: tuple[str, ...] = ()
    domain: str = "speech"
    num_quantizers: int = 0
    shard_format: str = "parquet"
    shard_hours: float = 0.5
    shard_clips: int = 5000
    batch_seconds: float = CPU_BATCH_SECONDS
    batching: str = "exact"

    def __post_init__(self) -> None:
        if self.shard_format not in SHARD_FORMATS:
            raise InputError(
                f"got format {self.shard_format!r}; expected {', '.join(SHARD_FORMATS)}"
            )
        if self.batching not in BATCHINGS:
            raise InputError(f"got batching {self.batching!r}; expected {', '.join(BATCHINGS)}")
        if not (self.shard_hours > 0 and self.batch_seconds > 0 and self.shard_clips > 0):
            raise InputError(
                f"got shards of {self.shard_hours:g} h and {self.shard_clips} clips, and batches "
                f"of {self.batch_seconds:g} s; expected all above 0"
            )

    @property
    def values(self) -> dict[str, Any]:
        """As plain values."""
        return {**asdict(self), "splits": list(self.splits)}
