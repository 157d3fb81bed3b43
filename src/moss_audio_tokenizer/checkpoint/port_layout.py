"""The layout "hf": config.json and tensors of the codec class inside transformers.

Owns everything that this package knows of that class: the keys of its configuration, the names
and shapes of its tensors, and what it cannot describe. Source: huggingface/transformers, pull
request 46447 at commit 071c296 (July 2026). No release of transformers has the class yet; if a
release names something otherwise, this module is the only one to change.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from math import isfinite, prod
from typing import Any, Protocol

import torch
from torch import Tensor

from ..config import CodecConfig, PatchStage, QuantizerConfig, TransformerStage
from ..config.released import PORT_KEY
from ..errors import CheckpointError, ConfigError

# Of a block: the v1 name, and the name in transformers.
BLOCK_NAMES = {
    "norm1": "self_attn_layer_norm",
    "norm2": "final_layer_norm",
    "linear1": "fc1",
    "linear2": "fc2",
    "layer_scale_1.scale": "layer_scale_1.lambda1",
    "layer_scale_2.scale": "layer_scale_2.lambda1",
    "self_attn.out_projs.0": "self_attn.o_proj",
}
# One projection of v1 is three in transformers, and their rows have another order.
JOINED = "self_attn.in_projs.0.weight"
SPLIT = tuple(f"self_attn.{name}_proj.weight" for name in "qkv")
# Weight norm is folded: gain and direction of v1 are one weight.
GAIN, DIRECTION = "parametrizations.weight.original0", "parametrizations.weight.original1"
STAGE_LISTS = {
    "input_hidden_sizes": "input_dimension",
    "output_hidden_sizes": "output_dimension",
    "hidden_sizes": "d_model",
    "num_attention_heads": "num_heads",
    "num_hidden_layers": "num_layers",
    "intermediate_sizes": "dim_feedforward",
}
QUANTIZER_KEYS = {
    "input_hidden_size": "input_dim",
    "hidden_size": "rvq_dim",
    "output_hidden_size": "output_dim",
    "n_codebooks": "num_quantizers",
    "codebook_size": "codebook_size",
    "codebook_dim": "codebook_dim",
}
HEADER = {"model_type": "moss_audio_tokenizer", "architectures": ["MossAudioTokenizerModel"]}
_STAGE = re.compile(r"^(encoder|decoder)\.(\d+)\.")
_PORT_STAGE = re.compile(r"^(encoder|decoder)\.layers\.(\d+)\.")
_PROJECTION = re.compile(r"(quantizer\.(?:.+\.)?(?:in|out|input|output)_proj)\.(weight|bias)")


class TensorFile(Protocol):
    """The tensors of a checkpoint by the names in its files."""

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor."""
        ...

    def tensor(self, name: str) -> Tensor:
        """Values of a tensor."""
        ...


# Configuration


def is_port(released: Mapping[str, Any]) -> bool:
    """Whether a config.json is that of the class inside transformers."""
    return PORT_KEY in released


def port_config(config: CodecConfig) -> dict[str, Any]:
    """The config.json of the class inside transformers.

    Raises:
        ConfigError: that class cannot describe the codec; the message says why.
    """
    stages, ratios = _transformers(config.encoder), _patches(config.encoder)
    _refuse_unlike(config, stages, ratios)
    return {
        **HEADER,
        "sampling_rate": config.sampling_rate,
        "sliding_window_duration": _window(config),
        PORT_KEY: ratios,
        **{key: [getattr(item, name) for item in stages] for key, name in STAGE_LISTS.items()},
        "layer_scale_init_value": stages[0].layer_scale,
        "rope_parameters": {"rope_type": "default", "rope_theta": stages[0].max_period},
        "quantizer_config": {
            key: getattr(config.quantizer, name) for key, name in QUANTIZER_KEYS.items()
        },
    }


def feature_extractor_config(config: CodecConfig) -> dict[str, Any]:
    """The preprocessor_config.json beside it."""
    return {
        "feature_extractor_type": "MossAudioTokenizerFeatureExtractor",
        "feature_size": config.number_channels,
        "sampling_rate": config.sampling_rate,
        "hop_length": config.downsample_rate,
        "padding_value": 0.0,
        "padding_side": "right",
        "return_attention_mask": True,
    }


