"""Shards as Parquet: a row a clip, codes as lists of lists, the first axis that of the layers.

Owns the columns and the key of the file's metadata. A dictionary of the codebook's rows makes a
code take as many bits as in .moss; pages have checksums. pyarrow (the extra ``bulk``) is imported
when a shard is written or read.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import CodesError, CodesFileError, MissingDependencyError
from .clip import TEXT_KEYS, CodedClip, ShardHead

METADATA_KEY = b"moss_audio_codes"
_FORMAT = 1
_CLIPS_A_GROUP = 256
_SIZES = ("num_samples", "num_frames")


def write_parquet(path: Path, head: ShardHead, clips: Sequence[CodedClip]) -> None:
    """Write a shard; the same bytes for the same clips."""
    arrow, parquet = libraries()
    facts = [clip.facts for clip in clips]
    columns = {key: arrow.array([fact[key] for fact in facts], arrow.string()) for key in TEXT_KEYS}
    columns |= {key: arrow.array([fact[key] for fact in facts], arrow.int64()) for key in _SIZES}
    columns["codes"] = _nested(arrow, [clip.codes.codes for clip in clips], head.num_quantizers)
    described = json.dumps({"format": _FORMAT, **head.values}, sort_keys=True)
    table = arrow.table(columns).replace_schema_metadata({METADATA_KEY: described.encode()})
    parquet.write_table(
        table,
        path,
        row_group_size=_CLIPS_A_GROUP,
        compression="zstd",
        write_page_checksum=True,
    )


def _nested(arrow: Any, codes: Sequence[np.ndarray], num_quantizers: int) -> Any:
    """(num_quantizers, frames) of every clip as one array of lists of lists."""
    frames = np.array([array.shape[1] for array in codes], np.int64)
    values = np.concatenate([array.astype(np.uint16).reshape(-1) for array in codes] or [_none()])
    inner = np.concatenate([[0], np.cumsum(np.repeat(frames, num_quantizers))]).astype(np.int32)
    outer = np.arange(len(codes) + 1, dtype=np.int32) * num_quantizers
    layers = arrow.ListArray.from_arrays(arrow.array(inner), arrow.array(values))
    return arrow.ListArray.from_arrays(arrow.array(outer), layers)


def _none() -> np.ndarray:
    return np.zeros(0, np.uint16)


class ParquetShard:
    """A shard to read from; the file is opened again for every call.

    Args:
        path: of the file.

    Raises:
        CodesFileError: it is damaged, or holds something else.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def facts(self) -> list[dict[str, Any]]:
        """Everything but the codes of all clips; no codes are read."""
        with self._opened() as file:
            rows: list[dict[str, Any]] = file.read(columns=[*TEXT_KEYS, *_SIZES]).to_pylist()
            return rows

    def blocks(self) -> list[int]:
        """The number of clips of every block, the unit that is read at once."""
        with self._opened() as file:
            groups = range(file.num_row_groups)
            return [file.metadata.row_group(group).num_rows for group in groups]

    def read(self, block: int) -> list[CodedClip]:
        """The clips of a block."""
        with self._opened() as file:
            head = ShardHead.from_values(self._description(file), repr(str(self.path)))
            table = file.read_row_group(block, columns=[*TEXT_KEYS, *_SIZES, "codes"])
            texts = table.select([*TEXT_KEYS, "num_samples"]).to_pylist()
            arrays = _arrays(table.column("codes").combine_chunks(), head.num_quantizers)
            clips = []
            for codes, said in zip(arrays, texts, strict=True):
                num_samples = said.pop("num_samples")
                clips.append(CodedClip(head.codes(codes, num_samples), **said))
            return clips

    @contextmanager
    def _opened(self) -> Iterator[Any]:
        _, parquet = libraries()
        try:
            with parquet.ParquetFile(self.path, page_checksum_verification=True) as file:
                yield file
        except (OSError, ValueError, KeyError) as error:
            if isinstance(error, CodesFileError):
                raise
            kind = "holds no valid codes" if isinstance(error, CodesError) else "cannot be read"
            reason = " ".join(str(error).split())
            raise CodesFileError(
                f"{str(self.path)!r} {kind} ({reason}); get a whole copy, or tokenize it again"
            ) from error

    def _description(self, file: Any) -> dict[str, Any]:
        values = json.loads((file.schema_arrow.metadata or {}).get(METADATA_KEY, b"{}"))
        if values.pop("format", None) != _FORMAT:
            raise ValueError(f"it is no shard of codes of format {_FORMAT}")
        return dict(values)


def _arrays(column: Any, num_quantizers: int) -> Iterator[np.ndarray]:
    """The rows of a column of codes; their order and lengths are the container's to check."""
    if hasattr(column, "chunks"):  # combined from nothing
        column = column.chunk(0)
    outer = column.offsets.to_numpy()
    inner, values = column.values.offsets.to_numpy(), column.values.values.to_numpy()
    for first, stop in pairwise(outer):
        lengths = np.diff(inner[first : stop + 1])
        if len(lengths) != num_quantizers or len(set(lengths.tolist())) != 1:
            raise ValueError(f"a clip has layers of {lengths.tolist()} frames")
        yield values[inner[first] : inner[stop]].reshape(num_quantizers, -1)


def libraries() -> tuple[Any, Any]:
    """Pyarrow and pyarrow.parquet.

    Raises:
        MissingDependencyError: they are not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            "shards in Parquet need pyarrow, which is not installed; "
            "pip install 'moss-audio-tokenizer[bulk]', or choose webdataset or moss"
        ) from error
    return pyarrow, pyarrow.parquet
