"""What a runtime must do so that sessions can run on it, and the files of their streams."""

import json
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from ..errors import StreamFileError, one_line

# An array of the runtime: a PyTorch tensor or a NumPy array, time along the last axis.
Array = Any


@runtime_checkable
class StepEngine(Protocol):
    """Steps of many streams through an encoder or a decoder.

    Attributes:
        num_slots: streams that fit.
        max_chunk_frames: frames that one step can take.
        samples_per_frame: of one channel.
        identity: differs where the memory of a stream means something else.
    """

    num_slots: int
    max_chunk_frames: int
    samples_per_frame: int
    identity: str

    def check(self, chunk: Array) -> Array:
        """What a caller passed, in the engine's own form; changes nothing.

        Raises:
            InputError: it is not what this engine takes.
        """
        ...

    def step(self, chunks: Mapping[int, Array]) -> dict[int, Array]:
        """Advance some slots by whole frames, 1 to ``max_chunk_frames`` each.

        An error leaves every stream as it was.
        """
        ...

    def reset(self, slots: Sequence[int]) -> None:
        """Start these slots' streams afresh."""
        ...

    def copy_slot(self, source: int, target: int) -> None:
        """Make the stream in slot ``target`` a copy of the one in ``source``."""
        ...

    def num_bytes(self) -> int:
        """Memory that all slots' streams take together; it never grows."""
        ...

    def join_results(self, results: Sequence[Array]) -> Array:
        """Results of steps one after the other; of none, an empty result."""
        ...

    def join_chunks(self, chunks: Sequence[Array]) -> Array:
        """Chunks one after the other, in memory of their own."""
        ...

    def pad(self, chunk: Array, length: int) -> Array:
        """A chunk, zero-padded at its end to ``length``."""
        ...

    def to_arrays(self) -> dict[str, np.ndarray]:
        """The memory of all streams, by name."""
        ...

    def load_arrays(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Take over what `to_arrays` gave.

        Raises:
            InputError: it is of another kind of engine; nothing is changed then.
        """
        ...


def write_stream_file(path: Path, arrays: Mapping[str, Array], notes: Mapping[str, str]) -> None:
    """Write arrays and notes as safetensors, with a checksum over both.

    Raises:
        OSError: the file cannot be written.
    """
    plain = {name: _plain(array) for name, array in arrays.items()}
    try:
        save_file(plain, path, {**notes, "checksum": _checksum(plain, notes)})
    except SafetensorError as problem:  # raised for a full disk, too
        raise OSError(str(problem)) from problem


def _plain(array: Array) -> np.ndarray:
    return np.ascontiguousarray(array.cpu() if hasattr(array, "cpu") else array)


def read_stream_file(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Arrays and notes that `write_stream_file` wrote.

    Raises:
        StreamFileError: the file cannot be read, or was altered.
    """
    try:
        with safe_open(path, "np") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            notes = file.metadata() or {}
    except (SafetensorError, OSError) as problem:
        raise StreamFileError(
            f"{str(path)!r} cannot be read as streams ({one_line(problem)})"
        ) from problem
    if notes.pop("checksum", None) != _checksum(arrays, notes):
        raise StreamFileError(
            f"{str(path)!r} holds no streams, or was altered: its checksum does not match; "
            "save the streams again"
        )
    return arrays, notes


def _checksum(arrays: Mapping[str, np.ndarray], notes: Mapping[str, str]) -> str:
    """CRC-32 of everything that a file of streams holds."""
    digest = zlib.crc32(json.dumps(notes, sort_keys=True).encode())
    for name, array in sorted(arrays.items()):
        digest = zlib.crc32(f"{name} {list(array.shape)} {array.dtype.str}".encode(), digest)
        digest = zlib.crc32(array.tobytes(), digest)
    return f"{digest:08x}"
