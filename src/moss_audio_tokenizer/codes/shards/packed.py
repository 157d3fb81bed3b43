"""Shards of .moss files, each beside a JSON file: in a tar (WebDataset), or in a folder.

Owns names and order inside; the bytes of codes are moss_format.py's.
"""

import io
import json
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ...errors import MALFORMED, CodesError, CodesFileError
from ..container import AudioCodes
from ..moss_format import from_bytes, to_bytes
from .clip import TEXT_KEYS, CodedClip, ShardHead

_CLIPS_A_BLOCK = 256


def write_tar(path: Path, head: ShardHead, clips: Sequence[CodedClip]) -> None:
    """Write a shard as a tar; the same bytes for the same clips."""
    with (
        path.open("wb") as file,
        tarfile.TarFile(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as archive,
    ):
        for name, data in _files(head, clips):
            member = tarfile.TarInfo(name)  # of no time and no owner
            member.size, member.mode = len(data), 0o644
            archive.addfile(member, io.BytesIO(data))


def write_folder(path: Path, head: ShardHead, clips: Sequence[CodedClip]) -> None:
    """Write a shard as a folder, which must not be there yet."""
    path.mkdir()
    for name, data in _files(head, clips):
        (path / name).write_bytes(data)


def _files(head: ShardHead, clips: Sequence[CodedClip]) -> Iterator[tuple[str, bytes]]:
    for number, clip in enumerate(clips):
        said = json.dumps(clip.facts | {"head": head.values}, ensure_ascii=False, sort_keys=True)
        yield f"{number:08d}.json", said.encode()
        yield f"{number:08d}.moss", to_bytes(clip.codes)


class PackedShard:
    """A tar or a folder to read from.

    Args:
        path: of the tar or folder.

    Raises:
        CodesFileError: it is damaged, or holds something else.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._found: dict[str, tuple[int, int]] | None = None

    def facts(self) -> list[dict[str, Any]]:
        """Everything but the codes of all clips; no codes are read."""
        return [self._said(number) for number in range(len(self._places()) // 2)]

    def blocks(self) -> list[int]:
        """The number of clips of every block, the unit that is read at once."""
        count = len(self._places()) // 2
        return [min(_CLIPS_A_BLOCK, count - i) for i in range(0, count, _CLIPS_A_BLOCK)]

    def read(self, block: int) -> list[CodedClip | CodesFileError]:
        """The clips of a block, and of those that are damaged what is wrong with them."""
        first = block * _CLIPS_A_BLOCK
        stop = min(first + _CLIPS_A_BLOCK, len(self._places()) // 2)
        return [self._attempt(number) for number in range(first, stop)]

    def _attempt(self, number: int) -> CodedClip | CodesFileError:
        try:
            return self._clip(number)
        except CodesFileError as error:
            return error

    def _clip(self, number: int) -> CodedClip:
        name = f"{number:08d}.moss"
        codes = from_bytes(self._bytes(name), f"'{self.path}/{name}'")
        said = {key: self._said(number)[key] for key in TEXT_KEYS}
        return CodedClip(AudioCodes(codes.codes, **codes.metadata), **said)

    def _said(self, number: int) -> dict[str, Any]:
        with self._explained():
            said = json.loads(self._bytes(f"{number:08d}.json"))
            ShardHead.from_values(said.pop("head"), f"'{self.path}/{number:08d}.json'")
            return {key: said[key] for key in (*TEXT_KEYS, "num_samples", "num_frames")}

    def _bytes(self, name: str) -> bytes:
        with self._explained():
            if self.path.is_dir():
                return (self.path / name).read_bytes()
            first, size = self._places()[name]
            with self.path.open("rb") as file:
                file.seek(first)
                return file.read(size)

    def _places(self) -> dict[str, tuple[int, int]]:
        """First byte and size of every file of the tar; for a folder, its names."""
        if self._found is None:
            with self._explained():
                if self.path.is_dir():
                    names = (path.name for path in self.path.iterdir())
                    self._found = dict.fromkeys(sorted(names), (0, 0))
                else:
                    with tarfile.open(self.path, "r:") as archive:
                        members = archive.getmembers()
                    self._found = {item.name: (item.offset_data, item.size) for item in members}
        return self._found

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except CodesFileError:
            raise
        except (tarfile.TarError, *MALFORMED) as error:
            kind = "holds no valid codes" if isinstance(error, CodesError) else "cannot be read"
            raise CodesFileError(
                f"{str(self.path)!r} {kind} ({' '.join(str(error).split())}); "
                "get a whole copy, or tokenize it again"
            ) from error
