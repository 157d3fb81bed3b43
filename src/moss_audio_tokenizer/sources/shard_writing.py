"""Writing WebDataset shards: the same bytes for the same clips, each shard whole or not there.

Owns names, order and headers inside the tars. A clip is ``NNNNNNNN.EXTENSION`` and
``NNNNNNNN.json`` with its manifest's keys; clips are numbered within their split.
"""

import hashlib
import io
import json
import tarfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from ..errors import AudioFileError
from ..files import atomic_path

_BLOCK_BYTES = 1 << 20


class ShardWriter:
    """The shards of one split; a context manager, which drops an unfinished shard on an error.

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
        self.shards.append(
            {
                "name": self._path.name,
                "clips": self._clips,
                "seconds": round(self._seconds, 3),
                "bytes": self._path.stat().st_size,
                "sha256": _sha256(self._path),
            }
        )


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()
