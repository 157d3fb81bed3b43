"""Output files that are whole or not there at all, and one-line errors for bad input files.

Owns the "write beside, then rename" of every program in the package and the first look at
an input path. It does not know what is inside a file.
"""

import errno
import hashlib
import io
import os
import re
import secrets
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from .errors import MossAudioError

_FAILURES_OF_THE_MACHINE = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EMFILE, errno.EROFS}
# How libraries written in Rust, such as safetensors, name the error of the system in a message.
_ERROR_OF_RUST = re.compile(r"\(os error (\d+)\)")
# What a killed program left beside its target is swept away once it is so old.
_LEFT_BEHIND_SECONDS = 86_400

ErrorType = Callable[[str], Exception]

# What programs use to reach their own standard output: never something to rename over.
_DESCRIPTOR_PREFIXES = ("/dev/fd/", "/dev/stdout", "/dev/stderr", "/proc/")


def require_file(path: str | os.PathLike[str], *, error: ErrorType) -> int:
    """Size in bytes of a regular file that holds something.

    Args:
        path: the file to look at.
        error: makes the exception to raise from a one-line message, such as ``AudioFileError``.

    Raises:
        error: the path is missing, a folder, a pipe or device, unreachable, or empty.
    """
    name = repr(os.fspath(path))
    try:
        status = os.stat(path)  # noqa: PTH116 - Path() would lose the type check of os.stat
    except FileNotFoundError:
        raise error(f"{name}: no such file; check the path") from None
    except (OSError, ValueError) as problem:
        raise error(f"{name}: {_reason(problem)}") from problem
    if stat.S_ISDIR(status.st_mode):
        raise error(f"{name} is a folder; expected a file")
    if not stat.S_ISREG(status.st_mode):
        raise error(f"{name} is a pipe or device; expected a regular file, so save it to one first")
    if status.st_size == 0:
        raise error(f"{name} is empty (0 bytes); it must be written again")
    return status.st_size


class PartOfFile(io.RawIOBase):
    """Some bytes of an open file, as a file with a position and a name of its own.

    Args:
        file: the open file, which can seek.
        first: the first byte of the part.
        size: bytes of the part.
        name: what messages call the part.
    """

    def __init__(self, file: BinaryIO | io.FileIO, first: int, size: int, name: str = "") -> None:
        self._file, self._first, self._size, self.name = file, first, size, name
        self._position = 0

    def readable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """Yes."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to a byte of the part."""
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        self._position = max(0, start + offset)
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Read into a buffer, up to the end of the part."""
        wanted = max(0, min(len(buffer), self._size - self._position))
        self._file.seek(self._first + self._position)
        data = self._file.read(wanted) or b""
        memoryview(buffer)[: len(data)] = data
        self._position += len(data)
        return len(data)


def hash_file(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def printable_path(path: str | os.PathLike[str]) -> str:
    """A path as text that fits into JSON and tables: bytes that are not UTF-8 become escapes."""
    return os.fspath(path).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


@contextmanager
def atomic_path(
    path: str | os.PathLike[str],
    *,
    error: ErrorType | None = None,
    replace_folder: bool = True,
) -> Iterator[Path]:
    """A path to write to, which becomes ``path`` when the block ends without an exception.

    Inside the block, create a file or a folder at the yielded path (nothing is there yet).
    It lies beside the target, so that the final step is one rename: readers see the old
    content or the new one, and an exception or a full disk leaves the target untouched and
    no temporary file behind. An existing file keeps its permissions.

    A symbolic link stays a link; what it points to is replaced. Standard output, pipes and
    devices cannot be renamed over: the result is written somewhere temporary and copied to
    them once it is complete. To replace a folder that is not empty takes two renames, not one:
    for an instant there is neither. Hard links of the target keep the old content.

    Args:
        path: the target; its parent folder must exist.
        error: makes the exception that stands for any ``OSError`` of the block and of the
            rename from a one-line message; None lets the ``OSError`` through.
        replace_folder: False refuses a target that is a folder with something in it, which is
            what to ask for where the user names the folder.

    Raises:
        error: (or OSError) the target cannot be written.
    """
    try:
        with _temporary_for(path, replace_folder) as temporary, _errors_of_the_system():
            yield temporary
    except MossAudioError:  # some of ours are OSErrors too, and say more than we could here
        raise
    except OSError as problem:
        if error is None:
            raise
        raise error(f"cannot write {os.fspath(path)!r}: {_reason(problem)}") from problem


@contextmanager
def _errors_of_the_system() -> Iterator[None]:
    """Raise OSError where safetensors reports a full disk and the like as an error of its own."""
    try:
        yield
    except (MossAudioError, OSError):
        raise
    except Exception as problem:
        found = _ERROR_OF_RUST.search(str(problem))
        if found is None:
            raise
        raise OSError(int(found[1]), os.strerror(int(found[1]))) from problem


def is_machine_failure(error: BaseException) -> bool:
    """Whether an error, or one that it was raised from, is a fault of the machine: a full disk."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno in _FAILURES_OF_THE_MACHINE:
            return True
        cause = cause.__cause__
    return False