def _transformers(stages: tuple[Any, ...]) -> list[TransformerStage]:
    return [stage for stage in stages if isinstance(stage, TransformerStage)]


def _patches(stages: tuple[Any, ...]) -> list[int]:
    return [stage.patch_size for stage in stages if isinstance(stage, PatchStage)]


def _refuse_unlike(config: CodecConfig, stages: list[TransformerStage], ratios: list[int]) -> None:
    """Refuse a codec that the class inside transformers has no configuration for."""
    pairs = [
        stage
        for ratio, transformer in zip(ratios, stages, strict=False)
        for stage in (PatchStage(ratio), transformer)
    ]
    alike = {(stage.layer_scale, stage.max_period) for stage in stages}
    reasons = {
        "it has more than one channel": config.number_channels > 1,
        f"its quantizer is {config.quantizer.quantizer_type}": (
            config.quantizer.quantizer_type != "rlfq"
        ),
        "its encoder does not alternate patches and Transformers": list(config.encoder) != pairs,
        "its decoder is not the mirror of its encoder": (
            list(config.decoder) != [_mirrored(stage) for stage in reversed(config.encoder)]
        ),
        "it projects between equal dimensions": any(
            stage.always_project
            and stage.d_model in (stage.input_dimension, stage.output_dimension)
            for stage in stages
        ),
        "layer_scale or max_period differs between its stages": len(alike) != 1,
    }
    found = [reason for reason, holds in reasons.items() if holds]
    if found:
        raise ConfigError(
            f"layout hf cannot describe this model: {'; '.join(found)}; write it with layout v1 "
            "or v2"
        )


def _mirrored(stage: Any) -> Any:
    if isinstance(stage, PatchStage):
        return stage
    return replace(
        stage, input_dimension=stage.output_dimension, output_dimension=stage.input_dimension
    )


def _rates(sampling_rate: int, ratios: list[int]) -> list[float]:
    """Steps a second of each stage of the encoder."""
    return [sampling_rate / prod(ratios[: index + 1]) for index in range(len(ratios))]


def _window(config: CodecConfig) -> float:
    """One duration that gives the windows of all stages, rounded down to steps."""
    stages = _transformers(config.encoder)
    rates = _rates(config.sampling_rate, _patches(config.encoder))
    steps = [config.context_steps(*pair) for pair in zip(stages, rates, strict=True)]
    longest = max(stage.context_seconds for stage in stages)
    # A hair longer, where the product with the rate falls just short of a whole number.
    for duration in (longest, longest * (1 + 1e-9)):
        if steps == [int(rate * duration) for rate in rates]:
            return duration
    raise ConfigError(
        f"layout hf cannot describe this model: its attention windows of {steps} steps do not have "
        "one duration; write it with layout v1 or v2"
    )


