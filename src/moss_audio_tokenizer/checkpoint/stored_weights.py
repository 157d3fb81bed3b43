"""Checkpoints without PyTorch: where they are, what they describe, and where their tensors lie.

Owns finding a checkpoint, its files and their headers; what is read here is described or pointed
to, not run. `codec_checkpoint.py` loads models.
"""

import json
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..config import CodecConfig, Stage, TransformerStage, codec_config_from_released
from ..errors import CheckpointError, MissingDependencyError
from ..files import require_file
from ..onnx.folder import BUNDLED
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
        released = read_json(folder / CONFIG_NAME)
        self.files = weight_files(folder)
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


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a checkpoint.

    Raises:
        CheckpointError: there are none, or one that the index names is missing.
    """
    index = folder / INDEX_NAME
    if index.exists():
        weight_map = read_json(index).get("weight_map")
        if not isinstance(weight_map, dict) or not weight_map:
            raise CheckpointError(f"{index} has no usable weight_map; copy it again")
        return [_shard(folder, name) for name in sorted(set(map(str, weight_map.values())))]
    if (folder / WEIGHTS_NAME).is_file():
        return [folder / WEIGHTS_NAME]
    pickles = sorted(path.name for path in folder.glob("*.bin")) + sorted(
        path.name for suffix in ("*.pt", "*.pth", "*.ckpt") for path in folder.glob(suffix)
    )
    if pickles:
        raise CheckpointError(
            f"{folder} holds only pickled weights ({', '.join(pickles)}), which can run code "
            "when read and are refused; convert them to safetensors where you trust them"
        )
    raise CheckpointError(f"no {WEIGHTS_NAME} or {INDEX_NAME} in {folder}")


def _shard(folder: Path, name: str) -> Path:
    # A shard stays inside its folder, whatever a downloaded index says.
    if Path(name).name != name:
        raise CheckpointError(f"{folder / INDEX_NAME} names an unusable shard {name!r}")
    if not (folder / name).is_file():
        raise CheckpointError(f"{folder} lacks the shard {name} that its index names")
    return folder / name


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        CheckpointError: it is missing, or holds something else.
    """
    try:
        if path.exists() and not path.is_file():
            raise CheckpointError(f"{path} is not a regular file")
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(
            f"no {path.name} in {path.parent}; expected a model folder with config.json and "
            "safetensors weights, a hub id, or 'bundled'"
        ) from error
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} cannot be read as JSON ({error})") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} holds {type(value).__name__}; expected a JSON object")
    return value


def find_checkpoint(name: str | Path, hub: dict[str, Any]) -> Path:
    """The folder of a checkpoint; asks the hub only for what is not a folder.

    Args:
        name: a folder, a hub id, or "bundled".
        hub: options of the hub, such as revision and cache_dir.

    Raises:
        CheckpointError: it is none of them, or the hub does not have it.
        MissingDependencyError: it would have to come from the hub, whose library is missing.
    """
    if not isinstance(name, str | Path):
        raise CheckpointError(
            f"got {type(name).__name__} for a model; expected a folder, a hub id, or 'bundled'"
        )
    if str(name) == "bundled":
        return BUNDLED
    try:
        if Path(name).is_dir():
            return Path(name)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{str(name)[:80]!r} cannot be used as a path ({error})") from error
    if Path(name).exists() or str(name).startswith((".", "/", "~")):
        raise CheckpointError(
            f"{str(name)!r} is not a folder; expected a model folder, a hub id, or 'bundled'"
        )
    return _from_hub(str(name), hub)


def _from_hub(name: str, hub: dict[str, Any]) -> Path:
    # Here, so that folders can be read where PyTorch's companions are not installed.
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError
    except ImportError as error:
        raise MissingDependencyError(
            f"{name!r} is not a folder; to ask the hub for it needs huggingface_hub: "
            "pip install 'moss-audio-tokenizer[torch]'"
        ) from error
    try:
        return Path(snapshot_download(name, allow_patterns=["*.json", "*.safetensors"], **hub))
    except (OSError, HfHubHTTPError, HFValidationError) as error:
        raise CheckpointError(
            f"{name!r} is neither a folder nor to be had from the hub "
            f"({str(error).splitlines()[0]})"
        ) from error


def describe_model(path: str | Path) -> dict[str, Any]:
    """Sizes, rates, parameters and windows of a model folder, a hub id, or "bundled".

    Raises:
        CheckpointError: there is none, or it cannot be read.
        ConfigError: its configuration is not one of a released kind.
    """
    weights = StoredWeights(find_checkpoint(path, {}))
    config = weights.config
    return {
        "model": str(path),
        "sampling_rate": config.sampling_rate,
        "channels": config.number_channels,
        "frame_rate": config.frame_rate,
        "samples_per_frame": config.downsample_rate,
        "num_quantizers": config.quantizer.num_quantizers,
        "codebook_size": config.quantizer.codebook_size,
        "quantizer_type": config.quantizer.quantizer_type,
        "kbps": _bitrates(config),
        "parameters": _parameters(weights),
        "encoder": _stages(config.encoder, config.encoder_rates),
        "decoder": _stages(config.decoder, config.decoder_rates),
        "layout": weights.layout,
        "files": {file.name: file.stat().st_size for file in weights.files},
    }


def _bitrates(config: CodecConfig) -> dict[str, float]:
    """Bitrates in kbps at 1, 2, 4, ... layers and at all of them."""
    layers, bits = (
        config.quantizer.num_quantizers,
        (config.quantizer.codebook_size - 1).bit_length(),
    )
    counts = {2**power for power in range(layers.bit_length())} | {layers}
    return {str(count): count * bits * config.frame_rate / 1000 for count in sorted(counts)}


def _parameters(weights: StoredWeights) -> dict[str, int]:
    counts = {"encoder": 0, "quantizer": 0, "decoder": 0}
    counted = [item for item in weights.shapes().items() if not item[0].endswith(".scales")]
    extra = [name for name, _ in counted if name.split(".")[0] not in counts]
    if extra:
        raise CheckpointError(
            f"{weights.folder} has extra {len(extra)} tensors ({', '.join(extra[:3])}); "
            "expected those of encoder, quantizer and decoder: get the checkpoint again"
        )
    for name, shape in counted:
        counts[name.split(".")[0]] += math.prod(shape)
    return counts | {"total": sum(counts.values())}


def _stages(stages: tuple[Stage, ...], rates: tuple[float, ...]) -> list[str]:
    return [
        f"{stage.num_layers} layer{'s' if stage.num_layers > 1 else ''} of width {stage.d_model} "
        f"at {rate:g} Hz, "
        f"{stage.num_heads} heads, {stage.context_seconds:g} s of context"
        for stage, rate in zip(stages, rates, strict=True)
        if isinstance(stage, TransformerStage)
    ]
