"""WebDataset shards: tar files of recordings, each beside a JSON file with a manifest's keys.

Owns the index that makes a tar readable at random: it is built by going through the tar's headers
once and kept beside it, in ``NAME.tar.index.json``, where the folder can be written. It opens no
sound.
"""

import json
import tarfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..files import atomic_path
from ..manifest import ManifestEntry, make_entry

AUDIO_SUFFIXES = ("flac", "wav", "ogg", "opus", "mp3")
INDEX_SUFFIX = ".index.json"
_FORMAT = 1
_BLOCK_BYTES = 512
_KEPT_KEYS = ("path", "domain", "split", "speaker", "text", "task", "language", "seconds")


def has_shards(path: str | Path) -> bool:
    """Whether a path is a folder, which is expected to hold shards, and not a manifest."""
    return bool(str(path)) and Path(path).is_dir()


def find_shards(folder: str | Path) -> list[Path]:
    """The tar files of a folder, or of the folder ``shards`` in it, by name.

    Raises:
        InputError: there are none.
    """
    root = Path(folder)
    for place in (root, root / "shards"):
        if found := sorted(place.glob("*.tar")):
            return found
    raise InputError(
        f"{root} has no shards; expected tar files in it, such as moss-audio data prepare writes, "
        "or the path of a manifest"
    )


def read_shards(
    folder: str | Path, split: str | None, report: Callable[[str], None] = print
) -> list[ManifestEntry]:
    """The recordings of a split (None: of all) in the shards of a folder, in their order.

    What cannot be used (the rest of a damaged tar, a wrong JSON file) is skipped and reported.

    Raises:
        InputError: there are no shards, or nothing of the split in them.
    """
    entries = [entry for path in find_shards(folder) for entry in _entries(path, report)]
    kept = [entry for entry in entries if split in (None, entry.split)]
    if not kept:
        found = ", ".join(sorted({entry.split for entry in entries})) or "nothing readable"
        raise InputError(f"the shards in {folder} have no recordings of split {split!r}: {found}")
    return kept


def _entries(path: Path, report: Callable[[str], None]) -> list[ManifestEntry]:
    index = _index(path)
    for problem in index["problems"]:
        report(f"skipped: {problem}")
    return [_entry(path, clip) for clip in index["clips"]]


def _entry(path: Path, clip: dict[str, Any]) -> ManifestEntry:
    entry = make_entry(clip["item"], path.parent, str(path))
    name = f"{path.name}/{clip['name']}"
    return replace(entry, path=path.absolute(), name=name, member=(clip["offset"], clip["bytes"]))


def _index(path: Path) -> dict[str, Any]:
    """The index of a shard: the one beside it if it is that of the tar as it is, or a new one."""
    try:
        status = path.stat()
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror})") from error
    identity = {"format": _FORMAT, "bytes": status.st_size, "modified_ns": status.st_mtime_ns}
    beside = path.with_name(path.name + INDEX_SUFFIX)
    with suppress(OSError, ValueError, KeyError, TypeError, InputError):
        index: dict[str, Any] = json.loads(beside.read_text(encoding="utf-8"))
        if index["identity"] == identity:
            for clip in index["clips"]:  # all of it, or none
                _entry(path, clip)
            return {key: index[key] for key in ("clips", "problems")}
    index = _scan(path, status.st_size)
    text = json.dumps({"identity": identity, **index}, ensure_ascii=False)
    with suppress(OSError), atomic_path(beside) as temporary:  # read-only folders do without
        temporary.write_text(text, encoding="utf-8")
    return index


def _scan(path: Path, size: int) -> dict[str, Any]:
    samples: dict[str, dict[str, Any]] = {}
    problems: list[str] = []
    try:
        with tarfile.open(path, "r:") as archive:
            for member in archive:
                if member.isfile() and member.offset_data + member.size <= size:
                    _note(archive, member, samples)
            end = archive.offset
    except (tarfile.TarError, OSError, EOFError) as error:
        problems.append(_damage(path, len(samples), str(error)))
    else:
        if not _ends_at(path, end):
            problems.append(_damage(path, len(samples), "its end is missing"))
    clips = []
    for key, sample in samples.items():
        if "name" not in sample:
            continue
        if problem := _checked(path, key, sample):
            problems.append(problem)
        else:
            clips.append(sample)
    return {"clips": clips, "problems": problems}


def _damage(path: Path, num_samples: int, reason: str) -> str:
    return (
        f"{path} behind its first {num_samples} recordings: it is damaged or cut short ({reason}); "
        "get a whole copy of the shard"
    )


def _ends_at(path: Path, end: int) -> bool:
    """Whether the block of zeros that ends every tar is there."""
    with path.open("rb") as file:
        file.seek(end)
        return file.read(_BLOCK_BYTES) == bytes(_BLOCK_BYTES)


def _note(
    archive: tarfile.TarFile, member: tarfile.TarInfo, samples: dict[str, dict[str, Any]]
) -> None:
    """Add a file of the tar to the sample that it belongs to: names up to the first dot agree."""
    folder, slash, base = member.name.rpartition("/")
    stem, _, rest = base.partition(".")
    suffix = rest.rpartition(".")[2].lower()
    sample = samples.setdefault(folder + slash + stem, {})
    if suffix in AUDIO_SUFFIXES:
        sample |= {"name": member.name, "offset": member.offset_data, "bytes": member.size}
    elif suffix == "json":
        opened = archive.extractfile(member)
        sample["json"] = opened.read() if opened else b""


def _checked(path: Path, key: str, sample: dict[str, Any]) -> str | None:
    """Put what the sample's JSON says into its place; returns what is wrong with it, if any."""
    where = f"{path}/{key}.json"
    try:
        item = json.loads(sample.pop("json", b"{}"))
        if not isinstance(item, dict):
            raise InputError(f"{where} holds {type(item).__name__}; expected an object")
        item = {"path": sample["name"]} | item
        make_entry(item, path.parent, where)
    except InputError as error:
        return str(error)
    except (ValueError, RecursionError) as error:
        return f"{where} is not JSON ({error}); expected an object"
    sample["item"] = {name: item[name] for name in _KEPT_KEYS if item.get(name) is not None}
    return None
