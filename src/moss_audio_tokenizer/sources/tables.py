"""Tables: data sets as Hugging Face keeps them, Parquet or Arrow files with a column of sound.

Owns the columns that such data sets have and the way to one row; it opens no sound. pyarrow
(the extra ``bulk``) is imported only when a table is read.
"""

import io
import json
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import Any

from ..codes.shard_formats import parquet_libraries
from ..errors import MALFORMED, AudioFileError, InputError, one_line
from ..manifest import ManifestEntry

TABLE_SUFFIXES = (".parquet", ".arrow")
# What data sets call the same thing; the first that is there counts.
_COLUMNS = {
    "text": ("text", "transcription", "transcript", "sentence", "normalized_text", "caption"),
    "speaker": ("speaker", "speaker_id", "client_id"),
    "language": ("language", "lang", "locale"),
    "domain": ("domain",),
}
# Groups of rows whose sound is kept at hand: neighbours are read together.
_GROUPS_AT_HAND = 8


def find_tables(folder: Path, report: Callable[[str], None] = print) -> list[Path]:
    """The tables of a folder that have a column of sound, by name.

    Args:
        folder: the folder, which is searched with all below it.
        report: called with a line about every table that cannot be read.
    """
    paths = [path for suffix in TABLE_SUFFIXES for path in folder.rglob(f"*{suffix}")]
    return [path for path in sorted(paths) if _has_sound(path, report)]


def _has_sound(path: Path, report: Callable[[str], None]) -> bool:
    try:
        return bool(_sound_column(_opened(path)[1]))
    except InputError as error:
        report(str(error))
        return False


def table_entries(path: Path, folder: Path, domain: str) -> Iterator[ManifestEntry]:
    """The recordings of a table, whose sound is not read.

    Args:
        path: path of the table.
        folder: the folder that names are relative to.
        domain: domain of the rows of a table without such a column.
    """
    _, schema = _opened(path)
    columns = {
        key: next((name for name in names if name in schema.names), "")
        for key, names in _COLUMNS.items()
    }
    split, name = _split_of(path, folder), path.relative_to(folder).as_posix()
    for row, values in enumerate(_rows(path, [name for name in columns.values() if name])):
        said = {key: _text(values.get(column)) for key, column in columns.items()}
        yield ManifestEntry(
            path.absolute(),
            said["domain"] or domain,
            split,
            f"{name}/{row}",
            speaker=said["speaker"],
            text=said["text"],
            task="asr" if said["text"] else "",
            language=said["language"],
            row=row,
        )


def open_row(entry: ManifestEntry) -> io.BytesIO | Path:
    """What to read the sound of a row from: its bytes, or the file that it names.

    Raises:
        AudioFileError: the table cannot be read, or the row has no sound.
    """
    try:
        group, first = _group_of(entry.path, entry.row or 0)
        value = _sounds(entry.path, group)[(entry.row or 0) - first].as_py() or {}
        data, name = value.get("bytes"), value.get("path")
    except (InputError, *MALFORMED) as error:
        raise AudioFileError(
            f"{entry.name!r} cannot be read from its table ({_reason(error)})"
        ) from error
    if data:
        source = io.BytesIO(data)
        source.name = entry.name
        return source
    if name:
        return entry.path.parent / str(name)
    raise AudioFileError(f"{entry.name!r} has no sound in its table; expected bytes or a path")


def row_bytes(path: Path) -> float:
    """Bytes of an average row."""
    file, _ = _opened(path)
    return path.stat().st_size / max(1, _num_rows(file))


def _opened(path: Path) -> tuple[Any, Any]:
    """A table, whose rows are not read yet, and its schema."""
    arrow, parquet = parquet_libraries("reading tables needs", "")
    try:
        if path.suffix == ".parquet":
            file = parquet.ParquetFile(path, memory_map=True)
            return file, file.schema_arrow
        table = arrow.ipc.open_stream(arrow.memory_map(str(path))).read_all()
        table.validate(full=True)  # a wrong offset in it would end the process
    except MALFORMED as error:
        raise InputError(
            f"{path} cannot be read as a table ({_reason(error)}); get a whole copy"
        ) from error
    return table, table.schema


def _num_rows(file: Any) -> int:
    return int(getattr(file, "metadata", file).num_rows)  # of a Parquet file, of an Arrow table


def _sound_column(schema: Any) -> str:
    """The column of sound: structs of bytes and a path, called audio if there are several."""
    names = [
        field.name
        for field in schema
        if hasattr(field.type, "get_field_index") and field.type.get_field_index("bytes") >= 0
    ]
    if "audio" in names:
        return "audio"
    pictures = [name for name, kind in _features(schema).items() if kind == "Image"]
    return next((name for name in names if name not in pictures), "")


def _features(schema: Any) -> dict[str, str]:
    """The kinds that the library `datasets` wrote down."""
    try:
        text = (schema.metadata or {}).get(b"huggingface", b"{}")
        found = json.loads(text).get("info", {}).get("features", {})
        return {name: str(feature.get("_type")) for name, feature in found.items()}
    except MALFORMED:
        return {}


def _split_of(path: Path, folder: Path) -> str:
    """``train`` of ``data/train-00000-of-00004.parquet`` and of ``train/0000.parquet``."""
    stem = path.stem.partition("-")[0]
    if stem.isidentifier() and stem != "data":
        return stem
    parents = path.relative_to(folder).parts[:-1]
    return parents[-1] if parents else "train"


def _rows(path: Path, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    file, _ = _opened(path)
    if not columns:
        yield from ({} for _ in range(_num_rows(file)))
        return
    is_parquet = path.suffix == ".parquet"
    try:
        batches = file.iter_batches(columns=columns) if is_parquet else None
        for batch in batches or file.select(columns).to_batches():
            yield from batch.to_pylist()
    except MALFORMED as error:
        raise InputError(
            f"{path} cannot be read as a table ({_reason(error)}); get a whole copy"
        ) from error


def _text(value: Any) -> str:
    return value if isinstance(value, str) else "" if value is None else str(value)


@lru_cache(maxsize=256)
def _starts(path: Path) -> tuple[int, ...]:
    """The first row of every group of a table, and the number of its rows."""
    file, _ = _opened(path)
    if path.suffix == ".parquet":
        sizes = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
    else:
        sizes = [len(chunk) for chunk in file.column(0).chunks]
    return tuple(accumulate(sizes, initial=0))


def _group_of(path: Path, row: int) -> tuple[int, int]:
    """The group that a row is in, and the group's first row."""
    starts = _starts(path)
    group = bisect_right(starts, row) - 1
    return group, starts[group]


@lru_cache(maxsize=_GROUPS_AT_HAND)
def _sounds(path: Path, group: int) -> Any:
    file, schema = _opened(path)
    name = _sound_column(schema)
    if path.suffix == ".parquet":
        return file.read_row_group(group, columns=[name]).column(name)
    return file.column(name).chunk(group)


def _reason(error: Exception) -> str:
    """What Arrow says, on one line."""
    return one_line(error, 300)
