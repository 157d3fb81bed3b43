"""Commands that work through files: which inputs there are, where outputs go, and the loop.

Owns the rules about names (file, folder or pipe, extensions, collisions, overwriting), which are
checked before any work, and the loop of `encode`, `decode` and `reconstruct`, in which a failure
does not stop the other files; what happens to one file is the command's.
"""

import io
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from ..errors import InputError
from . import display
from .failures import BAD_INPUT, FAILURE, exit_code_of, message_of, print_error, wants_traceback

if TYPE_CHECKING:
    import numpy as np

    from ..codes import CodecInfo

CODES_SUFFIXES = (".moss", ".safetensors", ".npz")
AUDIO_SUFFIXES = (".wav", ".flac")
PIPE = "-"
# What comes through a pipe is kept in memory.
_MAX_PIPED_BYTES = 4 << 30
_SHELL_PIPES = ("/dev/fd/", "/dev/stdin", "/proc/self/fd/")


@dataclass(frozen=True)
class Job:
    """One input and the file that is made from it."""

    source: Path
    output: Path


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

    def job(self, folder: Path, suffix: str) -> Job:
        """The input and its output in a folder."""
        stem = self.name.name if self.keep_ending else self.name.stem
        return Job(self.path, folder / self.name.parent / (stem + suffix))


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
    paths = [found.path for found in inputs]
    endings = [f".{file_format}"] if file_format else suffixes
    if output in (PIPE, "/dev/stdout"):
        if len(inputs) > 1:
            raise InputError(f"-o {output!r} takes one file; {len(inputs)} inputs need a folder")
        return [Job(paths[0], Path(PIPE))]
    if _is_folder(output, len(inputs), suffixes):
        jobs = [found.job(Path(output), endings[0]) for found in inputs]
    else:
        check_suffix(output, endings, or_folder=True)
        jobs = [Job(paths[0], Path(output))]
    _check_collisions(jobs)
    if not is_stem:
        check_outputs([job.output for job in jobs], paths)
    return jobs


def is_pipe(path: Path) -> bool:
    """Whether a path is "-": standard input or output."""
    return str(path) == PIPE


def _is_folder(output: str, num_inputs: int, suffixes: Sequence[str]) -> bool:
    """Whether `-o` names a folder: it exists, ends in a slash, or takes several inputs."""
    path = Path(output)
    if path.is_dir() or output.endswith(("/", os.sep)):
        return True
    if num_inputs > 1 and (path.exists() or path.suffix.lower() in suffixes):
        raise InputError(f"-o {output!r} names a file; {num_inputs} inputs need a folder")
    return num_inputs > 1


def check_suffix(output: str, suffixes: Sequence[str], or_folder: bool = False) -> None:
    """Refuse a file name whose extension says another format, or none.

    Args:
        output: as the user wrote it.
        suffixes: extensions that can be written.
        or_folder: whether a folder would do as well, which the message then says.
    """
    # Not of the path, which forgets the slash at its end.
    if not output.lower().endswith(tuple(suffixes)) or not Path(output).suffix:
        other = ", or in / to name a folder" if or_folder else ""
        raise InputError(f"-o {output!r} should end in {' or '.join(suffixes)}{other}")


