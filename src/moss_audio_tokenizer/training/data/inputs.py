"""What a data set consists of before it is prepared: the lines of a manifest, or files in a folder.

Owns finding them; opens no sound.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import InputError
from ...manifest import ManifestEntry, manifest_lines
from .shards import AUDIO_SUFFIXES


@dataclass(frozen=True)
class Line:
    """A recording that the source names, and all that is said of it."""

    entry: ManifestEntry
    keys: dict[str, Any]


def find_lines(
    source: Path, splits: Sequence[str], domain: str
) -> tuple[list[Line], list[dict[str, Any]]]:
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
    kept = [line for line in lines if not splits or line.entry.split in splits]
    if lines and not kept:
        found = ", ".join(sorted({line.entry.split for line in lines}))
        raise InputError(f"{source} has nothing of the splits {', '.join(splits)}; it has {found}")
    return kept, errors


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


def _manifest_lines(manifest: Path) -> tuple[list[Line], list[dict[str, Any]]]:
    lines: list[Line] = []
    errors: list[dict[str, Any]] = []
    for number, found in manifest_lines(manifest):
        if isinstance(found, InputError):
            errors.append({"path": None, "line": number, "error": str(found)})
        else:
            lines.append(Line(*found))
    return lines, errors
