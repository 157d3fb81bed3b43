"""Opening the codec that a worker works with, and what to call its exact version."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from ..codes import Codec
from ..errors import ConfigError
from ..files import hash_file
from ..onnx.folder import choose_backend, folder_path

_HASHED_SUFFIXES = (".json", ".onnx", ".safetensors")
_BACKENDS = ("onnx", "torch")


@dataclass(frozen=True)
class CodecChoice:
    """A model folder, a hub id, or "bundled", and how to run it.

    It travels to processes and machines, which open the codec.

    Attributes:
        model: which.
        device: "cpu", "cuda", ...
        dtype: "fp32", "bf16" or "fp16"; graphs of ONNX compute in what they were exported in.
        backend: "onnx" or "torch"; None chooses, see `onnx.folder.choose_backend`.
        attention: implementation of attention in PyTorch; None for what config.json says.

    Raises:
        ConfigError: no such backend, or it has no such dtype or attention.
    """

    model: str = "bundled"
    device: str = "cpu"
    dtype: str = "fp32"
    backend: str | None = None
    attention: str | None = None

    def __post_init__(self) -> None:
        if self.backend not in (None, *_BACKENDS):
            raise ConfigError(f"got backend {self.backend!r}; expected {' or '.join(_BACKENDS)}")
        if self.runs_on == "onnx" and self.attention:
            raise ConfigError(
                f"got attention {self.attention!r} for ONNX, whose graphs hold their own; leave it "
                "out, or take backend torch"
            )
        if self.runs_on == "onnx" and self.dtype != "fp32":
            raise ConfigError(
                f"got dtype {self.dtype!r} for ONNX, whose graphs compute in what they were "
                "exported in; leave it out, or take backend torch"
            )

    @property
    def runs_on(self) -> str:
        """The runtime: "onnx" or "torch"."""
        if self.backend is None and self.attention:
            return "torch"
        return self.backend or choose_backend(self.model, self.device, self.dtype)

    def open(self, parts: str) -> Codec:
        """Load it.

        Raises:
            CheckpointError: nothing usable is there.
            ConfigError: no such device or dtype.
            MissingDependencyError: what runs it is not installed.
        """
        from ..opening import load_codec

        return load_codec(
            self.model,
            self.device,
            self.backend,
            parts=parts,
            # PyTorch's threads are those of `use_one_thread`.
            num_threads=1 if self.runs_on == "onnx" else None,
            compute_dtype=self.dtype,
            attention=self.attention,
        )

    def revision(self) -> str:
        """Hash of the names and contents of the files of the model.

        Raises:
            CheckpointError: nothing usable is there.
        """
        folder = self._folder()
        digest = hashlib.sha256()
        for path in sorted(folder.iterdir()):
            if path.suffix in _HASHED_SUFFIXES:
                digest.update(path.name.encode())
                digest.update(file_digest(path).encode())
        return digest.hexdigest()[:16]

    def _folder(self) -> Path:
        if self.runs_on == "onnx":
            return folder_path(self.model)
        from ..checkpoint.stored_weights import find_checkpoint

        return find_checkpoint(self.model, {})


def file_digest(path: Path) -> str:
    """SHA-256 of a file; of a folder, that of the names and digests in it."""
    if not path.is_dir():
        return hash_file(path)
    lines = [f"{item.name} {file_digest(item)}\n" for item in sorted(path.iterdir())]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def use_one_thread() -> None:
    """Compute on one thread in this process: workers share the cores, and codes their rounding.

    Only what is loaded afterwards obeys, so this comes before the codec.
    """
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = "1"