def check_outputs(outputs: Iterable[Path], inputs: Iterable[Path]) -> None:
    """Refuse outputs that would overwrite an input, or that cannot be written."""
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
    """
    taken = any(output.iterdir()) if output.is_dir() else output.exists()
    if taken or str(output) == "-":
        raise InputError(f"{option} {str(output)!r} is there already; name a new one")
    if not output.absolute().parent.is_dir():
        got = f"{option} {str(output)!r}"
        raise InputError(f"{got} is in a folder that does not exist; make it first")


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


def find_inputs(inputs: Sequence[Path], suffixes: Sequence[str], what: str) -> list[Found]:
    """The files that the user named: those of folders and of patterns such as ``*.wav`` too.

    A file that is named is used whatever it is called; of a folder, all that have the endings.

    Args:
        inputs: paths, folders, patterns, and "-" for standard input.
        suffixes: endings of the files in a folder that count, without dots.
        what: name of such files, for the message.

    Raises:
        InputError: a folder or pattern has no such files, or standard input is named twice.
    """
    found = [item for path in inputs for item in _of_one(path, suffixes, what)]
    if sum(is_pipe(item.path) for item in found) > 1:
        raise InputError("- is named twice; standard input can be read once")
    return found


def _of_one(path: Path, suffixes: Sequence[str], what: str) -> list[Found]:
    if path.is_dir():
        inside = (file for file in path.rglob("*") if file.suffix[1:].lower() in suffixes)
        files = sorted(file for file in inside if not file.is_dir())
        if not files:
            raise InputError(f"{str(path)!r} is a folder without {what} ({', '.join(suffixes)})")
        return _named(files, path)
    if set(str(path)) & set("*?[") and not os.path.lexists(path):
        import glob

        files = sorted(map(Path, glob.glob(str(path), recursive=True)))  # noqa: PTH207 - whole paths
        if not files:
            raise InputError(f"{str(path)!r} matches no file; check the pattern")
        return [item for file in files for item in _of_one(file, suffixes, what)]
    return [Found(path, Path("stdin" if is_pipe(path) else path.name))]


def _named(files: Sequence[Path], folder: Path) -> list[Found]:
    """Files of a folder; those that differ in their endings alone keep them in their outputs."""
    stems = Counter(file.with_suffix("") for file in files)
    return [
        Found(file, file.relative_to(folder), keep_ending=stems[file.with_suffix("")] > 1)
        for file in files
    ]


def load_sound(path: Path, info: "CodecInfo") -> "tuple[np.ndarray, dict[str, int]]":
    """An input's samples as a codec takes them, and what `notes` needs of channels that were mixed.

    Raises:
        AudioError, AudioFileError, InputError: it holds no sound that can be used.
    """
    from ..audio import load_with_info

    audio, sound = load_with_info(opened(path), info.sampling_rate, info.num_channels)
    is_mixed = 1 == info.num_channels < sound.num_channels
    return audio, {"mixed_channels": sound.num_channels} if is_mixed else {}


def opened(path: Path) -> Path | io.BytesIO:
    """A file to read from: a path, or all that comes through a pipe.

    Raises:
        InputError: more comes than fits into memory, or nothing.
    """
    if is_pipe(path):
        return _piped(sys.stdin.buffer, "standard input")
    # What a shell puts in for <(...). Other pipes are refused by whatever reads the file: one that
    # lies in a folder might never end.
    if str(path).startswith(_SHELL_PIPES) and path.is_fifo():
        with path.open("rb") as pipe:
            return _piped(pipe, str(path))
    return path


def _piped(pipe: Any, name: str) -> io.BytesIO:
    data = pipe.read(_MAX_PIPED_BYTES + 1)
    if not data:
        raise InputError(f"{name} is empty; pipe a file into it")
    if len(data) > _MAX_PIPED_BYTES:
        raise InputError(f"{name} has more than 4 GiB; write it to a file and name that")
    file = io.BytesIO(data)
    file.name = name
    return file


def write_to_pipe(data: bytes) -> None:
    """Write a whole file to standard output."""
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def work_through(
    jobs: Sequence[Job], verb: str, work: Callable[[Job], dict[str, Any]], as_json: bool
) -> None:
    """Do every job, print results, then failures; exits non-zero if there were any.

    Args:
        jobs: the files to work on.
        verb: what the progress bar says, such as "encoding".
        work: does one job and returns its facts.
        as_json: print one JSON document instead of lines for people.
    """
    if as_json and any(is_pipe(job.output) for job in jobs):
        raise InputError("--json and -o - both write to standard output; leave one out")
    results: list[dict[str, Any]] = []
    failures: list[tuple[Path, Exception]] = []
    with display.progress(verb, len(jobs)) as bar:
        for job in jobs:
            with display.one_of(bar, f"{verb} {job.source.name}"):
                results.append(_attempt(job, work, failures))
    _print_results(results, as_json)
    end_with(failures, len(jobs) == 1)


def _attempt(
    job: Job, work: Callable[[Job], dict[str, Any]], failures: list[tuple[Path, Exception]]
) -> dict[str, Any]:
    replaced = {"replaced": True} if job.output.is_file() else {}
    try:
        return {"input": str(job.source), "output": str(job.output), **work(job), **replaced}
    except Exception as error:
        # Of any kind: a file that does not fit into memory must not cost the night's others.
        if wants_traceback():
            raise
        failures.append((job.source, error))
        return {"input": str(job.source), "error": message_of(error)}


def _print_results(results: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        display.print_json({"files": results})
        return
    for result in results:
        if "error" not in result and not is_pipe(Path(result["output"])):
            display.print_line(_line(result))


def _line(result: dict[str, Any]) -> str:
    written = result.get("reconstructions", [result])
    rates, outputs = ([one[key] for one in written] for key in ("kbps", "output"))
    facts = [display.seconds(result["duration_seconds"])]
    facts.append(f"{', '.join(f'{rate:g}' for rate in rates)} kbps")
    if "bytes" in result:
        facts.append(display.file_size(result["bytes"]))
    facts += notes(result)
    return f"{result['input']} -> {', '.join(outputs)}  ({', '.join(facts)})"


def notes(result: dict[str, Any]) -> list[str]:
    """What happened to a file that the user may not expect."""
    facts = []
    if "mixed_channels" in result:
        mixed = result["mixed_channels"]
        facts.append(f"{'stereo' if mixed == 2 else f'{mixed} channels'} mixed to mono")
    return [*facts, "replaced a file"] if result.get("replaced") else facts


def end_with(failures: Sequence[tuple[Path, Exception]], is_one: bool) -> None:
    """Print why files failed, with their names unless there was one file; exit if any did."""
    for path, error in failures:
        message = message_of(error)
        print_error(message if is_one or str(path) in message else f"{path}: {message}")
    if failures:
        codes = {exit_code_of(error) for _, error in failures}
        raise typer.Exit(FAILURE if FAILURE in codes else BAD_INPUT)
