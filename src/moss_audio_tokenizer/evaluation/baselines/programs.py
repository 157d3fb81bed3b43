"""Programs of other people: found at run time, run on temporary files, their faults as errors."""

import shutil
import subprocess
from collections.abc import Sequence
from functools import lru_cache

from ...errors import EvaluationError, MissingDependencyError

_SECONDS = 600
_VERSION_SECONDS = 20
_LINES = 2


def find_program(name: str, package: str) -> str:
    """The path of a program.

    Raises:
        MissingDependencyError: it is not installed; the message names its Debian package.
    """
    path = shutil.which(name)
    if path is None:
        raise MissingDependencyError(
            f"the program {name} is not installed (on Debian and Ubuntu: apt install {package})"
        )
    return path


def run_program(arguments: Sequence[str]) -> None:
    """Run a program to its end.

    Raises:
        EvaluationError: it failed, or took longer than ten minutes.
    """
    try:
        # The arguments are this package's own, never a shell's line.
        done = subprocess.run(  # noqa: S603
            arguments, capture_output=True, timeout=_SECONDS, stdin=subprocess.DEVNULL
        )
    except subprocess.TimeoutExpired as error:
        raise EvaluationError(f"{arguments[0]} took over {_SECONDS} s and was stopped") from error
    if done.returncode != 0:
        said = (done.stderr or done.stdout).decode("utf-8", "replace").strip().splitlines()
        reason = "; ".join(said[-_LINES:]) or "no message"
        raise EvaluationError(f"{arguments[0]} ended with status {done.returncode}: {reason}")


@lru_cache(maxsize=16)
def program_version(path: str, option: str) -> str:
    """The first line that a program says about itself; "" where it says nothing.

    Raises:
        MissingDependencyError: it does not end.
    """
    try:
        done = subprocess.run(  # noqa: S603
            [path, option],
            capture_output=True,
            timeout=_VERSION_SECONDS,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired as error:
        raise MissingDependencyError(
            f"{path} {option} took over {_VERSION_SECONDS} s and was stopped; install it anew"
        ) from error
    lines = (done.stdout or done.stderr).decode("utf-8", "replace").strip().splitlines()
    return " ".join(lines[0].split()) if lines else ""
