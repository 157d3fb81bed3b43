"""Shards of codes: the codes of a whole data set, many clips a file, with their texts.

Owns the three formats (Parquet, WebDataset, folders of .moss files), how each is written and read
back; knows nothing of sound, nor of who makes the codes. docs/tokenizing.md has the columns.
"""

from .clip import CodedClip, ShardHead
from .reading import CodeShards, has_code_shards, manifest_path, read_shards
from .writing import SHARD_FORMATS, require_format, shard_path, write_shard

__all__ = [
    "SHARD_FORMATS",
    "CodeShards",
    "CodedClip",
    "ShardHead",
    "has_code_shards",
    "manifest_path",
    "read_shards",
    "require_format",
    "shard_path",
    "write_shard",
]
