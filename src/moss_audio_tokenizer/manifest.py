"""Manifests of recordings: JSON lines, one clip each, paths relative to the manifest.

Owns what a line may say; knows nothing of sound. Source: interface.md ("Data manifests").
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import InputError


@dataclass(frozen=True)
class ManifestEntry:
    """One line of a manifest.

    Attributes:
        path: where the recording is, absolute.
        domain: "speech", "sound", "music", ...
        split: "train", "valid", ...
        name: the path as the manifest has it, to print.
        speaker: whose voice it is; empty where that is not known.
    """

    path: Path
    domain: str = "speech"
    split: str = "train"
    name: str = ""
    speaker: str = ""


def read_manifest(
    path: str | Path, split: str | None = None, domain: str | None = None
) -> list[ManifestEntry]:
    """Read a JSON-lines manifest, keeping one split and one domain (default: all).

    Raises:
        InputError: the file is missing, empty or not text, a line is not a JSON object with a
            path, or nothing is left.
    """
    entries = _all_entries(path)
    kept = [
        entry
        for entry in entries
        if split in (None, entry.split) and domain in (None, entry.domain)
    ]
    if not kept:
        found = sorted({f"{entry.split}/{entry.domain}" for entry in entries})
        raise InputError(
            f"{path} has no entries of split {split!r} and domain {domain!r}; "
            f"it has {', '.join(found)}"
        )
    return kept


def has_split(path: str | Path, split: str) -> bool:
    """Whether a manifest has entries of ``split``; raises what `read_manifest` raises."""
    return any(entry.split == split for entry in _all_entries(path))


def _all_entries(path: str | Path) -> list[ManifestEntry]:
    manifest = Path(path)
    if not str(path) or not manifest.is_file():
        raise InputError(
            f"no manifest at {str(path)!r}; expected JSON lines (a recipe: set data.manifest=PATH)"
        )
    try:
        text = manifest.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"{manifest} cannot be read as text ({error}); expected JSON lines in UTF-8"
        ) from error
    # Not splitlines(): JSON strings may hold line separators of Unicode.
    lines = enumerate(text.split("\n"), 1)
    entries = [_entry(line, manifest, number) for number, line in lines if line.strip()]
    if not entries:
        raise InputError(f"{manifest} is empty; expected one JSON object a line, with a 'path'")
    return entries


def _entry(line: str, manifest: Path, number: int) -> ManifestEntry:
    where = f"{manifest} line {number}"
    try:
        item = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where} is not JSON ({error}); expected one object a line") from error
    if not isinstance(item, dict):
        raise InputError(f"{where} holds {type(item).__name__}; expected an object")
    name = _text(item, "path", where)
    domain, split = _text(item, "domain", where, "speech"), _text(item, "split", where, "train")
    speaker = _text(item, "speaker", where) if item.get("speaker") else ""
    return ManifestEntry(manifest.parent.absolute() / name, domain, split, name, speaker)


def _text(item: dict[str, Any], key: str, where: str, default: str | None = None) -> str:
    value = item.get(key)
    if value is None:
        value = default
    if not isinstance(value, str) or not value:
        raise InputError(f"{where} has {key!r} = {value!r}; expected text")
    return value
