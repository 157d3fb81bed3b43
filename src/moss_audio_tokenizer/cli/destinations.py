"""Where outputs go: from what stands after `-o` to one path for every input.

Owns the rules about names (file or folder, extensions, collisions, overwriting) and checks them
before any work; knows nothing of what the files hold.
"""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError

CODES_SUFFIXES = (".moss", ".safetensors", ".npz")
AUDIO_SUFFIXES = (".wav", ".flac")


@dataclass(frozen=True)
class Job:
    """One input and the file that is made from it."""

    source: Path
    output: Path


def plan(
    inputs: Sequence[Path], output: str, suffixes: Sequence[str], file_format: str | None = None
) -> list[Job]:
    """The output of every input.

    Args:
        inputs: what to read.
        output: as the user wrote it: a file, or a folder.
        suffixes: extensions that can be written; the first is the default in a folder.
        file_format: the extension asked for, without its dot.

    Raises:
        InputError: names collide, have the wrong extension, or would overwrite an input.
    """
    suffix = f".{file_format}" if file_format else None
    if is_folder(output, inputs, suffixes):
        names = [source.stem + (suffix or suffixes[0]) for source in inputs]
        jobs = [Job(a, Path(output) / name) for a, name in zip(inputs, names, strict=True)]
    else:
        check_suffix(output, [suffix] if suffix else suffixes, or_folder=True)
        jobs = [Job(inputs[0], Path(output))]
    _check_collisions(jobs)
    check_outputs([job.output for job in jobs], inputs)
    return jobs


def is_folder(output: str, inputs: Sequence[Path], suffixes: Sequence[str]) -> bool:
    """Whether `-o` names a folder: it exists, ends in a slash, or takes several inputs.

    Raises:
        InputError: several inputs, but `-o` names a file.
    """
    path = Path(output)
    if path.is_dir() or output.endswith(("/", os.sep)):
        return True
    if len(inputs) > 1 and (path.exists() or path.suffix.lower() in suffixes):
        raise InputError(f"-o {output!r} names a file; {len(inputs)} inputs need a folder")
    return len(inputs) > 1


def check_suffix(output: str, suffixes: Sequence[str], or_folder: bool = False) -> None:
    """Refuse a file name whose extension says another format, or none.

    Args:
        output: as the user wrote it.
        suffixes: extensions that can be written.
        or_folder: whether a folder would do as well, which the message then says.

    Raises:
        InputError: see above.
    """
    # Not of the path, which forgets the slash at its end.
    if not output.lower().endswith(tuple(suffixes)) or not Path(output).suffix:
        other = ", or in / to name a folder" if or_folder else ""
        raise InputError(f"-o {output!r} should end in {' or '.join(suffixes)}{other}")


def check_outputs(outputs: Iterable[Path], inputs: Iterable[Path]) -> None:
    """Refuse outputs that would overwrite an input, or that cannot be written.

    Raises:
        InputError: see above.
    """
    kept = {_identity(path): path for path in inputs}
    for output in outputs:
        if _identity(output) in kept:
            raise InputError(f"{str(output)!r} is an input and would be overwritten; choose a -o")
        if output.is_dir():
            raise InputError(f"{str(output)!r} is a folder; a file would be written there")
        _check_folder(output.parent)


def require_new(output: Path, option: str) -> None:
    """Refuse to write over what is there, and where there is no folder for it, before any work.

    Args:
        output: of a file, or of a folder, which may be there as long as it is empty.
        option: as the user wrote it.

    Raises:
        InputError: see above.
    """
    taken = any(output.iterdir()) if output.is_dir() else output.exists()
    if taken or str(output) == "-":
        raise InputError(f"{option} {str(output)!r} is there already; name a new one")
    if not output.absolute().parent.is_dir():
        raise InputError(f"{option} {str(output)!r} is in no folder that there is; make it first")


def make_folders(outputs: Iterable[Path]) -> None:
    """Make the folders that outputs lie in."""
    for folder in {output.parent for output in outputs}:
        folder.mkdir(parents=True, exist_ok=True)


def _identity(path: Path) -> object:
    """Equal for two names of one file, hard links included."""
    try:
        status = path.stat()
    except OSError:
        return path.resolve()
    return status.st_dev, status.st_ino


def _check_folder(folder: Path) -> None:
    """Find out before hours of work that a folder can neither be written nor made."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    if not folder.is_dir():
        raise InputError(f"{str(folder)!r} is no folder; nothing can be written there")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise InputError(f"no permission to write in {str(folder)!r}; choose another -o")


def _check_collisions(jobs: Sequence[Job]) -> None:
    first: dict[Path, Path] = {}
    for job in jobs:
        other = first.setdefault(job.output, job.source)
        if other is not job.source:
            raise InputError(
                f"{str(other)!r} and {str(job.source)!r} would both become "
                f"{str(job.output)!r}; rename one, or use two folders"
            )
