"""What a data set consists of: the lines of a manifest, files in a folder, shards, tables.

Owns finding recordings, and opening the bytes of one: a file, a part of an archive, a row of a
table. It decodes none.
"""

import csv
import io
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TextIO

from ..audio import AudioSource
from ..errors import MALFORMED, AudioFileError, InputError
from ..files import PartOfFile, printable_path
from ..manifest import ManifestEntry, make_entry, manifest_lines
from .tables import find_tables, open_row, table_entries
from .tar_shards import AUDIO_SUFFIXES, find_shards, packed_shards, read_shards

# Beside the sound files of a Hugging Face "audiofolder": a line for each, by its file_name.
_FOLDER_LISTS = ("metadata.jsonl", "metadata.csv")
_TEXT_COLUMNS = ("text", "transcription", "transcript", "sentence")
_BUFFER_BYTES = 1 << 16


@dataclass(frozen=True)
class Line:
    """A recording that the source names, and all that is said of it."""

    entry: ManifestEntry
    keys: dict[str, Any]


# A line that is wrong, as a JSON object: path, line, error.
Problem = dict[str, Any]


def find_lines(
    source: Path, splits: Sequence[str], domain: str
) -> tuple[list[Line], list[Problem]]:
    """The recordings of the splits (default: all), and the lines that are wrong, as JSON objects.

    Args:
        source: manifest, or folder of sound files.
        splits: the splits to keep.
        domain: domain of the files of a folder.

    Raises:
        InputError: the source cannot be read, or has nothing of these splits.
    """
    lines, errors = (
        (_sound_files(source, domain), []) if source.is_dir() else _manifest_lines(source)
    )
    return _of_splits(lines, splits, source), errors


def find_recordings(
    source: Path, splits: Sequence[str], domain: str
) -> tuple[list[Line], list[Problem]]:
    """`find_lines` of any source: WebDataset shards and tables of Hugging Face data sets too.

    Args:
        source: manifest; folder of sound files, of tar files, of Parquet or Arrow files.
        splits: the splits to keep; empty for all.
        domain: domain of recordings that do not state one.

    Raises:
        InputError: the source cannot be read, or has nothing of these splits.
        MissingDependencyError: there are tables, but pyarrow is not installed.
    """
    if not source.is_dir():
        return find_lines(source, splits, domain)
    errors: list[Problem] = []
    entries: list[ManifestEntry]
    if _has_tars(source):
        errors += [_problem(f"{path} is compressed; unpack it") for path in packed_shards(source)]
        entries = read_shards(source, None, lambda text: errors.append(_problem(text)))
    elif tables := find_tables(source, lambda text: errors.append(_problem(text))):
        entries = [
            entry for table in tables for entry in _entries_of(table, source, domain, errors)
        ]
    elif packed_shards(source):
        find_shards(source)  # which says what to do with them
        return [], errors
    else:
        if errors and not _sound_paths(source):
            raise InputError(errors[0]["error"])
        return _of_splits(_described_files(source, domain, errors), splits, source), errors
    lines = [Line(entry, {"path": entry.name}) for entry in entries]
    return _of_splits(lines, splits, source), errors


def _entries_of(
    table: Path, folder: Path, domain: str, errors: list[Problem]
) -> list[ManifestEntry]:
    try:
        return list(table_entries(table, folder, domain))
    except InputError as error:
        errors.append(_problem(str(error)))
        return []


def _has_tars(folder: Path) -> bool:
    return any(any(root.glob("*.tar")) for root in (folder, folder / "shards"))


def _problem(text: str, line: int | None = None) -> Problem:
    return {"path": None, "line": line, "error": text}


def _of_splits(lines: list[Line], splits: Sequence[str], source: Path) -> list[Line]:
    kept = [line for line in lines if not splits or line.entry.split in splits]
    if lines and not kept:
        found = ", ".join(sorted({line.entry.split for line in lines}))
        raise InputError(f"{source} has nothing of the splits {', '.join(splits)}; it has {found}")
    return kept


def _sound_files(folder: Path, domain: str) -> list[Line]:
    """All files of a folder that look like sound; what is wrong with one shows when it is read."""
    files = _sound_paths(folder)
    if not files:
        if packed_shards(folder):
            find_shards(folder)  # which says what to do with them
        raise InputError(
            f"{folder} has no sound files ({', '.join(AUDIO_SUFFIXES)}) in it; expected some, or "
            "the path of a manifest"
        )
    names = [printable_path(path.relative_to(folder).as_posix()) for path in files]
    return [
        Line(ManifestEntry(path.absolute(), domain, name=name), {"path": name})
        for path, name in zip(files, names, strict=True)
    ]


