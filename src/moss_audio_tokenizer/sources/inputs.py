"""What a data set consists of: the lines of a manifest, files in a folder, shards, tables.

Owns finding them; opens no sound.
"""

import csv
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..manifest import ManifestEntry, make_entry, manifest_lines
from .shards import AUDIO_SUFFIXES, find_shards, has_shards, read_shards
from .tables import find_tables, table_entries

# Beside the sound files of a Hugging Face "audiofolder": a line for each, by its file_name.
_FOLDER_LISTS = ("metadata.jsonl", "metadata.csv")
_TEXT_COLUMNS = ("text", "transcription", "transcript", "sentence")


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
    """The recordings of the splits (none: of all), and the lines that are wrong, as JSON objects.

    Args:
        source: manifest, or folder of sound files.
        splits: which to keep.
        domain: of the files of a folder.

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
        splits: which to keep; none for all.
        domain: of what does not say.

    Raises:
        InputError: the source cannot be read, or has nothing of these splits.
        MissingDependencyError: there are tables, but pyarrow is not installed.
    """
    if not source.is_dir():
        return find_lines(source, splits, domain)
    errors: list[Problem] = []
    entries: Iterable[ManifestEntry]
    if _has_tars(source):
        entries = read_shards(source, None, lambda text: errors.append(_problem(text)))
    elif tables := find_tables(source):
        entries = [entry for table in tables for entry in table_entries(table, source, domain)]
    else:
        return _of_splits(_described_files(source, domain, errors), splits, source), errors
    lines = [Line(entry, {"path": entry.name}) for entry in entries]
    return _of_splits(lines, splits, source), errors


def _has_tars(folder: Path) -> bool:
    try:
        return has_shards(folder) and bool(find_shards(folder))
    except InputError:
        return False


def _problem(text: str, line: int | None = None) -> Problem:
    return {"path": None, "line": line, "error": text}


def _of_splits(lines: list[Line], splits: Sequence[str], source: Path) -> list[Line]:
    kept = [line for line in lines if not splits or line.entry.split in splits]
    if lines and not kept:
        found = ", ".join(sorted({line.entry.split for line in lines}))
        raise InputError(f"{source} has nothing of the splits {', '.join(splits)}; it has {found}")
    return kept


def _sound_files(folder: Path, domain: str) -> list[Line]:
    files = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower()[1:] in AUDIO_SUFFIXES and path.is_file()
    )
    if not files:
        raise InputError(
            f"{folder} has no sound files ({', '.join(AUDIO_SUFFIXES)}) in it; expected some, or "
            "the path of a manifest"
        )
    names = [path.relative_to(folder).as_posix() for path in files]
    return [
        Line(ManifestEntry(path.absolute(), domain, name=name), {"path": name})
        for path, name in zip(files, names, strict=True)
    ]


def _described_files(folder: Path, domain: str, errors: list[Problem]) -> list[Line]:
    """The sound files of a folder, with what lists of an "audiofolder" beside them say."""
    lines = _sound_files(folder, domain)
    said = {
        (path.parent / str(item["file_name"])).absolute(): item
        for name in _FOLDER_LISTS
        for path in sorted(folder.rglob(name))
        for item in _list_items(path, errors)
        if item.get("file_name")
    }
    return [
        _described(line, said[line.entry.path], folder) if line.entry.path in said else line
        for line in lines
    ]


def _list_items(path: Path, errors: list[Problem]) -> list[dict[str, Any]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            if path.suffix == ".csv":
                return list(csv.DictReader(file))
            return [json.loads(line) for line in file if line.strip()]
    except (OSError, ValueError) as error:
        errors.append(_problem(f"{path} cannot be read ({error}); its texts are left out"))
        return []


def _described(line: Line, item: dict[str, Any], folder: Path) -> Line:
    keys = {
        key: str(item[key]) for key in ("speaker", "language", "split", "domain") if item.get(key)
    }
    text = next((str(item[key]) for key in _TEXT_COLUMNS if item.get(key)), "")
    keys = {"domain": line.entry.domain, **keys, "text": text, "path": line.entry.name}
    return Line(make_entry(keys, folder.absolute(), str(line.entry.path)), keys)


def _manifest_lines(manifest: Path) -> tuple[list[Line], list[Problem]]:
    lines: list[Line] = []
    errors: list[Problem] = []
    for number, found in manifest_lines(manifest):
        if isinstance(found, InputError):
            errors.append(_problem(str(found), number))
        else:
            lines.append(Line(*found))
    return lines, errors
