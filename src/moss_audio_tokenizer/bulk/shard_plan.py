"""The plan of a tokenizing run: which clip goes into which shard and batch.

A plan is a pure function of the list of inputs and the settings: it does not depend on workers,
time or chance, and no sound is opened for it. Lengths that are not stated are guessed from the
sizes of files. A plan is kept on disk as a file for each shard, which is all that a worker needs.
"""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ..codes import CodecInfo
from ..codes.shards import SHARD_FORMATS
from ..errors import MALFORMED, BulkError, InputError
from ..files import write_file
from ..manifest import ManifestEntry
from ..sources.recordings import Line
from ..sources.tables import row_bytes

# 16 bits at 16 kHz: a guess, where a manifest states no length.
_GUESSED_BYTES_A_SECOND = 32_000
_LOOKING_THREADS = 16
_KNOWN_KEYS = set("path text task speaker language domain split seconds".split())  # noqa: SIM905
_STORED_KEYS = "name domain split speaker text task language member row".split()  # noqa: SIM905

BATCHINGS = ("exact", "together")
# What is computed together on a CPU should fit its caches, on a GPU fill it; measured.
CPU_BATCH_SECONDS, GPU_BATCH_SECONDS = 16.0, 120.0


@dataclass(frozen=True)
class Tokenizing:
    """What to make of a data set.

    Attributes:
        source: manifest, or folder of sound files, tar files, Parquet or Arrow files.
        splits: which to tokenize; empty for all.
        domain: domain of recordings that do not state one.
        num_quantizers: layers of codes to keep; 0 keeps all.
        shard_format: "parquet", "webdataset" or "moss".
        shard_hours: a shard is full once it has about so many hours.
        shard_clips: the most clips of a shard.
        batch_seconds: seconds of audio that are decoded together, padding included.
        batching: "exact" computes every clip by itself; "together" the clips of a batch at once,
            which is faster, but may round a few codes another way.

    Raises:
        InputError: values that cannot be.
    """

    source: str
    splits: tuple[str, ...] = ()
    domain: str = "speech"
    num_quantizers: int = 0
    shard_format: str = "parquet"
    shard_hours: float = 0.5
    shard_clips: int = 5000
    batch_seconds: float = CPU_BATCH_SECONDS
    batching: str = "exact"

    def __post_init__(self) -> None:
        if self.shard_format not in SHARD_FORMATS:
            raise InputError(
                f"got format {self.shard_format!r}; expected {', '.join(SHARD_FORMATS)}"
            )
        if self.batching not in BATCHINGS:
            raise InputError(f"got batching {self.batching!r}; expected {', '.join(BATCHINGS)}")
        if not (self.shard_hours > 0 and self.batch_seconds > 0 and self.shard_clips > 0):
            raise InputError(
                f"got shards of {self.shard_hours:g} h and {self.shard_clips} clips, and batches "
                f"of {self.batch_seconds:g} s; expected all above 0"
            )

    @property
    def values(self) -> dict[str, Any]:
        """As plain values."""
        return {**asdict(self), "splits": list(self.splits)}

    def head_of(self, info: CodecInfo) -> CodecInfo:
        """What a codec's codes are, of the layers that are kept."""
        return replace(info, num_quantizers=self.num_quantizers or info.num_quantizers)


@dataclass(frozen=True)
class PlannedClip:
    """A clip of a shard.

    Attributes:
        entry: the recording and its facts, without its length.
        seconds: that, stated or guessed.
        extra: other keys of its source, as a JSON object.
    """

    entry: ManifestEntry
    seconds: float
    extra: str = ""


@dataclass(frozen=True)
class PlannedShard:
    """A shard: its clips in order, and the positions of those that are decoded together."""

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
    clips = sorted(_clips(lines), key=_position)
    number = 0
    for split in sorted({clip.entry.split for clip in clips}):
        part = [clip for clip in clips if clip.entry.split == split]
        for group in _groups(part, settings.shard_hours * 3600, settings.shard_clips):
            stem = re.sub(r"[^A-Za-z0-9_]+", "-", split).strip("-_")[:40] or "split"
            name = f"{stem}-{number:06d}"
            batches = cut_batches([clip.seconds for clip in group], settings.batch_seconds)
            yield PlannedShard(name, split, tuple(group), tuple(map(tuple, batches)))
            number += 1


def cut_batches(seconds: Sequence[float], batch_seconds: float) -> list[list[int]]:
    """Places of clips of about one length, which together, padded, are no longer than a batch.

    A clip that is longer than a batch is one by itself.
    """
    batches: list[list[int]] = []
    for position in sorted(range(len(seconds)), key=lambda position: (seconds[position], position)):
        # Sorted: this clip is the longest so far, so all are padded to it.
        if batches and (len(batches[-1]) + 1) * seconds[position] <= batch_seconds:
            batches[-1].append(position)
        else:
            batches.append([position])
    return batches


def _position(clip: PlannedClip) -> tuple[Any, ...]:
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


def write_planned(folder: Path, shard: PlannedShard) -> None:
    """Write a shard's part of the plan."""
    clips = [_as_json(clip) for clip in shard.clips]
    values = {"split": shard.split, "clips": clips, "batches": shard.batches}
    write_file(folder / f"{shard.name}.json", json.dumps(values), BulkError)


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
    except MALFORMED as error:
        raise BulkError(
            f"{path} is not part of a plan ({error}); tokenize into a new folder"
        ) from error


def _as_json(clip: PlannedClip) -> dict[str, Any]:
    said = {key: getattr(clip.entry, key) for key in _STORED_KEYS}
    said |= {"path": str(clip.entry.path), "seconds": clip.seconds, "extra": clip.extra}
    return {key: value for key, value in said.items() if value not in ("", None)}


def _from_json(item: dict[str, Any]) -> PlannedClip:
    seconds, extra = item.pop("seconds"), item.pop("extra", "")
    path, member = Path(item.pop("path")), item.pop("member", None)
    position = (int(member[0]), int(member[1])) if member else None
    return PlannedClip(ManifestEntry(path, member=position, **item), seconds, extra)
