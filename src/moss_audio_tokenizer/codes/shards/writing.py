"""Writing a shard of codes, whole or not at all, in any of the formats.

Owns which formats there are and where a shard of each lies.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from ...errors import CodesFileError
from ...files import atomic_path
from .clip import CodedClip, ShardHead
from .packed import write_folder, write_tar
from .parquet import libraries, write_parquet


class _ShardFormat(NamedTuple):
    suffix: str
    write: Callable[[Path, ShardHead, Sequence[CodedClip]], None]


SHARD_FORMATS = {
    "parquet": _ShardFormat(".parquet", write_parquet),
    "webdataset": _ShardFormat(".tar", write_tar),
    "moss": _ShardFormat(".codes", write_folder),
}


def shard_path(folder: Path, name: str, shard_format: str) -> Path:
    """Where a shard of a format lies."""
    return folder / f"{name}{SHARD_FORMATS[shard_format].suffix}"


def require_format(shard_format: str) -> None:
    """Make sure that shards of a format can be written here, before there is anything to write.

    Raises:
        MissingDependencyError: Parquet without pyarrow.
    """
    if SHARD_FORMATS[shard_format].write is write_parquet:
        libraries()


def write_shard(
    folder: Path, name: str, shard_format: str, head: ShardHead, clips: Sequence[CodedClip]
) -> Path:
    """Write a shard, in place of one that is there; returns its path.

    Args:
        folder: where to; it must exist.
        name: of the shard, without an extension.
        shard_format: one of SHARD_FORMATS.
        head: what all clips share.
        clips: in their order.

    Raises:
        CodesFileError: it cannot be written.
        MissingDependencyError: Parquet without pyarrow.
    """
    path = shard_path(folder, name, shard_format)
    with atomic_path(path, error=CodesFileError) as temporary:
        SHARD_FORMATS[shard_format].write(temporary, head, clips)
    return path
