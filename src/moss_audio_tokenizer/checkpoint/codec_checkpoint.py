"""Checkpoints on disk: released layouts in, either layout out; safetensors only.

Owns finding, reading, checking and writing weights and config.json; the names are
`key_names.py`'s. Never unpickles anything.
"""

import json
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import split_torch_state_dict_into_shards
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..config import (
    CodecConfig,
    TransformerStage,
    codec_config_from_released,
    released_from_codec_config,
)
from ..config.released import LAYOUTS, default_layout
from ..errors import CheckpointError, ConfigError, one_line
from ..files import atomic_path, write_file
from ..model.codec import Codec
from .key_names import (
    SCALES_SUFFIX,
    canonical_name,
    equal_projections,
    layout_of,
    released_slots,
    to_released_shape,
)
from .port_layout import (
    PortTensors,
    feature_extractor_config,
    is_port,
    port_config,
    port_tensors,
    released_from_port,
)
from .stored_weights import CONFIG_NAME, INDEX_NAME, read_json, weight_files

FEATURE_EXTRACTOR_NAME = "preprocessor_config.json"
# The layout of the class inside transformers, besides the released ones.
PORT_LAYOUT = "hf"
_CONFIG_HEADER = {
    "model_type": "moss-audio-tokenizer",
    "architectures": ["MossAudioTokenizerModel"],
}