def _sound_paths(folder: Path) -> list[Path]:
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower()[1:] in AUDIO_SUFFIXES and not path.is_dir()
    )


def _described_files(folder: Path, domain: str, errors: list[Problem]) -> list[Line]:
    """The sound files of a folder, with what lists of an "audiofolder" beside them say."""
    lines = _sound_files(folder, domain)
    said = {
        (path.parent / str(item["file_name"])).absolute(): item
        for name in _FOLDER_LISTS
        for path in sorted(folder.rglob(name))
        for item in _list_items(path, errors)
    }
    described = [_with_list(line, said.get(line.entry.path), folder, errors) for line in lines]
    return [line for line in described if line is not None]


def _with_list(
    line: Line, item: dict[str, Any] | None, folder: Path, errors: list[Problem]
) -> Line | None:
    """A recording with what its list says of it; None where that cannot be, which is noted."""
    try:
        return line if item is None else _described(line, item, folder)
    except InputError as error:
        errors.append(_problem(str(error)) | {"path": line.entry.name})
        return None


def _list_items(path: Path, errors: list[Problem]) -> list[dict[str, Any]]:
    """What a list says, row by row; rows that cannot be used are noted as errors."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = _table_rows(file) if path.suffix == ".csv" else _json_rows(file)
            found = list(enumerate(rows, 2 if path.suffix == ".csv" else 1))
    except (csv.Error, *MALFORMED) as error:
        errors.append(_problem(f"{path} cannot be read ({error}); its texts are left out"))
        return []
    items = []
    for number, row in found:
        if isinstance(row, dict) and row.get("file_name"):
            items.append(row)
        elif row is not None:
            reason = "expected an object with a file_name" if isinstance(row, dict) else str(row)
            errors.append(
                _problem(f"{path} line {number}: {reason}; its texts are left out", number)
            )
    return items


def _table_rows(file: TextIO) -> Iterator[dict[str, Any]]:
    """The rows of a table whose columns are separated by commas, semicolons or tabs."""
    heading = file.readline()
    file.seek(0)
    separator = max(",;\t", key=heading.count)
    yield from csv.DictReader(file, delimiter=separator)


def _json_rows(file: TextIO) -> Iterator[Any]:
    """The objects of a file of JSON lines; of a line that is none, what it is; None if empty."""
    for line in file:
        try:
            row = json.loads(line) if line.strip() else None
            if not isinstance(row, dict | None):
                row = "expected an object"
        except (ValueError, RecursionError) as error:
            row = f"not JSON ({error})"
        yield row


def _described(line: Line, item: dict[str, Any], folder: Path) -> Line:
    keys = {
        key: str(item[key]) for key in ("speaker", "language", "split", "domain") if item.get(key)
    }
    text = next((str(item[key]) for key in _TEXT_COLUMNS if item.get(key)), "")
    keys = {"domain": line.entry.domain, **keys, "text": text, "path": line.entry.name}
    entry = make_entry(keys, folder.absolute(), printable_path(line.entry.path))
    return Line(replace(entry, path=line.entry.path), keys)


def _manifest_lines(manifest: Path) -> tuple[list[Line], list[Problem]]:
    lines: list[Line] = []
    errors: list[Problem] = []
    for number, found in manifest_lines(manifest):
        if isinstance(found, InputError):
            errors.append(_problem(str(found), number))
        else:
            lines.append(Line(*found))
    return lines, errors


@contextmanager
def open_entry(entry: ManifestEntry) -> Iterator[AudioSource]:
    """What to read an entry's sound from: its path, its part of an archive, its row of a table.

    Raises:
        AudioFileError: the archive or table cannot be read, or ends before the recording does.
    """
    if entry.row is not None:
        yield open_row(entry)
        return
    if entry.member is None:
        yield entry.path
        return
    try:
        archive = entry.path.open("rb", buffering=0)
    except OSError as error:
        raise AudioFileError(f"'{entry.location}' cannot be read ({error})") from error
    first, size = entry.member
    with archive:
        there = archive.seek(0, os.SEEK_END) - first
        if there < size:
            raise AudioFileError(
                f"'{entry.location}' is cut short: {max(0, there)} of its {size} bytes are there; "
                "get a whole copy of the shard"
            )
        part = PartOfFile(archive, first, size, entry.location)
        with io.BufferedReader(part, _BUFFER_BYTES) as file:
            yield file
