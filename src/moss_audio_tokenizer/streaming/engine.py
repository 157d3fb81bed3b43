"""What a runtime must do so that sessions can run on it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

# An array of the runtime: a PyTorch tensor or a NumPy array, time along the last axis.
Array = Any


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

    def to_tensors(self) -> dict[str, Array]:
        """The memory of all streams, by name."""
        ...

    def load_tensors(self, tensors: Mapping[str, Array]) -> None:
        """Take over what `to_tensors` gave.

        Raises:
            InputError: it is of another kind of engine; nothing is changed then.
        """
        ...

    def write_file(self, path: Path, tensors: Mapping[str, Array], notes: dict[str, str]) -> None:
        """Write arrays and notes as safetensors.

        Raises:
            OSError: the file cannot be written.
        """
        ...

    def read_file(self, path: Path) -> tuple[dict[str, Array], dict[str, str]]:
        """What `write_file` wrote.

        Raises:
            StreamFileError: the file cannot be read, or is not as it was written.
        """
        ...
