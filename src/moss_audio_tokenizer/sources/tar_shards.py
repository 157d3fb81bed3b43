"""WebDataset shards: tar files of recordings, each beside a JSON file with a manifest's keys.

Owns the index that makes a tar readable at random: it is built by going through the tar's headers
once and kept beside it, in ``NAME.tar.index.json``, where the folder can be written. Owns writing
too: the same bytes for the same clips, each shard whole or not there. It opens no sound.
"""

import io
import json
import tarfile
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..audio import SOUND_SUFFIXES
from ..errors import MALFORMED, AudioFileError, InputError
from ..files import atomic_path, hash_file, printable_path, write_file
from ..manifest import ManifestEntry, make_entry

AUDIO_SUFFIXES = SOUND_SUFFIXES
INDEX_SUFFIX = ".index.json"
_FORMAT = 2
_BLOCK_BYTES = 512
# Files beside a sound that say something of it.
_TEXT_SUFFIXES = ("json", "txt")
_MAX_TEXT_BYTES = 16 << 20
_KEPT_KEYS = "path domain split speaker text task language seconds duration".split()  # noqa: SIM905


def has_shards(path: str | Path) -> bool:
    """Whether a path is a folder, which is expected to hold shards, and not a manifest."""
    return bool(str(path)) and Path(path).is_dir()


def find_shards(folder: str | Path) -> list[Path]:
    """The tar files of a folder, or of the folder ``shards`` in it, by name.

    Raises:
        InputError: there are none.
    """
    root = Path(folder)
    for parent in (root, root / "shards"):
        if found := sorted(parent.glob("*.tar")):
            return found
    if packed := packed_shards(root):
        raise InputError(
            f"{packed[0]} is compressed, and cannot be read at random; unpack it first: "
            f"gunzip {packed[0]}"
        )
    raise InputError(
        f"{root} has no shards; expected tar files in it, such as moss-audio data prepare writes, "
        "or the path of a manifest"
    )


def packed_shards(folder: Path) -> list[Path]:
    """Compressed tar files of a folder, by name."""
    endings = (".tar.gz", ".tgz", ".tar.zst", ".tar.bz2", ".tar.xz")
    return sorted(path for path in folder.glob("*") if path.name.lower().endswith(endings))


def read_shards(
    folder: str | Path, split: str | None, report: Callable[[str], None] = print
) -> list[ManifestEntry]:
    """The recordings of a split (None: of all) in the shards of a folder, in their order.

    What cannot be used (the rest of a damaged tar, a wrong JSON file) is skipped and reported.

    Raises:
        InputError: there are no shards, or nothing of the split in them.
    """
    problems: list[str] = []

    def noted(problem: str) -> None:
        problems.append(problem)
        report(problem)

    entries = [entry for path in find_shards(folder) for entry in _entries(path, noted)]
    kept = [entry for entry in entries if split in (None, entry.split)]
    if not kept:
        found = ", ".join(sorted({entry.split for entry in entries}))
        found = found or f"nothing readable; the first problem: {(problems or ['no sound'])[0]}"
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
    with suppress(InputError, *MALFORMED):
        index: dict[str, Any] = json.loads(beside.read_text(encoding="utf-8"))
        if index["identity"] == identity:
            for clip in index["clips"]:  # all of it, or none
                _entry(path, clip)
            return {key: index[key] for key in ("clips", "problems")}
    index = _scan(path, status.st_size)
    text = json.dumps({"identity": identity, **index}, ensure_ascii=False)
    with suppress(OSError):  # read-only folders do without
        write_file(beside, text)
    return index


@dataclass
class _Members:
    """What a tar holds, by what names say.

    Attributes:
        sounds: (name, first byte, bytes) of every sound, in order.
        texts: contents of the JSON and text files, by name without the ending.
    """

    sounds: list[tuple[str, int, int]] = field(default_factory=list)
    texts: dict[str, dict[str, bytes]] = field(
        default_factory=lambda: {suffix: {} for suffix in _TEXT_SUFFIXES}
    )


def _scan(path: Path, size: int) -> dict[str, Any]:
    found = _Members()
    problems: list[str] = []
    try:
        with tarfile.open(path, "r:") as archive:
            for member in archive:
                if member.issparse():
                    problems.append(f"{path}/{printable_path(member.name)} is stored with holes")
                elif member.isfile() and member.offset_data + member.size <= size:
                    _note(archive, member, found)
            end = archive.offset
    # What tarfile makes of damaged headers is of many kinds.
    except (tarfile.TarError, EOFError, *MALFORMED) as error:
        problems.append(_damage(path, len(found.sounds), str(error)))
    else:
        if not _ends_at(path, end):
            problems.append(_damage(path, len(found.sounds), "its end is missing"))
    clips = []
    times = Counter[str]()
    for name, first, count in found.sounds:
        times[name] += 1
        shown = printable_path(name) + (f"#{times[name]}" if times[name] > 1 else "")
        clip = _described(path, name, shown, found)
        if isinstance(clip, str):
            problems.append(clip)
        else:
            clips.append({"name": shown, "offset": first, "bytes": count, "item": clip})
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