def write_file(
    path: str | os.PathLike[str],
    content: str | bytes | memoryview,
    error: ErrorType | None = None,
) -> None:
    """Write a file, whole or not at all; arguments and errors are `atomic_path`'s."""
    with atomic_path(path, error=error) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


def take_lock(path: Path, taken: MossAudioError) -> int:
    """Lock a file, which is made if need be, until the descriptor is closed or the process ends.

    Args:
        path: the file.
        taken: the error where another process has the lock.

    Raises:
        taken: another process has the lock.
        OSError: the file cannot be opened.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise taken from error
    return descriptor


def _temporary_for(
    path: str | os.PathLike[str], replace_folder: bool
) -> AbstractContextManager[Path]:
    if "\0" in os.fspath(path):
        raise OSError(errno.EINVAL, "the path holds a null character")
    if _is_stream(path):
        return _copied_to_stream(Path(path))
    return _renamed(Path(os.path.realpath(path)), replace_folder)


def _is_stream(path: str | os.PathLike[str]) -> bool:
    """Whether bytes must be poured into the target because it cannot be replaced."""
    if os.path.abspath(path).startswith(_DESCRIPTOR_PREFIXES):  # noqa: PTH100 - keeps links
        return True
    try:
        mode = Path(path).stat().st_mode
    except FileNotFoundError:
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


@contextmanager
def _copied_to_stream(target: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="moss-audio-") as folder:
        temporary = Path(folder) / "output"
        yield temporary
        with temporary.open("rb") as source, target.open("wb") as stream:
            shutil.copyfileobj(source, stream)


@contextmanager
def _renamed(target: Path, replace_folder: bool) -> Iterator[Path]:
    if not target.parent.is_dir():
        reason = "its folder does not exist: make that first"
        raise FileNotFoundError(errno.ENOENT, reason, str(target))
    _sweep(target.parent)
    # Not made from the target's name, which may already be as long as names can be.
    temporary = _beside(target)
    try:
        yield temporary
        _flush_to_disk(temporary)
        if temporary.is_dir():
            _move_folder(temporary, target, replace_folder)
        else:
            _move_file(temporary, target)
    finally:
        _remove(temporary)


def _beside(target: Path) -> Path:
    return target.parent / f".moss-{secrets.token_hex(8)}.partial"


def _sweep(folder: Path) -> None:
    """Remove what programs that were killed have left in a folder, a day ago or longer."""
    with suppress(OSError):
        for path in folder.glob(".moss-*.partial"):
            newest = max(item.lstat().st_mtime for item in (path, *path.rglob("*")))
            if time.time() - newest > _LEFT_BEHIND_SECONDS:
                _remove(path)


def _move_file(temporary: Path, target: Path) -> None:
    if target.is_file():
        # A rename needs no right to write the file that it replaces; a user expects one.
        if not os.access(target, os.W_OK):
            raise PermissionError(errno.EACCES, "the existing file is read-only", str(target))
        shutil.copymode(target, temporary)
    temporary.replace(target)


def _move_folder(temporary: Path, target: Path, replace_folder: bool) -> None:
    if not (target.is_dir() and any(target.iterdir())):
        temporary.replace(target)
        return
    if not replace_folder:
        reason = "the folder exists and is not empty: name another one"
        raise FileExistsError(errno.EEXIST, reason, str(target))
    former = _beside(target)
    target.replace(former)
    try:
        temporary.replace(target)
    except BaseException:
        former.replace(target)
        raise
    _remove(former)


def _flush_to_disk(path: Path) -> None:
    """Bring out write errors that the system has put off, while the old target still stands."""
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if file.is_file() and not file.is_symlink():
            with file.open("rb+") as stream:
                os.fsync(stream.fileno())


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


def _reason(problem: Exception) -> str:
    """The cause of an error on one line."""
    text = problem.strerror if isinstance(problem, OSError) else None
    return " ".join((text or str(problem) or type(problem).__name__).split())
