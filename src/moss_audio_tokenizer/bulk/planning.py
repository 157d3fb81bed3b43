"""The plan: which clip goes into which shard, and which are decoded together.

A pure function of the list of inputs and the settings: nothing of it depends on workers, time or
chance, and no sound is opened for it. Lengths that nobody states are guessed from sizes of files.
"""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..manifest import ManifestEntry
from ..sources.inputs import Line
from ..sources.tables import row_bytes
from .settings import Tokenizing

# Of 16 bits at 16 kHz: a guess, where a manifest says nothing.
_GUESSED_BYTES_A_SECOND = 32_000
_LOOKING_THREADS = 16
_KNOWN_KEYS = set("path text task speaker language domain split seconds".split())  # noqa: SIM905


@dataclass(frozen=True)
class PlannedClip:
    """A clip of a shard.

    Attributes:
        entry: what its source says of it, but for its length.
        seconds: that, stated or guessed.
        extra: what else its manifest has, as a JSON object.
    """

    entry: ManifestEntry
    seconds: float
    extra: str = ""


@dataclass(frozen=True)
class PlannedShard:
    """A shard: its clips in order, and the places of those that are decoded together."""

    name: str
    split: str
    clips: tuple[PlannedClip, ...]
    batches: tuple[tuple[int, ...], ...]

    @property
    def seconds(self) -> float:
        """Its length, as far as it is known."""
        return sum(clip.seconds for clip in self.clips)


def plan_shards(lines: Sequence[Line], settings: Tokenizing) -> Iterator[PlannedShard]:
    """The shards of a data set, split by split, its clips sorted by where they are."""
    clips = sorted(_clips(lines), key=_place)
    number = 0
    for split in sorted({clip.entry.split for clip in clips}):
        part = [clip for clip in clips if clip.entry.split == split]
        for group in _groups(part, settings.shard_hours * 3600, settings.shard_clips):
            name = f"{_file_name(split)}-{number:06d}"
            batches = cut_batches([clip.seconds for clip in group], settings.batch_seconds)
            yield PlannedShard(name, split, tuple(group), tuple(map(tuple, batches)))
            number += 1


def _file_name(split: str) -> str:
    return re.sub(r"[^A-Za-z0-9_]+", "-", split).strip("-")[:40] or "split"


def cut_batches(seconds: Sequence[float], batch_seconds: float) -> list[list[int]]:
    """Places of clips of about one length, which together, padded, are no longer than a batch.

    A clip that is longer than a batch is one by itself.
    """
    batches: list[list[int]] = []
    for place in sorted(range(len(seconds)), key=lambda place: (seconds[place], place)):
        # Sorted: this clip is the longest so far, so all are padded to it.
        if batches and (len(batches[-1]) + 1) * seconds[place] <= batch_seconds:
            batches[-1].append(place)
        else:
            batches.append([place])
    return batches


def _place(clip: PlannedClip) -> tuple[Any, ...]:
    """What clips are sorted by: neighbours in an archive or table stay neighbours."""
    entry = clip.entry
    return str(entry.path), entry.member or (0, 0), entry.row or 0, entry.name


def _groups(clips: Iterable[PlannedClip], seconds: float, most: int) -> Iterator[list[PlannedClip]]:
    group: list[PlannedClip] = []
    total = 0.0
    for clip in clips:
        group.append(clip)
        total += clip.seconds
        if total >= seconds or len(group) >= most:
            yield group
            group, total = [], 0.0
    if group:
        yield group


def _clips(lines: Sequence[Line]) -> list[PlannedClip]:
    tables = sorted({line.entry.path for line in lines if line.entry.row is not None})
    of_row = {path: row_bytes(path) for path in tables}

    def clip(line: Line) -> PlannedClip:
        seconds = line.entry.seconds or _guess(line.entry, of_row)
        extra = {key: value for key, value in line.keys.items() if key not in _KNOWN_KEYS}
        text = json.dumps(extra, ensure_ascii=False, sort_keys=True) if extra else ""
        return PlannedClip(replace(line.entry, seconds=0.0), round(seconds, 3), text)

    with ThreadPoolExecutor(_LOOKING_THREADS) as pool:
        return list(pool.map(clip, lines))


def _guess(entry: ManifestEntry, of_row: dict[Path, float]) -> float:
    if entry.row is not None:
        return of_row[entry.path] / _GUESSED_BYTES_A_SECOND
    if entry.member is not None:
        return entry.member[1] / _GUESSED_BYTES_A_SECOND
    try:
        return entry.path.stat().st_size / _GUESSED_BYTES_A_SECOND
    except OSError:
        return 0.0  # it is not there: the shard's list of errors will say so