class _StoredTensors:
    """Tensors of open safetensors files, by the names in the files."""

    def __init__(self, files: dict[str, Any], folder: Path) -> None:
        self._files = files
        self._folder = folder

    @property
    def names(self) -> list[str]:
        """Names of all tensors; the scales of a matrix in 8 bits belong to it."""
        return [name for name in self._files if not self._scales_another(name)]

    def _scales_another(self, name: str) -> bool:
        """Whether this tensor is the scales of a matrix in 8 bits."""
        matrix = name.removesuffix(SCALES_SUFFIX)
        there = matrix != name and matrix in self._files
        return there and self._files[matrix].get_slice(matrix).get_dtype() == "I8"

    def _file(self, name: str) -> Any:
        if name not in self._files:
            raise CheckpointError(f"{self._folder} does not fit its config.json: it has no {name}")
        return self._files[name]

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor, without reading it."""
        return tuple(self._file(name).get_slice(name).get_shape())

    def tensor(self, name: str) -> Tensor:
        """Read a tensor; see `Checkpoint.tensor`."""
        tensor: Tensor = self._file(name).get_tensor(name)
        scales_name = name + SCALES_SUFFIX
        if tensor.dtype == torch.int8 and scales_name in self._files:
            scales = self.tensor(scales_name)
            if tensor.ndim != 2 or scales.shape != tensor.shape[:1]:
                raise CheckpointError(
                    f"{self._folder}: {scales_name} is {list(scales.shape)}, which does not fit "
                    f"{name} of {list(tensor.shape)}; expected a factor for each row of a matrix"
                )
            return tensor * scales[:, None]
        if not tensor.is_floating_point() or not tensor.isfinite().all():
            raise CheckpointError(
                f"{self._folder}: {name} holds {tensor.dtype} values that are no finite weights; "
                "copy the checkpoint again, or go back to one before training diverged"
            )
        return tensor


class Checkpoint:
    """A folder with config.json and safetensors weights, open for reading.

    Use as a context manager. Tensors are read one by one, so that loading the encoder alone
    reads no decoder.

    Attributes:
        folder: where it is.
        released: the parsed config.json, with the keys of a released one.
        files: the weight files.
        layout: "v1" or "v2", by the names, or "hf", by config.json.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.released = read_json(folder / CONFIG_NAME)
        self._stack = ExitStack()
        self._open: dict[str, Any] = {}
        self.files = weight_files(folder)
        for path in self.files:
            self._open_file(path)
        self.layout = layout_of(self._open)
        self._tensors: _StoredTensors | PortTensors = _StoredTensors(self._open, folder)
        if is_port(self.released):
            self.layout = PORT_LAYOUT
            self.released = released_from_port(self.released)
            config = codec_config_from_released(self.released, always_project=False)
            self._check_depths(config)
            self._tensors = PortTensors(self._tensors, list(self._open), config)

    def _open_file(self, path: Path) -> None:
        try:
            file = self._stack.enter_context(safe_open(path, framework="pt"))
        except (SafetensorError, OSError) as error:
            raise CheckpointError(
                f"{path} cannot be read as safetensors ({one_line(error)}); copy it again from its "
                "source"
            ) from error
        twice = sorted(set(self._open).intersection(file.keys()))
        if twice:
            raise CheckpointError(f"{path} repeats {twice[0]}, which an earlier shard has too")
        self._open.update(dict.fromkeys(file.keys(), file))

    def __enter__(self) -> "Checkpoint":
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def names(self) -> list[str]:
        """Released tensor names, as written; v1 names of a checkpoint in layout hf."""
        return self._tensors.names

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor, without reading it."""
        return self._tensors.shape(name)

    def tensor(self, name: str) -> Tensor:
        """Read a tensor.

        Raises:
            CheckpointError: it holds no numbers that weights can have.
        """
        return self._tensors.tensor(name)

    def codec_config(self) -> CodecConfig:
        """The configuration, with what only the weights tell: whether equal sizes project."""
        config = codec_config_from_released(self.released, always_project=False)
        self._check_depths(config)
        equal = equal_projections(config)
        present = {name: canonical_name(name) for name in self.names}
        if any(
            equal.get(canonical) and not _is_identity(self.tensor(name))
            for name, canonical in present.items()
        ):
            return codec_config_from_released(self.released, always_project=True)
        return config

    def _check_depths(self, config: CodecConfig) -> None:
        """Refuse absurd numbers of layers before they are built: every layer has tensors."""
        stages = [*config.encoder, *config.decoder]
        depths = [stage.num_layers for stage in stages if isinstance(stage, TransformerStage)]
        layers = sum(depths) + config.quantizer.num_quantizers
        if layers > len(self._open):
            raise CheckpointError(
                f"{self.folder} does not fit its config.json: that has {layers} layers, but there "
                f"are only {len(self._open)} tensors; copy both again from one source"
            )


def _is_identity(tensor: Tensor) -> bool:
    return tensor.ndim == 2 and torch.equal(tensor, torch.eye(*tensor.shape, dtype=tensor.dtype))


def load_codec(checkpoint: Checkpoint, parts: str = "all") -> Codec:
    """Build the codec of an open checkpoint and fill it, in float32 on the CPU.

    Raises:
        CheckpointError: tensors are missing, extra or of the wrong shape; all are listed.
    """
    config = checkpoint.codec_config()
    with torch.device("meta"):
        codec = Codec(config, parts)
    expected = codec.state_dict()
    slots = dict(released_slots(expected, codec.config.quantizer.num_quantizers, "v1"))
    sources = _match(checkpoint, codec, set(slots))
    _check_shapes(checkpoint, sources, slots, expected)
    pieces: dict[str, list[Tensor]] = {}
    for name, slot in slots.items():
        # A copy: memory mapped from the file may be aligned, and so round, differently.
        tensor = checkpoint.tensor(sources[name]).to(torch.float32, copy=True)
        shape = expected[slot.parameter].shape[0 if slot.layer is None else 1 :]
        pieces.setdefault(slot.parameter, []).append(tensor.reshape(shape))
    state = {
        key: torch.stack(items) if slots_are_layers else items[0]
        for key, items in pieces.items()
        for slots_are_layers in (items[0].ndim < expected[key].ndim,)
    }
    codec.load_state_dict(state, assign=True)
    return codec.requires_grad_(requires_grad=True)


def _match(checkpoint: Checkpoint, codec: Codec, wanted: set[str]) -> dict[str, str]:
    """The checkpoint's own name of every wanted tensor; extra and missing ones are an error."""
    absent = tuple(f"{side}." for side in ("encoder", "decoder") if getattr(codec, side) is None)
    sources: dict[str, str] = {}
    extra = []
    identities = equal_projections(codec.config)
    for name in checkpoint.names:
        canonical = canonical_name(name)
        if canonical in sources:
            raise CheckpointError(f"{name} and {sources[canonical]} name the same tensor")
        if canonical in wanted:
            sources[canonical] = name
        elif not canonical.startswith(absent or ("\0",)) and canonical not in identities:
            extra.append(name)
    missing = sorted(wanted - set(sources))
    if any(name.endswith(".int8") for name in extra):
        raise CheckpointError(
            f"{checkpoint.folder} holds weights in 8 bits, which run in ONNX alone; take the model "
            "that it was exported from"
        )
    if missing or extra:
        raise CheckpointError(
            f"{checkpoint.folder} does not fit its config.json:"
            f"{_listing(' missing', missing)}{_listing(' extra', extra)}"
        )
    return sources


def _listing(title: str, names: list[str], limit: int = 5) -> str:
    if not names:
        return ""
    shown = ", ".join(names[:limit]) + (", ..." if len(names) > limit else "")
    return f"{title} {len(names)} tensors ({shown})"


def _check_shapes(
    checkpoint: Checkpoint, sources: dict[str, str], slots: dict[str, Any], expected: dict[str, Any]
) -> None:
    wrong = []
    for name, slot in slots.items():
        shape = tuple(expected[slot.parameter].shape[0 if slot.layer is None else 1 :])
        wanted = tuple(to_released_shape(name, torch.empty(shape, device="meta")).shape)
        got = checkpoint.shape(sources[name])
        if got != wanted and got != shape:
            wrong.append(f"{sources[name]} is {list(got)}, expected {list(wanted)}")
    if wrong:
        raise CheckpointError(
            f"{checkpoint.folder} does not fit its config.json:{_listing(' misshapen', wrong)}"
        )


