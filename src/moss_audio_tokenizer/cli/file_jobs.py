"""Commands that work through files: which inputs there are, pipes, progress, failures, results.

Owns the loop of `encode`, `decode` and `reconstruct`, in which a failure does not stop the other
files; what happens to one file is the command's.
"""

import io
import os
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import typer

from ..errors import InputError
from . import display
from .destinations import Found, Job, is_pipe
from .failures import BAD_INPUT, FAILURE, exit_code_of, message_of, print_error, wants_traceback

# What comes through a pipe is kept in memory.
_MAX_PIPED_BYTES = 4 << 30
_SHELL_PIPES = ("/dev/fd/", "/dev/stdin", "/proc/self/fd/")


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
        files = sorted(
            file
            for file in path.rglob("*")
            if file.suffix[1:].lower() in suffixes and not file.is_dir()
        )
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
    failures: list[tuple[Job, Exception]] = []
    with display.progress(verb, len(jobs)) as bar:
        for job in jobs:
            with display.one_of(bar, f"{verb} {job.source.name}"):
                results.append(_attempt(job, work, failures))
    _print_results(results, as_json)
    _report(failures, len(jobs))


def _attempt(
    job: Job, work: Callable[[Job], dict[str, Any]], failures: list[tuple[Job, Exception]]
) -> dict[str, Any]:
    replaced = {"replaced": True} if job.output.is_file() else {}
    try:
        return {"input": str(job.source), "output": str(job.output), **work(job), **replaced}
    except Exception as error:
        # Of any kind: a file that does not fit into memory must not cost the night's others.
        if wants_traceback():
            raise
        failures.append((job, error))
        return {"input": str(job.source), "error": message_of(error)}


def _print_results(results: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        display.print_json({"files": results})
        return
    for result in results:
        if "error" not in result and not is_pipe(Path(result["output"])):
            display.print_line(_line(result))


def _line(result: dict[str, Any]) -> str:
    facts = [display.seconds(result["duration_seconds"]), f"{result['kbps']:g} kbps"]
    if "bytes" in result:
        facts.append(display.file_size(result["bytes"]))
    facts += notes(result)
    return f"{result['input']} -> {result['output']}  ({', '.join(facts)})"


def notes(result: dict[str, Any]) -> list[str]:
    """What happened to a file that the user may not expect."""
    facts = []
    if "mixed_channels" in result:
        mixed = result["mixed_channels"]
        facts.append(f"{'stereo' if mixed == 2 else f'{mixed} channels'} mixed to mono")
    return [*facts, "replaced a file"] if result.get("replaced") else facts


def _report(failures: Sequence[tuple[Job, Exception]], num_jobs: int) -> None:
    for job, error in failures:
        message, name = message_of(error), str(job.source)
        print_error(f"{name}: {message}" if num_jobs > 1 and name not in message else message)
    if failures:
        codes = {exit_code_of(error) for _, error in failures}
        raise typer.Exit(FAILURE if FAILURE in codes else BAD_INPUT)
