"""The plan on disk: a file for each shard, which is all that a worker needs to know of it.

Owns these files' contents; the plan itself is planning.py's.
"""

import json
from pathlib import Path
from typing import Any

from ..errors import BulkError
from ..files import atomic_path
from ..manifest import ManifestEntry
from .planning import PlannedClip, PlannedShard

_KEYS = ("path", "name", "domain", "split", "speaker", "text", "task", "language", "member", "row")


def write_planned(folder: Path, shard: PlannedShard) -> None:
    """Write a shard's part of the plan."""
    clips = [_as_json(clip) for clip in shard.clips]
    values = {"split": shard.split, "clips": clips, "batches": shard.batches}
    with atomic_path(folder / f"{shard.name}.json", error=BulkError) as temporary:
        temporary.write_text(json.dumps(values, ensure_ascii=False), encoding="utf-8")


def read_planned(folder: Path, name: str) -> PlannedShard:
    """Read a shard's part of the plan.

    Raises:
        BulkError: it is not there, or damaged.
    """
    path = folder / f"{name}.json"
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        clips = tuple(_from_json(item) for item in values["clips"])
        return PlannedShard(name, values["split"], clips, tuple(map(tuple, values["batches"])))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BulkError(
            f"{path} is no part of a plan ({error}); tokenize into a new folder"
        ) from error


def _as_json(clip: PlannedClip) -> dict[str, Any]:
    said = {key: getattr(clip.entry, key) for key in _KEYS}
    said |= {"path": str(clip.entry.path), "seconds": clip.seconds, "extra": clip.extra}
    return {key: value for key, value in said.items() if value not in ("", None)}


def _from_json(item: dict[str, Any]) -> PlannedClip:
    seconds, extra = item.pop("seconds"), item.pop("extra", "")
    path, member = Path(item.pop("path")), item.pop("member", None)
    place = (int(member[0]), int(member[1])) if member else None
    return PlannedClip(ManifestEntry(path, member=place, **item), seconds, extra)
