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


PIPE = "-"


@dataclass(frozen=True)
class Found:
    """An input, and what its output is called.

    Attributes:
        path: path of the input.
        name: below the output folder, with the input's ending.
        keep_ending: whether the output's name keeps it, because another input differs in it alone.
    """

    path: Path
    name: Path
    keep_ending: bool = False

    @property
    def stem(self) -> str:
        """Name of the output, without its own ending."""
        return self.name.name if self.keep_ending else self.name.stem


@dataclass(frozen=True)
class Job:
    """One input and the file that is made from it."""

    source: Path
    output: Path


def plan(
    inputs: Sequence[Found],
    output: str,
    suffixes: Sequence[str],
    file_format: str | None = None,
    is_stem: bool = False,
) -> list[Job]:
    """The output of every input.

    Args:
        inputs: the files to read.
        output: as the user wrote it: a file, a folder, or "-" for standard output.
        suffixes: extensions that can be written; the first is the default in a folder.
        file_format: the extension asked for, without its dot.
        is_stem: whether the outputs will get longer names, which the caller checks.

    Raises:
        InputError: names collide, have the wrong extension, or would overwrite an input.
    """
    suffix = f".{file_format}" if file_format else None
    if is_stream(output):
        if len(inputs) > 1:
            raise InputError(f"-o {output!r} takes one file; {len(inputs)} inputs need a folder")
        return [Job(inputs[0].path, Path(PIPE))]
    if is_folder(output, [found.path for found in inputs], suffixes):
        jobs = [_in_folder(found, Path(output), suffix or suffixes[0]) for found in inputs]
    else:
        check_suffix(output, [suffix] if suffix else suffixes, or_folder=True)
        jobs = [Job(inputs[0].path, Path(output))]
    _check_collisions(jobs)
    if not is_stem:
        check_outputs([job.output for job in jobs], [found.path for found in inputs])
    return jobs


def _in_folder(found: Found, folder: Path, suffix: str) -> Job:
    return Job(found.path, folder / found.name.parent / (found.stem + suffix))


def is_pipe(path: Path) -> bool:
    """Whether a path is "-": standard input or output."""
    return str(path) == PIPE


def is_stream(output: str) -> bool:
    """Whether what stands after ``-o`` is standard output."""
    return output in (PIPE, "/dev/stdout")


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
    kept = {_identity(path): path for path in inputs if not is_pipe(path)}
    for output in outputs:
        if is_pipe(output):
            continue
        if _identity(output) in kept:
            raise InputError(f"{str(output)!r} is an input and would be overwritten; choose a -o")
        if output.is_dir():
            raise InputError(f"{str(output)!r} is a folder; a file would be written there")
        _check_folder(output.parent)


def require_new(output: Path, option: str) -> None:
    """Refuse to write over what is there, and where there is no folder for it, before any work.

    Args:
        output: path of a file or folder; a folder may exist as long as it is empty.
        option: as the user wrote it.

    Raises:
        InputError: see above.
    """
    taken = any(output.iterdir()) if output.is_dir() else output.exists()
    if taken or str(output) == "-":
        raise InputError(f"{option} {str(output)!r} is there already; name a new one")
    if not output.absolute().parent.is_dir():
        raise InputError(
            f"{option} {str(output)!r} is in a folder that does not exist; make it first"
        )


def make_folders(outputs: Iterable[Path]) -> None:
    """Make the folders that outputs lie in."""
    for folder in {output.parent for output in outputs if not is_pipe(output)}:
        folder.mkdir(parents=True, exist_ok=True)


def _identity(path: Path) -> object:
    """Equal for two names of one file, hard links included."""
    try:
        status = path.stat()
    except OSError:
        return os.path.realpath(path)  # which bears with loops of links
    return status.st_dev, status.st_ino


def _check_folder(folder: Path) -> None:
    """Find out before hours of work that a folder can neither be written nor made."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    if not folder.is_dir():
        raise InputError(f"{str(folder)!r} is not a folder; nothing can be written there")
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
