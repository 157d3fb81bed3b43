"""Files of codes: which format an extension stands for, and errors that name the file.

The bytes belong to moss_format.py and array_formats.py; what makes codes valid, to the container.
"""

from collections.abc import Callable
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import NamedTuple

from ..errors import CodesError, CodesFileError
from ..files import atomic_path, require_file
from .array_formats import load_npz, load_safetensors, save_npz, save_safetensors
from .clip_codes import ClipCodes
from .moss_format import load_moss, save_moss


class _Format(NamedTuple):
    save: Callable[[ClipCodes, Path], None]
    load: Callable[[Path, int], ClipCodes]


FORMATS = {
    ".moss": _Format(save_moss, load_moss),
    ".safetensors": _Format(save_safetensors, load_safetensors),
    ".npz": _Format(save_npz, load_npz),
}


def save_codes(codes: ClipCodes, path: str | PathLike[str]) -> None:
    """See `AudioCodes.save`."""
    write = _format_of(path).save
    valid = replace(codes)  # the array inside can be changed at any time: check it once more
    with atomic_path(path, error=CodesFileError) as temporary:
        write(valid, temporary)


def load_codes(path: str | PathLike[str]) -> ClipCodes:
    """See `AudioCodes.load`."""
    read = _format_of(path).load
    size = require_file(path, error=CodesFileError)
    name = repr(str(path))
    try:
        return read(Path(path), size)
    except CodesFileError:
        raise
    except OSError as problem:
        reason = problem.strerror or problem
        raise CodesFileError(f"cannot read {name}: {reason}") from problem
    except CodesError as problem:
        raise CodesFileError(f"{name} holds no valid codes: {problem}") from problem


def _format_of(path: str | PathLike[str]) -> _Format:
    suffix = Path(path).suffix.lower()
    if suffix not in FORMATS:
        raise CodesFileError(
            f"{str(path)!r} has the unknown extension {suffix!r}; "
            f"expected one of {', '.join(FORMATS)}"
        )
    return FORMATS[suffix]
