"""Shards of codes: the codes of a whole data set, many clips a file, with their texts.

Owns the manifests of shards, and reading and writing them whole or not at all; `shard_formats` has
the bytes. Knows nothing of sound, nor of who makes the codes. docs/tokenizing.md has the columns.
"""

import json
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple, overload

from ..errors import MALFORMED, CodesFileError, InputError
from ..files import atomic_path
from .codec import CodecInfo
from .shard_formats import (
    CodedClip,
    PackedShard,
    ParquetShard,
    head_values,
    parquet_libraries,
    read_head,
    write_folder,
    write_parquet,
    write_tar,
)

__all__ = [
    "SHARD_FORMATS",
    "CodeShards",
    "CodedClip",
    "has_code_shards",
    "head_values",
    "manifest_path",
    "read_shards",
    "require_format",
    "shard_path",
    "write_shard",
]


class _ShardFormat(NamedTuple):
    suffix: str
    write: Callable[[Path, CodecInfo, Sequence[CodedClip]], None]


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
        parquet_libraries()


def write_shard(
    folder: Path, name: str, shard_format: str, head: CodecInfo, clips: Sequence[CodedClip]
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


# Blocks of 256 clips kept at hand: about 3 MB each, 200 MB in all, of clips of 5 s with 32 layers;
# as many as a training run of ten hours draws from at random.
_BLOCKS_AT_HAND = 64


class CodeShards(Sequence[CodedClip]):
    """The clips of some shards, in the order of the shards' names.

    Reading at random costs a block of clips for each; the last few blocks are kept at hand.

    Args:
        manifests: the manifest of every shard, each with the path of its shard.

    Attributes:
        head: what all clips share.
        manifests: as they are on disk, in order.
    """

    def __init__(self, manifests: Sequence[tuple[Path, dict[str, Any]]]) -> None:
        self.manifests = [manifest for _, manifest in manifests]
        heads = {read_head(manifest["head"], str(path)) for path, manifest in manifests}
        if len(heads) != 1:
            raise CodesFileError(
                f"{manifests[0][0].parent} holds shards of different models or numbers of layers; "
                "keep each in a folder of its own"
            )
        (self.head,) = heads
        self._shards = [_opened(path) for path, _ in manifests]
        self._starts = list(accumulate((item["clips"] for item in self.manifests), initial=0))
        self._blocks: dict[int, list[int]] = {}
        self._at_hand: OrderedDict[tuple[int, int], list[CodedClip | CodesFileError]] = (
            OrderedDict()
        )

    def __len__(self) -> int:
        return self._starts[-1]

    @overload
    def __getitem__(self, index: int) -> CodedClip: ...
    @overload
    def __getitem__(self, index: slice) -> list[CodedClip]: ...
    def __getitem__(self, index: int | slice) -> CodedClip | list[CodedClip]:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        place = index + len(self) if index < 0 else index
        if not 0 <= place < len(self):
            raise IndexError(f"got clip {index}; there are {len(self)}")
        shard = bisect_right(self._starts, place) - 1
        starts = self._block_starts(shard)
        within = place - self._starts[shard]
        block = bisect_right(starts, within) - 1
        return _whole(self._read(shard, block)[within - starts[block]])

    def __iter__(self) -> Iterator[CodedClip]:
        for number, shard in enumerate(self._shards):
            for block in range(len(self._block_starts(number)) - 1):
                yield from map(_whole, shard.read(block))

    def facts(self) -> Iterator[dict[str, Any]]:
        """Everything but the codes of all clips, in order, without reading codes.

        Raises:
            CodesFileError: a shard is damaged.
        """
        for number, shard in enumerate(self._shards):
            facts = shard.facts()
            self._check_count(number, len(facts))
            yield from facts

    def _block_starts(self, shard: int) -> list[int]:
        if shard not in self._blocks:
            starts = list(accumulate(self._shards[shard].blocks(), initial=0))
            self._check_count(shard, starts[-1])
            self._blocks[shard] = starts
        return self._blocks[shard]

    def _check_count(self, shard: int, count: int) -> None:
        """Refuse a shard that lost some: a tar that was cut between two files looks whole."""
        if count != self.manifests[shard]["clips"]:
            raise CodesFileError(
                f"{str(self._shards[shard].path)!r} is cut short: it has {count} of "
                f"{self.manifests[shard]['clips']} clips; get a whole copy, or tokenize it again"
            )

    def _read(self, shard: int, block: int) -> "list[CodedClip | CodesFileError]":
        key = shard, block
        if key not in self._at_hand:
            self._at_hand[key] = list(self._shards[shard].read(block))
            if len(self._at_hand) > _BLOCKS_AT_HAND:
                self._at_hand.popitem(last=False)
        self._at_hand.move_to_end(key)
        return self._at_hand[key]


def _whole(clip: CodedClip | CodesFileError) -> CodedClip:
    if isinstance(clip, CodesFileError):
        raise clip
    return clip


def manifest_path(folder: Path, name: str) -> Path:
    """Where the manifest of a shard lies.

    Readers of folders of Parquet files, such as pandas, pass over names that begin with "_".
    """
    return folder / f"_{name}.json"


def _manifests(folder: Path) -> dict[str, Path]:
    """The manifests of a folder, by the names of their shards, in order."""
    # Earlier versions wrote NAME.json, without the underscore.
    former = {path.stem: path for path in folder.glob("*.json") if path.name[0] != "_"}
    found = former | {path.stem[1:]: path for path in folder.glob("_*.json")}
    return {name: found[name] for name in sorted(found)}


def has_code_shards(path: str | Path) -> bool:
    """Whether a path is a folder in which some shard of codes has its manifest beside it."""
    if not str(path) or not Path(path).is_dir():
        return False
    folder = _place(Path(path))
    return any(
        (folder / f"{name}{shard_format.suffix}").exists()
        for name in _manifests(folder)
        for shard_format in SHARD_FORMATS.values()
    )


def read_shards(
    folder: str | Path, splits: Sequence[str] = (), names: Sequence[str] = ()
) -> CodeShards:
    """The clips of a folder that `moss-audio tokenize` wrote.

    Args:
        folder: it, or the folder ``shards`` in it.
        splits: which to keep; none for all.
        names: of the shards to keep; none for all.

    Raises:
        InputError: there are no shards, or nothing of these splits.
        CodesFileError: a manifest is damaged, or its shard is not there.
    """
    root = Path(folder)
    place = _place(root)
    there = _manifests(place)
    wanted_names = names or tuple(there)
    found = [_manifest(name, there.get(name, manifest_path(place, name))) for name in wanted_names]
    if not found:
        raise InputError(
            f"{root} has no shards of codes; expected a folder that moss-audio tokenize wrote"
        )
    wanted = [item for item in found if not splits or item[1]["split"] in splits]
    kept = [item for item in wanted if item[1]["clips"]] or wanted[:1]
    if not kept:
        has = ", ".join(sorted({item["split"] for _, item in found}))
        raise InputError(f"{root} has nothing of the splits {', '.join(splits)}; it has {has}")
    return CodeShards(kept)


def _place(root: Path) -> Path:
    return root / "shards" if (root / "shards").is_dir() else root


def _manifest(name: str, path: Path) -> tuple[Path, dict[str, Any]]:
    try:
        item = json.loads(path.read_text(encoding="utf-8"))
        shard = path.parent / Path(item["file"]).name
        _check_manifest(item, name)
        is_there = shard.exists()
    except MALFORMED as error:
        raise CodesFileError(
            f"{path} is no manifest of a shard of codes ({error}); get a whole copy of the folder"
        ) from error
    if not is_there:
        raise CodesFileError(f"{shard} is not there, but its manifest is; get a whole copy")
    return shard, item


def _check_manifest(item: dict[str, Any], name: str) -> None:
    """Refuse a manifest whose values cannot be used; its name becomes that of files.

    Raises:
        ValueError: see above.
    """
    item.setdefault("seconds", 0.0)
    if item.setdefault("name", name) != name:
        raise ValueError(f"its shard is {name!r}, and its name {str(item['name'])[:80]!r}")
    counts = (item["clips"], item["seconds"])
    is_number = all(isinstance(n, int | float) and not isinstance(n, bool) for n in counts)
    if not (is_number and isinstance(item["clips"], int) and 0 <= item["clips"] < 1 << 40):
        raise ValueError(f"it has {str(item['clips'])[:80]} clips")
    if not 0 <= item["seconds"] < 1e15 or not isinstance(item["split"], str):
        raise ValueError("its length or split cannot be")
    item["head"]


def _opened(path: Path) -> ParquetShard | PackedShard:
    return ParquetShard(path) if path.suffix == ".parquet" else PackedShard(path)
