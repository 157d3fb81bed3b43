"""Manifests of recordings to measure: JSON lines, paths relative to the manifest."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import InputError


@dataclass(frozen=True)
class ManifestClip:
    """One recording.

    Attributes:
        path: where it is.
        name: the path as the manifest has it, to print.
        domain: "speech", "music", "sound", ...; "" when the manifest does not say.
        split: "train", "valid", ...; "" when the manifest does not say.
    """

    path: Path
    name: str
    domain: str = ""
    split: str = ""


def read_manifest(
    path: str | Path,
    *,
    split: str | None = None,
    domain: str | None = None,
    limit: int | None = None,
) -> list[ManifestClip]:
    """The clips of a manifest, in its order.

    Args:
        path: JSON lines; each needs "path", and may have "domain" and "split".
        split: keep this one (default: all).
        domain: keep this one (default: all).
        limit: keep the first so many that are left (default: all).

    Raises:
        InputError: the manifest cannot be read, a line is not a JSON object with a path, or
            nothing is left.
    """
    manifest = Path(path)
    clips = [
        clip
        for clip in _parse(manifest)
        if split in (None, clip.split) and domain in (None, clip.domain)
    ]
    if not clips:
        raise InputError(f"{manifest} has no clips of split {split!r} and domain {domain!r}")
    return clips[:limit]


def _parse(manifest: Path) -> list[ManifestClip]:
    try:
        lines = manifest.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"manifest {manifest} cannot be read ({error})") from error
    return [_clip(manifest, number, line) for number, line in enumerate(lines, 1) if line.strip()]


def _clip(manifest: Path, number: int, line: str) -> ManifestClip:
    try:
        item: Any = json.loads(line)
        name = item["path"]
        where = manifest.parent / name
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise InputError(
            f'{manifest} line {number} is not a JSON object with a "path" ({error})'
        ) from error
    return ManifestClip(where, name, item.get("domain") or "", item.get("split") or "")
