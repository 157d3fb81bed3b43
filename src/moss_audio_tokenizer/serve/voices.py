"""The voice cache: codes of reference recordings, found by the hash of what was uploaded.

Owns a folder of .moss files, whole or not there at all, so that what was once confirmed outlives
the server, however it ends; what is said in a recording lies beside its codes. Bounded: the longest
unused go first. Codes of other models lie in folders of their own and are dropped with the rest.
Knows no network.
"""

import hashlib
import os
import re
from contextlib import suppress
from pathlib import Path

from ..codes import AudioCodes
from ..errors import CodesFileError
from ..files import atomic_path

_VOICE = re.compile(r"[0-9a-f]{32}")


def voice_name(recording: bytes, text: str = "") -> str:
    """What a recording's codes are found under: 32 digits of its SHA-256.

    With a text it is another voice: so what lies under a name never changes.
    """
    digest = hashlib.sha256(recording)
    if text:
        digest.update(hashlib.sha256(text.encode()).digest())
    return digest.hexdigest()[:32]


class VoiceCache:
    """Codes by name.

    Args:
        folder: where to keep them; made if it is missing.
        model: identity of the model, which is part of the address.
        max_bytes: of all files together, whatever their model.

    Raises:
        OSError: the folder cannot be made.
    """

    def __init__(self, folder: Path, model: str, max_bytes: int) -> None:
        self._folder = folder
        self._own = folder / model
        self._max_bytes = max_bytes
        self._own.mkdir(parents=True, exist_ok=True)
        self.num_bytes = sum(size for _, size, _ in self._files())

    def find(self, name: str) -> AudioCodes | None:
        """The codes under a name, which counts as a use; None if there are none."""
        if not _VOICE.fullmatch(name):
            return None
        path = self._path(name)
        try:
            codes = AudioCodes.load(path)
            os.utime(path)
        except (CodesFileError, FileNotFoundError):  # missing, evicted just now, or damaged
            return None
        return codes

    def text(self, name: str) -> str:
        """What is said in a voice's recording; empty where nobody said it."""
        if not _VOICE.fullmatch(name):
            return ""
        try:
            return _text_path(self._path(name)).read_text("utf-8")
        except (FileNotFoundError, UnicodeDecodeError):
            return ""

    def keep(self, name: str, codes: AudioCodes, text: str = "") -> None:
        """Keep codes, and drop the longest unused if there are too many.

        Raises:
            CodesFileError: they, or their text, cannot be written.
        """
        if text:  # before the codes, which say that the voice is there
            with atomic_path(_text_path(self._path(name)), error=CodesFileError) as temporary:
                temporary.write_text(text, "utf-8")
        codes.save(self._path(name))
        self._evict(spare=self._path(name))

    def drop(self, name: str) -> bool:
        """Forget a voice; whether it was there."""
        if not _VOICE.fullmatch(name) or not self._path(name).is_file():
            return False
        _remove(self._path(name))
        self.num_bytes = sum(size for _, size, _ in self._files())
        return True

    def _path(self, name: str) -> Path:
        return self._own / f"{name}.moss"

    def _files(self) -> list[tuple[float, int, Path]]:
        """Last use, size and path of every voice of every model, the longest unused first."""
        found = []
        for path in self._folder.glob("*/*.moss"):
            with suppress(OSError):  # gone meanwhile
                status = path.stat()
                size = status.st_size + _size(_text_path(path))
                found.append((status.st_mtime, size, path))
        return sorted(found)

    def _evict(self, spare: Path) -> None:
        files = self._files()
        self.num_bytes = sum(size for _, size, _ in files)
        for _, size, path in files:
            if self.num_bytes <= self._max_bytes:
                return
            if path != spare:
                _remove(path)
                self.num_bytes -= size


def _text_path(path: Path) -> Path:
    return path.with_suffix(".txt")


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)
    _text_path(path).unlink(missing_ok=True)