def _note(archive: tarfile.TarFile, member: tarfile.TarInfo, found: _Members) -> None:
    """Note a file of the tar that is sound, or says something of one."""
    stem, _, suffix = member.name.rpartition(".")
    if suffix.lower() in AUDIO_SUFFIXES:
        found.sounds.append((member.name, member.offset_data, member.size))
    elif suffix.lower() in _TEXT_SUFFIXES and member.size <= _MAX_TEXT_BYTES:
        opened = archive.extractfile(member)
        found.texts[suffix.lower()][stem] = opened.read() if opened else b""


def _beside(name: str, texts: dict[str, bytes]) -> bytes | None:
    """The text of a sound: of the same name or, as in WebDataset, of that up to the first dot."""
    folder, slash, base = name.rpartition("/")
    sample = folder + slash + base.partition(".")[0]
    return texts.get(name.rpartition(".")[0], texts.get(sample))


def _described(path: Path, name: str, shown: str, found: _Members) -> dict[str, Any] | str:
    """What the files beside a sound say of it, or what is wrong with that."""
    where = f"{path}/{shown.rpartition('.')[0]}.json"
    try:
        item = json.loads(_beside(name, found.texts["json"]) or b"{}")
        if not isinstance(item, dict):
            raise InputError(f"{where} holds {type(item).__name__}; expected an object")
        item = {"path": shown} | item
        text = _beside(name, found.texts["txt"])
        if text is not None and not item.get("text"):
            item["text"] = text.decode("utf-8-sig").strip()
        make_entry(item, path.parent, where)
    except InputError as error:
        return str(error)
    except UnicodeDecodeError as error:
        return f"{path}/{shown}: its text or JSON is not UTF-8 ({error})"
    except (ValueError, RecursionError) as error:
        return f"{where} is not JSON ({error}); expected an object"
    return {name: item[name] for name in _KEPT_KEYS if item.get(name) is not None}


class ShardWriter:
    """Writes the shards of one split; a context manager, which drops an unfinished one on an error.

    A clip is ``NNNNNNNN.EXTENSION`` and ``NNNNNNNN.json``; clips are numbered within their split.

    Args:
        folder: the folder to write to, which must exist.
        split: the split, with which names of shards begin.
        shard_seconds: a shard is full once it has so many seconds.
        shard_bytes: and no larger than this, unless a single clip is.

    Attributes:
        shards: what has been written: name, clips, seconds, bytes and SHA-256 of each.
    """

    def __init__(self, folder: Path, split: str, shard_seconds: float, shard_bytes: int) -> None:
        self._folder, self._split = folder, split
        self._shard_seconds, self._shard_bytes = shard_seconds, shard_bytes
        self.shards: list[dict[str, Any]] = []
        self._number = 0
        self._opened: ExitStack | None = None

    def __enter__(self) -> "ShardWriter":
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if self._opened is not None and kind is not None:
            self._opened.__exit__(kind, error, trace)
            self._opened = None
        self._finish()

    def add(self, extension: str, audio: bytes, seconds: float, keys: dict[str, Any]) -> None:
        """Add a clip: its sound file's bytes, and what its JSON says."""
        size = len(audio)
        if self._opened is not None and self._bytes + size > self._shard_bytes:
            self._finish()
        if self._opened is None:
            self._begin()
        text = json.dumps(keys, ensure_ascii=False, sort_keys=True).encode()
        self._write(f"{self._number:08d}{extension}", audio)
        self._write(f"{self._number:08d}.json", text)
        self._number += 1
        self._clips += 1
        self._seconds += seconds
        self._bytes += size + len(text)
        if self._seconds >= self._shard_seconds:
            self._finish()

    def _begin(self) -> None:
        self._clips, self._seconds, self._bytes = 0, 0.0, 0
        name = f"{self._split}-{len(self.shards):06d}.tar"
        self._path = self._folder / name
        opened = ExitStack()
        temporary = opened.enter_context(atomic_path(self._path, error=AudioFileError))
        self._file = opened.enter_context(temporary.open("wb"))
        tar = tarfile.TarFile(fileobj=self._file, mode="w", format=tarfile.USTAR_FORMAT)
        self._tar = opened.enter_context(tar)
        self._opened = opened

    def _write(self, name: str, data: bytes) -> None:
        header = tarfile.TarInfo(name)  # of no time and no owner
        header.size, header.mode = len(data), 0o644
        self._tar.addfile(header, io.BytesIO(data))

    def _finish(self) -> None:
        if self._opened is None:
            return
        opened, self._opened = self._opened, None
        opened.close()
        facts = {"name": self._path.name, "clips": self._clips, "seconds": round(self._seconds, 3)}
        self.shards.append(
            facts | {"bytes": self._path.stat().st_size, "sha256": hash_file(self._path)}
        )
