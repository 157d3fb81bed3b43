"""A folder of exported graphs: finding it, and whether its files are as exported.

Standard library only. What its manifest may say is `manifest.py`'s.
"""

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..codes.codec import CodecInfo
from ..errors import CheckpointError
from ..files import hash_file, require_file
from .manifest import MANIFEST_NAME, facts_of, read_manifest

BUNDLED = Path(__file__).parent.parent / "bundled"
# Larger files are compared by size alone unless asked: hashing gigabytes takes seconds.
_ALWAYS_HASHED = 256 * 1024 * 1024


class OnnxFolder:
    """A folder of exported graphs, opened.

    Attributes:
        path: the folder.
        manifest: its parsed onnx.json.
        config: what the codec is built like.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.manifest, self.config = read_manifest(path / MANIFEST_NAME)
        self.identity: str = self.manifest["identity"]
        self.codes_type: str = self.manifest["codes_type"]

    @property
    def info(self) -> CodecInfo:
        """What the codec is, as far as its codes are concerned."""
        return CodecInfo.of(self.identity, self.config)

    def graph(self, name: str) -> Path:
        """The file of a graph.

        Raises:
            CheckpointError: it is missing, or not as it was exported.
        """
        entry = self.manifest["graphs"].get(name)
        if entry is None:
            raise CheckpointError(f"{self.path} has no graph {name!r}; export again")
        path = self._checked(entry["file"], entry, always=True)
        self._check_pointers(path)
        return path

    def check_session(self, name: str, facts: Mapping[str, Any]) -> None:
        """Make sure that a graph is the one that the manifest describes.

        Args:
            name: of the graph.
            facts: what `runtime.session_facts` found in it.

        Raises:
            CheckpointError: it takes or gives something else.
        """
        for key, expected in facts_of(self.config, name, self.codes_type).items():
            if facts.get(key) != expected:
                raise CheckpointError(
                    f"{self.path / self.manifest['graphs'][name]['file']} has other {key} than "
                    f"{MANIFEST_NAME} says of {name!r}; export again"
                )

    def stream_identity(self, name: str) -> str:
        """Differs where the state of a step graph means something else."""
        facts = [self.manifest["graphs"][name]["sha256"]]
        facts += [entry["sha256"] for _, entry in sorted(self.manifest["weights"].items())]
        return hashlib.sha256(" ".join(facts).encode()).hexdigest()[:16]

    def check_weights(self, thorough: bool = False) -> None:
        """Make sure that the weights are those that the graphs point into.

        Args:
            thorough: hash files of any size.

        Raises:
            CheckpointError: a file is missing, was altered, or is not listed.
        """
        for name, entry in self.manifest["weights"].items():
            self._checked(name, entry, always=thorough)
        for entry in self.manifest["graphs"].values():
            path = self.path / Path(entry["file"]).name
            if path.is_file():  # one that is missing matters to who needs it
                self._check_pointers(path)

    def _check_pointers(self, graph: Path) -> None:
        """Weights that are not listed would be used unchecked."""
        unlisted = sorted(weights_files(graph.read_bytes()) - set(self.manifest["weights"]))
        if unlisted:
            raise CheckpointError(
                f"{self.path / MANIFEST_NAME} lists no weights {unlisted[0]!r}, which {graph.name} "
                "points into; export again"
            )

    def _checked(self, name: str, entry: Mapping[str, Any], always: bool) -> Path:
        path = self.path / Path(name).name
        size = require_file(path, error=CheckpointError)
        same = size == entry["bytes"]
        if same and (always or size <= _ALWAYS_HASHED):
            same = hash_file(path) == entry["sha256"]
        if not same:
            raise CheckpointError(
                f"{path} is not the file that {MANIFEST_NAME} describes; export the model again, "
                "or copy the whole folder again"
            )
        return path


def is_exported(name: str | Path) -> bool:
    """Whether a folder (or "bundled") holds an export."""
    try:
        return (folder_path(name) / MANIFEST_NAME).is_file()
    except (OSError, TypeError, ValueError):  # no path at all
        return False


def choose_backend(model: str, device: str, dtype: str = "fp32") -> str:
    """The default backend of a model: "onnx" where it was exported, else "torch".

    On a GPU it is "torch" too, for onnxruntime as it is installed here knows only the CPU;
    "tensorrt" is onnxruntime's. Graphs compute in what they were exported in:
    another ``dtype`` than "fp32" needs PyTorch.
    """
    if device.startswith("tensorrt"):
        return "onnx"
    return "onnx" if (device, dtype) == ("cpu", "fp32") and is_exported(model) else "torch"


def folder_path(name: str | Path) -> Path:
    """The path of a folder, or that of the model inside the package for "bundled"."""
    return BUNDLED if str(name) == "bundled" else Path(name)


def find_folder(name: str | Path) -> OnnxFolder:
    """The exported model called ``name``: a folder, or "bundled".

    Raises:
        CheckpointError: it holds no export.
    """
    if not is_exported(name):
        raise CheckpointError(
            f"{str(name)!r} holds no ONNX graphs ({MANIFEST_NAME}); expected an exported folder or "
            "'bundled': run moss-audio export onnx on a model first"
        )
    return OnnxFolder(folder_path(name))


# Fields on the way: ModelProto.graph, GraphProto.initializer, TensorProto.external_data.
_PATH = (7, 5, 13)
_KEY, _VALUE = 1, 2
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def weights_files(graph: bytes) -> set[str]:
    """Names of the files that initializers of a graph lie in."""
    try:
        return {_location(entry) for entry in _entries(memoryview(graph), _PATH)} - {""}
    except (IndexError, UnicodeDecodeError):
        return set()


def _entries(message: memoryview, path: tuple[int, ...]) -> Iterator[memoryview]:
    """Messages that lie at the end of a path of fields."""
    if not path:
        yield message
        return
    for number, content in _fields(message):
        if number == path[0]:
            yield from _entries(content, path[1:])


def _location(entry: memoryview) -> str:
    """The value of a StringStringEntryProto whose key is "location"; else nothing."""
    pair = {number: bytes(content) for number, content in _fields(entry)}
    return pair.get(_VALUE, b"").decode() if pair.get(_KEY) == b"location" else ""


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Number and content of every field that has a length; the others are passed over.

    Raises:
        IndexError: the message breaks off, or is none.
    """
    place = 0
    while place < len(message):
        tag, place = _varint(message, place)
        kind = tag & 7
        if kind == _VARINT:
            _, place = _varint(message, place)
        elif kind == _BYTES:
            length, place = _varint(message, place)
            if place + length > len(message):
                raise IndexError("a field is longer than its message")
            yield tag >> 3, message[place : place + length]
            place += length
        elif kind in (_FIXED32, _FIXED64):
            place += 4 if kind == _FIXED32 else 8
        else:
            raise IndexError(f"no wire type {kind}")


def _varint(message: memoryview, place: int) -> tuple[int, int]:
    """A number and the place after it."""
    value = shift = 0
    while True:
        byte = message[place]
        value |= (byte & 127) << shift
        place, shift = place + 1, shift + 7
        if byte < 128:
            return value, place