def live_tensors(codec: Codec, layout: str, prefixes: tuple[str, ...] = ("",)) -> dict[str, Tensor]:
    """The codec's own tensors under released names, not copied; those that begin so."""
    state = {name: value for name, value in codec.state_dict().items() if name.startswith(prefixes)}
    tensors = {}
    for name, slot in released_slots(state, codec.config.quantizer.num_quantizers, layout):
        tensor = state[slot.parameter] if slot.layer is None else state[slot.parameter][slot.layer]
        tensors[name] = to_released_shape(name, tensor.detach())
    return tensors


def released_tensors(
    codec: Codec, layout: str, dtype: torch.dtype = torch.float32
) -> dict[str, Tensor]:
    """The codec's tensors under released names; v2 gets identity projections where v1 has none.

    ``dtype`` is that of encoder and decoder; the quantizer stays in float32. With torch.int8 their
    matrices are stored in 8 bits with a scale for each row, everything else in float32.
    """
    live = live_tensors(codec, layout)
    tensors = {name: tensor.contiguous().clone() for name, tensor in live.items()}
    if layout == "v2":
        for name, width in equal_projections(codec.config).items():
            if getattr(codec, name.split(".")[0]) is not None:
                tensors.setdefault(name, torch.eye(width))
    if dtype == torch.int8:
        return {key: value for item in tensors.items() for key, value in _in_8_bits(*item).items()}
    return {
        name: tensor if name.startswith("quantizer.") else tensor.to(dtype)
        for name, tensor in tensors.items()
    }


def _in_8_bits(name: str, tensor: Tensor) -> dict[str, Tensor]:
    """A matrix of the encoder or the decoder in 8 bits, and its scales; others as they are."""
    if name.startswith("quantizer.") or tensor.ndim != 2 or _is_identity(tensor):
        return {name: tensor}
    scales = tensor.abs().amax(1) / 127
    steps = torch.where(scales > 0, scales, torch.ones_like(scales))
    return {name: (tensor / steps[:, None]).round().to(torch.int8), name + SCALES_SUFFIX: scales}


def save_codec(
    codec: Codec,
    folder: Path,
    layout: str | None = None,
    dtype: torch.dtype = torch.float32,
    max_shard_size: str = "5GB",
    settings: Mapping[str, str] | None = None,
) -> None:
    """Write config.json and weights, in shards with an index if need be; each file atomically.

    Args:
        codec: all of it.
        folder: exists already.
        layout: "v1" or "v2" (default: v1 if it can describe the codec, else v2), or "hf" for
            the class inside transformers, with the configuration of its feature extractor.
        dtype: type of encoder and decoder, as `released_tensors` has it.
        max_shard_size: bytes of a shard at most, such as "5GB".
        settings: more keys for config.json.
    """
    layout = layout or default_layout(codec.config)
    keys, tensors = _in_layout(codec, layout, dtype, settings or {})
    plan = split_torch_state_dict_into_shards(tensors, max_shard_size=max_shard_size)
    for file_name, names in plan.filename_to_tensors.items():
        with atomic_path(folder / file_name) as temporary:
            temporary.touch()
            mode = temporary.stat().st_mode
            save_file({name: tensors[name] for name in names}, temporary, {"format": "pt"})
            temporary.chmod(mode)  # safetensors leaves files that only their owner may read
    if plan.is_sharded:
        index = {"metadata": plan.metadata, "weight_map": plan.tensor_to_filename}
        write_json(folder / INDEX_NAME, index)
    _remove_stale(folder, set(plan.filename_to_tensors), plan.is_sharded)
    write_json(folder / CONFIG_NAME, keys)
    if layout == PORT_LAYOUT:
        write_feature_extractor_config(folder, codec.config)


def _in_layout(
    codec: Codec, layout: str, dtype: torch.dtype, settings: Mapping[str, str]
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Contents of config.json, and the tensors."""
    if layout == PORT_LAYOUT:
        if dtype == torch.int8:
            raise ConfigError("layout 'hf' has no weights in int8; expected fp32, bf16 or fp16")
        keys = port_config(codec.config) | {"dtype": str(dtype).removeprefix("torch.")}
        return keys, port_tensors(released_tensors(codec, "v1", dtype), codec.config)
    if layout not in LAYOUTS:
        raise ConfigError(f"no layout {layout!r}; there are {', '.join(LAYOUTS)} and {PORT_LAYOUT}")
    keys = _CONFIG_HEADER | released_from_codec_config(codec.config, layout) | dict(settings)
    return keys, released_tensors(codec, layout, dtype)


def _remove_stale(folder: Path, written: Iterable[str], sharded: bool) -> None:
    """Drop the shards of an earlier save, which an index no longer names."""
    for path in folder.glob("model*.safetensors"):
        if path.name not in written:
            path.unlink()
    if not sharded:
        (folder / INDEX_NAME).unlink(missing_ok=True)


def write_feature_extractor_config(folder: Path, config: CodecConfig) -> None:
    """Write the file that transformers' `AutoFeatureExtractor` reads."""
    write_json(folder / FEATURE_EXTRACTOR_NAME, feature_extractor_config(config))


def write_json(path: Path, value: object) -> None:
    """Write JSON atomically."""
    write_file(path, json.dumps(value, indent=2) + "\n")
