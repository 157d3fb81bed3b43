"""The tensors of a checkpoint without PyTorch: names, shapes, and where their bytes lie.

Owns reading headers and single values; what is read here is described or pointed to, not run.
`checkpoint.py` loads models.
"""

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..config import CodecConfig, codec_config_from_released
from ..errors import CheckpointError
from ..files import require_file
from .key_names import SCALES_SUFFIX, canonical_name, equal_projections, layout_of

WEIGHTS_NAME = "model.safetensors"
INDEX_NAME = "model.safetensors.index.json"
CONFIG_NAME = "config.json"
_ITEM_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I8": 1, "U8": 1}
_LONGEST_HEADER = 100_000_000


@dataclass(frozen=True)
class StoredTensor:
    """Where a tensor lies.

    Attributes:
        file: the safetensors file.
        dtype: safetensors' name of the type, such as "F16".
        shape: its axes.
        offset: of its first byte, from the start of the file.
        scales: a factor for each row (last axis) of values in 8 bits ("I8"); None for other types.
    """

    file: Path
    dtype: str
    shape: tuple[int, ...]
    offset: int
    scales: "StoredTensor | None" = None

    @property
    def num_bytes(self) -> int:
        """Bytes that it takes."""
        return math.prod(self.shape) * _ITEM_BYTES[self.dtype]

    def read(self) -> np.ndarray:
        """The values; bfloat16 and 8 bits with scales come as float32."""
        kind = {"F": "f", "I": "i", "U": "u", "B": "u"}[self.dtype[0]]
        stored = np.dtype(f"<{kind}{_ITEM_BYTES[self.dtype]}")
        values = np.fromfile(self.file, stored, math.prod(self.shape), offset=self.offset)
        values = values.reshape(self.shape)
        if self.dtype == "BF16":
            return (values.astype(np.uint32) << 16).view(np.float32)
        return values if self.scales is None else values * self.scales.read()[..., None]


class StoredWeights:
    """A folder with config.json and safetensors, whatever the layout of its names.

    Attributes:
        folder: where it is.
        files: its safetensors files.
        layout: "v1" or "v2", by the names.
        config: what the codec is built like; read from config.json unless given.
    """

    def __init__(self, folder: Path, config: CodecConfig | None = None) -> None:
        self.folder = folder
        released = _read_json(folder / CONFIG_NAME)
        self.files = _weight_files(folder)
        self._tensors: dict[str, StoredTensor] = {}
        headers = [read_header(file) for file in self.files]
        self.layout = layout_of(name for header in headers for name in header)
        for header in headers:
            self._tensors |= {canonical_name(name): tensor for name, tensor in header.items()}
        self._tensors = with_scales(self._tensors)
        self._idle: set[str] = set()
        self.config = config or self._read_config(released)

    def _read_config(self, released: dict[str, Any]) -> CodecConfig:
        """The configuration, with what only the weights tell: whether equal sizes project."""
        equal = equal_projections(codec_config_from_released(released, always_project=False))
        # Identities between equal widths say nothing: a v1 model written with v2's names.
        here = [name for name in equal if name in self]
        self._idle = {name for name in here if _is_identity(self._tensors[name].read())}
        projects = any(name in self for name in equal)
        return codec_config_from_released(released, always_project=projects)

    def __contains__(self, name: str) -> bool:
        return name in self._tensors and name not in self._idle

    @property
    def in_8_bits(self) -> bool:
        """Whether some matrices are in 8 bits, with a scale for each row."""
        return any(tensor.scales is not None for tensor in self._tensors.values())

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of every tensor in the files, by its v1 name."""
        return {name: tensor.shape for name, tensor in self._tensors.items()}

    def names_in(self, file: Path) -> list[str]:
        """The v1 names of the tensors of one file, those that count."""
        return [name for name, item in self._tensors.items() if item.file == file and name in self]

    def tensor(self, name: str) -> StoredTensor:
        """A tensor by its v1 name.

        Raises:
            CheckpointError: there is none, or it is of a type that weights do not have.
        """
        if name not in self:
            raise CheckpointError(f"{self.folder} does not fit its config.json: it has no {name}")
        tensor = self._tensors[name]
        scaled = tensor.scales is not None or name.endswith(".int8")
        if tensor.dtype not in ("F32", "F16", "BF16") and not scaled:
            raise CheckpointError(
                f"{self.folder}: {name} is {tensor.dtype}; expected F32, F16 or BF16"
            )
        return tensor


def with_scales(tensors: dict[str, StoredTensor]) -> dict[str, StoredTensor]:
    """The tensors by name; the scales of values in 8 bits become a part of these.

    Raises:
        CheckpointError: there are more or fewer scales than rows.
    """
    merged = {}
    for name, tensor in tensors.items():
        scales = tensors.get(name + SCALES_SUFFIX)
        if tensor.dtype == "I8" and scales is not None:
            if len(tensor.shape) < 2 or scales.shape != tensor.shape[:-1]:
                raise CheckpointError(
                    f"{tensor.file}: the scales of {name} are {list(scales.shape)}; expected a "
                    "factor for each row of a matrix"
                )
            merged[name] = replace(tensor, scales=scales)
        elif tensors.get(name.removesuffix(SCALES_SUFFIX), tensor).dtype != "I8":
            merged[name] = tensor
    return merged


def _is_identity(values: np.ndarray) -> bool:
    return values.ndim == 2 and np.array_equal(values, np.eye(*values.shape))


def read_header(file: Path) -> dict[str, StoredTensor]:
    """The tensors of a safetensors file.

    Raises:
        CheckpointError: it is none, or is cut off.
    """
    size = require_file(file, error=CheckpointError)
    try:
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            header = json.loads(stream.read(min(length, _LONGEST_HEADER)))
        entries = {name: entry for name, entry in header.items() if name != "__metadata__"}
        tensors = {name: _stored(file, entry, 8 + length) for name, entry in entries.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as problem:
        raise CheckpointError(f"{file} cannot be read as safetensors; copy it again") from problem
    if any(tensor.offset + tensor.num_bytes > size for tensor in tensors.values()):
        raise CheckpointError(f"{file} is cut off; copy it again")
    return tensors


def _stored(file: Path, entry: dict[str, Any], start: int) -> StoredTensor:
    begin, end = entry["data_offsets"]
    tensor = StoredTensor(file, entry["dtype"], tuple(entry["shape"]), start + begin)
    if tensor.num_bytes != end - begin:
        raise ValueError("a tensor's bytes are not those of its shape")
    return tensor


def _weight_files(folder: Path) -> list[Path]:
    index = folder / INDEX_NAME
    names: Iterable[str] = [WEIGHTS_NAME]
    if index.is_file():
        names = sorted(set(map(str, _read_json(index).get("weight_map", {}).values())))
    files = [folder / name for name in names if Path(name).name == name]
    if not files or not all(file.is_file() for file in files):
        raise CheckpointError(f"{folder} has no {WEIGHTS_NAME}, or lacks a shard of its index")
    return files


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as problem:
        raise CheckpointError(
            f"{path} cannot be read as JSON ({problem}); expected a model folder"
        ) from problem
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} holds {type(value).__name__}; expected a JSON object")
    return value