def released_from_port(port: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of a released config.json with the meaning of one of the class in transformers.

    Raises:
        ConfigError: a key is missing or of another kind, or asks for what no release uses.
    """
    ratios = _counts(port, PORT_KEY)
    lists = {name: _counts(port, key) for key, name in STAGE_LISTS.items()}
    if any(len(values) != len(ratios) for values in lists.values()):
        raise ConfigError(
            f"{PORT_KEY}, {', '.join(STAGE_LISTS)} have different lengths; expected one entry for "
            "each stage"
        )
    rate, window = (
        _number(port, "sampling_rate", 24_000),
        _number(port, "sliding_window_duration", 10.0),
    )
    common = {"layer_scale": _number(port, "layer_scale_init_value", 0.01)}
    common["max_period"] = _rope_theta(port)
    encoder: list[dict[str, Any]] = []
    for index, steps in enumerate(_rates(int(rate), ratios)):
        sizes = {name: values[index] for name, values in lists.items()}
        stage = {"module_type": "Transformer", **sizes, **common}
        stage["context_duration"] = _seconds(window, steps)
        encoder += [{"module_type": "PatchedPretransform", "patch_size": ratios[index]}, stage]
    return {
        "model_type": "moss-audio-tokenizer",
        "sampling_rate": int(rate),
        "downsample_rate": prod(ratios),
        "encoder_kwargs": encoder,
        "reversed_decoder_kwargs": encoder,
        "quantizer_kwargs": _quantizer(port),
    }


def _counts(port: Mapping[str, Any], key: str) -> list[int]:
    values = port.get(key)
    if not isinstance(values, list | tuple) or not values:
        raise ConfigError(f"{key} is {values!r}; expected a list with an entry for each stage")
    if not all(isinstance(value, int) and value > 0 for value in values):
        raise ConfigError(f"{key} is {values!r}; expected whole numbers above 0")
    return list(values)


def _number(port: Mapping[str, Any], key: str, default: float) -> float:
    value = port.get(key, default)
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not isfinite(value) or value <= 0:
        raise ConfigError(f"{key} is {value!r}; expected a number above 0")
    return float(value)


def _rope_theta(port: Mapping[str, Any]) -> float:
    rope = port.get("rope_parameters") or {}
    if not isinstance(rope, Mapping) or rope.get("rope_type", "default") != "default":
        raise ConfigError(f"rope_parameters is {rope!r}; only the type 'default' is supported")
    return _number(rope, "rope_theta", 10_000.0)


def _seconds(window: float, rate: float) -> float:
    """The window of a stage, whose steps transformers rounds down."""
    steps = int(rate * window)
    return window if steps == round(rate * window) else steps / rate


def _quantizer(port: Mapping[str, Any]) -> dict[str, Any]:
    item = port.get("quantizer_config")
    if not isinstance(item, Mapping) or not all(key in item for key in QUANTIZER_KEYS):
        raise ConfigError(
            f"quantizer_config is {item!r}; expected an object with {', '.join(QUANTIZER_KEYS)}"
        )
    return {name: item[key] for key, name in QUANTIZER_KEYS.items()}


# Tensors


def port_tensors(tensors: Mapping[str, Tensor], config: CodecConfig) -> dict[str, Tensor]:
    """Tensors with the names and shapes of the class inside transformers.

    Args:
        tensors: under their v1 names, encoder and decoder and quantizer.
        config: what they make up.
    """
    heads = {
        f"{side}.{index}.": stage.num_heads
        for side, stages in (("encoder", config.encoder), ("decoder", config.decoder))
        for index, stage in enumerate(stages)
        if isinstance(stage, TransformerStage)
    }
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if name.endswith(JOINED):
            stage = _STAGE.match(name)
            assert stage is not None  # noqa: S101
            parts = _reordered(tensor, heads[stage[0]], _to_halves).chunk(3)
            base = _port_name(name.removesuffix(JOINED))
            found |= {base + part: rows for part, rows in zip(SPLIT, parts, strict=True)}
        elif name.endswith(DIRECTION):
            base = name.removesuffix(DIRECTION)
            found[base + "weight"] = _folded(tensor, tensors[base + GAIN])
        elif not name.endswith(GAIN):
            found[_port_name(name)] = tensor
    for name, width in _absent_projections(config.quantizer):
        found[f"{name}.weight"] = torch.eye(width)[..., None]
        found[f"{name}.bias"] = torch.zeros(width)
    return {name: tensor.contiguous().clone() for name, tensor in found.items()}


def _folded(direction: Tensor, gain: Tensor) -> Tensor:
    """The weight, by the operations of `model.quantizer`: (outputs, inputs, 1)."""
    rows = direction[..., 0]
    return (rows * (gain.reshape(-1) / rows.norm(dim=-1))[..., None])[..., None]


def _port_name(name: str) -> str:
    name = _STAGE.sub(r"\1.layers.\2.", name)
    return _renamed(name, BLOCK_NAMES)


def _v1_name(name: str) -> str:
    name = _PORT_STAGE.sub(r"\1.\2.", name)
    return _renamed(name, {port: v1 for v1, port in BLOCK_NAMES.items()})


def _renamed(name: str, names: Mapping[str, str]) -> str:
    for old, new in names.items():
        name = re.sub(rf"(\.layers\.\d+\.){re.escape(old)}(\.|$)", rf"\g<1>{new}\2", name)
    return name


def _absent_projections(config: QuantizerConfig) -> Iterator[tuple[str, int]]:
    """Projections between equal widths, which transformers always has and this package never."""
    if config.input_dim == config.rvq_dim:
        yield "quantizer.input_proj", config.rvq_dim
    if config.rvq_dim == config.output_dim:
        yield "quantizer.output_proj", config.rvq_dim
    if config.codebook_dim == config.rvq_dim:
        for layer in range(config.num_quantizers):
            for side in ("in", "out"):
                yield f"quantizer.quantizers.{layer}.{side}_proj", config.rvq_dim


def _to_halves(rows: Tensor) -> Tensor:
    """Rotary pairs of a head from neighbors to halves: (heads, head_dim, inputs)."""
    return torch.cat((rows[:, ::2], rows[:, 1::2]), dim=1)


def _to_neighbors(rows: Tensor) -> Tensor:
    """Rotary pairs of a head from halves to neighbors."""
    return torch.stack(rows.chunk(2, dim=1), dim=2).flatten(1, 2)


def _reordered(weight: Tensor, num_heads: int, order: Callable[[Tensor], Tensor]) -> Tensor:
    """Queries, keys and values below each other, the rows of queries and keys in another order."""
    query, key, value = weight.chunk(3)
    heads = (part.unflatten(0, (num_heads, -1)) for part in (query, key))
    return torch.cat([*(order(part).flatten(0, 1) for part in heads), value])


class PortTensors:
    """The tensors of a checkpoint of the class inside transformers, by their v1 names.

    Args:
        file: the tensors by the names in the checkpoint.
        stored: those names.
        config: of the codec.

    Raises:
        CheckpointError: a projection that this package does not have is no identity.
    """

    def __init__(self, file: TensorFile, stored: list[str], config: CodecConfig) -> None:
        self._file = file
        self._config = config
        self._sources: dict[str, list[str]] = {}
        absent = dict(_absent_projections(config.quantizer))
        for name in stored:
            projection = _PROJECTION.fullmatch(name)
            if projection and projection[1] in absent:
                self._require_identity(name)
            elif projection and projection[2] == "weight":
                self._sources |= {f"{projection[1]}.{part}": [name] for part in (GAIN, DIRECTION)}
            elif name.endswith(SPLIT[0]):
                base = name.removesuffix(SPLIT[0])
                self._sources[_v1_name(base) + JOINED] = [base + part for part in SPLIT]
            elif not name.endswith(SPLIT):
                self._sources[_v1_name(name)] = [name]

    @property
    def names(self) -> list[str]:
        """V1 names of all tensors."""
        return list(self._sources)

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor in the v1 layout."""
        shapes = [self._file.shape(source) for source in self._sources[name]]
        if name.endswith(GAIN):
            return (shapes[0][0], 1, 1)
        return (sum(shape[0] for shape in shapes), *shapes[0][1:])

    def tensor(self, name: str) -> Tensor:
        """The values of a tensor in the v1 layout."""
        parts = [self._file.tensor(source) for source in self._sources[name]]
        if name.endswith(JOINED):
            match = _STAGE.match(name)
            assert match is not None  # noqa: S101
            stages = self._config.encoder if match[1] == "encoder" else self._config.decoder
            stage = stages[int(match[2])]
            assert isinstance(stage, TransformerStage)  # noqa: S101
            return _reordered(torch.cat(parts), stage.num_heads, _to_neighbors)
        if name.endswith((GAIN, DIRECTION)):
            return self._unfolded(parts[0].float(), name.endswith(GAIN))
        return parts[0]

    def _unfolded(self, weight: Tensor, gain: bool) -> Tensor:
        """Length or direction of every row, so that folding them gives the weight bit for bit."""
        lengths = weight[..., 0].norm(dim=-1)[:, None, None]
        return lengths if gain else torch.where(lengths == 0, torch.ones_like(weight), weight)

    def _require_identity(self, name: str) -> None:
        values = self._file.tensor(name).squeeze(-1).float()
        expected = torch.eye(len(values)) if values.ndim == 2 else torch.zeros(len(values))
        if not torch.equal(values, expected):
            raise CheckpointError(
                f"{name} projects between equal widths, and is not the identity; this package "
                "does not have such a projection"
            )
