"""A folder of exported graphs: finding it, its manifest, and whether its files are as exported.

Standard library only. Owns the manifest's keys and the names of the files.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..codes.codec import CodecInfo
from ..config import CodecConfig, codec_config_from_released
from ..errors import CheckpointError
from ..files import require_file

MANIFEST_NAME = "onnx.json"
FORMAT = 1
BUNDLED = Path(__file__).parent.parent / "bundled"
# Larger files are compared by size alone unless asked: hashing gigabytes takes seconds.
_ALWAYS_HASHED = 256 * 1024 * 1024


@dataclass(frozen=True)
class RingShape:
    """Keys and values of one layer, inputs and outputs of a step; see docs/onnx.md.

    Attributes:
        layer: counted through the half.
        stage: rings of one stage have the same number of places.
        num_heads: of attention.
        head_dim: width of a head.
        context_steps: the attention window.
        steps_per_frame: steps that are written for each frame.
    """

    layer: int
    stage: int
    num_heads: int
    head_dim: int
    context_steps: int
    steps_per_frame: int

    def places(self, max_chunk_frames: int) -> int:
        """Places of a ring for steps of so many frames: window, chunk less one, and a spare."""
        return self.context_steps + max_chunk_frames * self.steps_per_frame


class OnnxFolder:
    """What an export left.

    Attributes:
        path: the folder.
        manifest: its parsed onnx.json.
        config: what the codec is built like.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.manifest = _read_manifest(path / MANIFEST_NAME)
        try:
            released = self.manifest["config"]
            self.config: CodecConfig = codec_config_from_released(
                released, always_project=bool(released["always_project"])
            )
            self.identity = str(self.manifest["identity"])
            self.codes_type = str(self.manifest["codes_type"])
        except (KeyError, TypeError) as problem:
            raise CheckpointError(f"{path / MANIFEST_NAME} lacks {problem}; export again") from None

    @property
    def info(self) -> CodecInfo:
        """What the codec is, as far as its codes are concerned."""
        config = self.config
        return CodecInfo(
            identity=self.identity,
            sampling_rate=config.sampling_rate,
            num_channels=config.number_channels,
            downsample_rate=config.downsample_rate,
            num_quantizers=config.quantizer.num_quantizers,
            codebook_size=config.quantizer.codebook_size,
        )

    def graph(self, name: str) -> Path:
        """The file of a graph.

        Raises:
            CheckpointError: it is missing, or not as it was exported.
        """
        entry = self.manifest.get("graphs", {}).get(name)
        if not isinstance(entry, Mapping):
            raise CheckpointError(f"{self.path} has no graph {name!r}; export again")
        return self._checked(str(entry.get("file")), entry, always=True)

    def rings(self, name: str) -> list[RingShape]:
        """State of a step graph."""
        return [RingShape(**ring) for ring in self.manifest["graphs"][name]["rings"]]

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
            CheckpointError: a file is missing or was altered.
        """
        for name, entry in self.manifest.get("weights", {}).items():
            self._checked(name, entry, always=thorough)

    def _checked(self, name: str, entry: Mapping[str, Any], always: bool) -> Path:
        path = self.path / Path(name).name
        size = require_file(path, error=CheckpointError)
        same = size == entry.get("bytes")
        if same and (always or size <= _ALWAYS_HASHED):
            same = hash_file(path) == entry.get("sha256")
        if not same:
            raise CheckpointError(
                f"{path} is not the file that {MANIFEST_NAME} describes; export the model again, "
                "or copy the whole folder again"
            )
        return path


def hash_file(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def is_exported(name: str | Path) -> bool:
    """Whether a folder (or "bundled") holds an export."""
    try:
        return (folder_path(name) / MANIFEST_NAME).is_file()
    except (OSError, TypeError, ValueError):  # no path at all
        return False


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


def _read_manifest(path: Path) -> dict[str, Any]:
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as problem:
        raise CheckpointError(f"{path} cannot be read ({problem}); export again") from problem
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        found = manifest.get("format") if isinstance(manifest, dict) else type(manifest).__name__
        raise CheckpointError(
            f"{path} has format {found!r}; expected {FORMAT}: export again with this version"
        )
    return manifest
