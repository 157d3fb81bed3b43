"""Manifests of training data: JSON lines, one clip each, paths relative to the manifest.

Owns what a line may say; knows nothing of sound. Source: interface.md ("Data manifests").
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import TrainingError


@dataclass(frozen=True)
class ManifestEntry:
    """One line of a manifest; paths are absolute."""

    path: Path
    domain: str = "speech"
    split: str = "train"


def read_manifest(path: str | Path, split: str | None = None) -> list[ManifestEntry]:
    """Read a JSON-lines manifest, keeping one split (default: all).

    Raises:
        TrainingError: the file is missing, empty or not text, a line is not a JSON object with
            a path, or no line is of this split.
    """
    entries = _all_entries(path)
    kept = [entry for entry in entries if split is None or entry.split == split]
    if not kept:
        found = sorted({entry.split for entry in entries})
        raise TrainingError(
            f"{path} has no entries of split {split!r}; its splits are {', '.join(found)}"
        )
    return kept


def has_split(path: str | Path, split: str) -> bool:
    """Whether a manifest has entries of ``split``; raises what `read_manifest` raises."""
    return any(entry.split == split for entry in _all_entries(path))


def _all_entries(path: str | Path) -> list[ManifestEntry]:
    manifest = Path(path)
    if not str(path) or not manifest.is_file():
        raise TrainingError(f"no manifest at {str(path)!r}; set data.manifest=PATH")
    try:
        text = manifest.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise TrainingError(
            f"{manifest} cannot be read as text ({error}); expected JSON lines in UTF-8"
        ) from error
    # Not splitlines(): JSON strings may hold line separators of Unicode.
    lines = enumerate(text.split("\n"), 1)
    entries = [_entry(line, manifest, number) for number, line in lines if line.strip()]
    if not entries:
        raise TrainingError(f"{manifest} is empty; expected one JSON object a line, with a 'path'")
    return entries


def _entry(line: str, manifest: Path, number: int) -> ManifestEntry:
    where = f"{manifest} line {number}"
    try:
        item = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise TrainingError(f"{where} is not JSON ({error}); expected one object a line") from error
    if not isinstance(item, dict):
        raise TrainingError(f"{where} holds {type(item).__name__}; expected an object")
    path = manifest.parent.absolute() / _text(item, "path", where)
    domain, split = _text(item, "domain", where, "speech"), _text(item, "split", where, "train")
    return ManifestEntry(path, domain, split)


def _text(item: dict[str, Any], key: str, where: str, default: str | None = None) -> str:
    value = item.get(key)
    if value is None:
        value = default
    if not isinstance(value, str) or not value:
        raise TrainingError(f"{where} has {key!r} = {value!r}; expected text")
    return value
