"""Files of streams: arrays and notes as safetensors, with a checksum over both.

Owns the checksum and the errors; how an array becomes bytes is the runtime's.
"""

import json
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from ..errors import StreamFileError

Save = Callable[[dict[str, Any], Path, dict[str, str]], None]
# The name of an array's type, and its bytes.
Content = Callable[[Any], tuple[str, Any]]


def write_stream_file(
    path: Path, arrays: dict[str, Any], notes: dict[str, str], save: Save, content: Content
) -> None:
    """Write contiguous arrays and notes.

    Args:
        path: the file to write.
        arrays: the memory of the streams, by name.
        notes: what else the file says, by name.
        save: ``save_file`` of safetensors for such arrays.
        content: gives the name of an array's type, and its bytes.

    Raises:
        OSError: the file cannot be written.
    """
    try:
        save(arrays, path, notes | {"checksum": _checksum(arrays, notes, content)})
    except SafetensorError as problem:  # raised for a full disk, too
        raise OSError(str(problem)) from problem


def read_stream_file(
    path: Path, framework: str, device: str, content: Content
) -> tuple[dict[str, Any], dict[str, str]]:
    """Arrays and notes that `write_stream_file` wrote.

    Args:
        path: the file to read.
        framework: "pt" or "np", for tensors or NumPy arrays.
        device: where the arrays shall be.
        content: gives the name of an array's type, and its bytes.

    Raises:
        StreamFileError: the file cannot be read, or was altered.
    """
    try:
        with safe_open(path, framework, device=device) as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            notes = file.metadata() or {}
    except (SafetensorError, OSError) as problem:
        reason = " ".join(str(problem).split())
        raise StreamFileError(f"{str(path)!r} cannot be read as streams ({reason})") from problem
    if notes.pop("checksum", None) != _checksum(arrays, notes, content):
        raise StreamFileError(
            f"{str(path)!r} holds no streams, or was altered: its checksum does not match; "
            "save the streams again"
        )
    return arrays, notes


def _checksum(arrays: Mapping[str, Any], notes: Mapping[str, str], content: Content) -> str:
    """CRC-32 of everything that a file of streams holds."""
    digest = zlib.crc32(json.dumps(notes, sort_keys=True).encode())
    for name, array in sorted(arrays.items()):
        kind, data = content(array)
        digest = zlib.crc32(f"{name} {list(array.shape)} {kind}".encode(), digest)
        digest = zlib.crc32(data, digest)
    return f"{digest:08x}"
