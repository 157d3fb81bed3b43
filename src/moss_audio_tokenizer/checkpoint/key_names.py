"""Maps this package's parameter names to those of released checkpoints, and back.

Owns both released layouts (v1, v2) and their older spellings; knows nothing of files, and needs
no PyTorch. The names inside the package are free to differ, and quantizer layers to share one
tensor.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from ..config import CodecConfig, QuantizerConfig, TransformerStage
from ..config.released import LAYOUTS
from ..errors import ConfigError

# After the name of a matrix in 8 bits: a factor for each of its rows.
SCALES_SUFFIX = ".scales"

_BLOCK_NAMES = {
    "attention.in_proj.weight": ("self_attn.in_projs.0.weight", "self_attn.in_proj.weight"),
    "attention.out_proj.weight": ("self_attn.out_projs.0.weight", "self_attn.out_proj.weight"),
    "attention_norm.weight": ("norm1.weight", "norm1.weight"),
    "attention_norm.bias": ("norm1.bias", "norm1.bias"),
    "attention_scale": ("layer_scale_1.scale", "layer_scale_1.scale"),
    "feedforward_norm.weight": ("norm2.weight", "norm2.weight"),
    "feedforward_norm.bias": ("norm2.bias", "norm2.bias"),
    "feedforward_in.weight": ("linear1.weight", "ffn.0.weight"),
    "feedforward_out.weight": ("linear2.weight", "ffn.2.weight"),
    "feedforward_scale": ("layer_scale_2.scale", "layer_scale_2.scale"),
}
_WEIGHT_NORM_NAMES = {
    "gain": "parametrizations.weight.original0",
    "direction": "parametrizations.weight.original1",
    "bias": "bias",
}
# Every other spelling of a released name, and the v1 name that it stands for.
_SPELLINGS = (
    (re.compile(r"\.weight_g$"), ".parametrizations.weight.original0"),
    (re.compile(r"\.weight_v$"), ".parametrizations.weight.original1"),
    (re.compile(r"\.self_attn\.(in|out)_proj\."), r".self_attn.\1_projs.0."),
    (re.compile(r"\.ffn\.0\."), ".linear1."),
    (re.compile(r"\.ffn\.2\."), ".linear2."),
)
_STAGE = re.compile(r"(encoder|decoder)\.stages\.(\d+)\.(.+)")
_LAYER = re.compile(r"layers\.(\d+)\.(.+)")


class Slot(NamedTuple):
    """Where a released tensor lives here: a parameter, and a layer of it if it stacks several."""

    parameter: str
    layer: int | None


def canonical_name(name: str) -> str:
    """The v1 name of a released tensor, whatever its layout or age."""
    for pattern, replacement in _SPELLINGS:
        name = pattern.sub(replacement, name)
    return name


def layout_of(names: Iterable[str]) -> str:
    """The layout ("v1" or "v2") that a checkpoint's names are written in."""
    return "v2" if any(".ffn.0." in name or ".in_proj.weight" in name for name in names) else "v1"


def released_slots(
    parameters: Iterable[str], num_quantizers: int, layout: str
) -> Iterator[tuple[str, Slot]]:
    """For each of this package's parameters, the released tensors that make it up.

    Raises:
        ConfigError: there is no such layout.
    """
    if layout not in LAYOUTS:
        raise ConfigError(f"no layout {layout!r}; there are {', '.join(LAYOUTS)}")
    for parameter in parameters:
        if match := _STAGE.fullmatch(parameter):
            yield _stage_name(match[1], match[2], match[3], layout), Slot(parameter, None)
        else:
            yield from _quantizer_names(parameter, num_quantizers)


def _stage_name(side: str, stage: str, rest: str, layout: str) -> str:
    if match := _LAYER.fullmatch(rest):
        names = _BLOCK_NAMES[match[2]]
        return f"{side}.{stage}.transformer.layers.{match[1]}.{names[LAYOUTS.index(layout)]}"
    return f"{side}.{stage}.{rest}"


def _quantizer_names(parameter: str, num_quantizers: int) -> Iterator[tuple[str, Slot]]:
    _, module, *rest = parameter.split(".")
    if module in ("input_proj", "output_proj"):
        yield f"quantizer.{module}.{_WEIGHT_NORM_NAMES[rest[0]]}", Slot(parameter, None)
        return
    suffix = (
        "codebook.weight"
        if module == "codebooks"
        else f"{module.removesuffix('s')}.{_WEIGHT_NORM_NAMES[rest[0]]}"
    )
    for layer in range(num_quantizers):
        yield f"quantizer.quantizers.{layer}.{suffix}", Slot(parameter, layer)


def to_released_shape(name: str, tensor: Any) -> Any:
    """A tensor or array: weight-normalized projections are 1x1 convolutions in released files."""
    if name.endswith("original1"):
        return tensor[..., None]
    return tensor[:, None, None] if name.endswith("original0") else tensor


def equal_projections(config: CodecConfig) -> dict[str, int]:
    """Released names of the projections between equal dimensions, and their width.

    The v2 family has them, the v1 family does not.
    """
    names = {}
    for side, stages in (("encoder", config.encoder), ("decoder", config.decoder)):
        for index, stage in enumerate(stages):
            if not isinstance(stage, TransformerStage):
                continue
            if stage.input_dimension == stage.d_model:
                names[f"{side}.{index}.input_proj.weight"] = stage.d_model
            if stage.output_dimension == stage.d_model:
                names[f"{side}.{index}.output_proj.weight"] = stage.d_model
    return names


def codes_identity(config: CodecConfig, read: Callable[[str], Any]) -> str:
    """16 hexadecimal digits of SHA-256 over the quantizer's tensors and the rates.

    The decoder does not enter: one that was fine-tuned still reads the same codes.

    Args:
        config: configuration of the codec.
        read: gives the array of a tensor by its v1 name.
    """
    rates = {
        "sampling_rate": config.sampling_rate,
        "downsample_rate": config.downsample_rate,
        "number_channels": config.number_channels,
        "quantizer": vars(config.quantizer),
    }
    digest = hashlib.sha256(json.dumps(rates, sort_keys=True).encode())
    for parameter in sorted(_quantizer_parameters(config.quantizer)):
        digest.update(parameter.encode())
        names = _quantizer_names(f"quantizer.{parameter}", config.quantizer.num_quantizers)
        for name, _ in names:
            digest.update(read(name).astype("<f4").tobytes())
    return digest.hexdigest()[:16]


def _quantizer_parameters(config: QuantizerConfig) -> list[str]:
    modules = [
        *(["input_proj"] if config.input_dim != config.rvq_dim else []),
        *(["output_proj"] if config.rvq_dim != config.output_dim else []),
        *(["in_projs", "out_projs"] if config.codebook_dim != config.rvq_dim else []),
    ]
    kinds = ("bias", "direction", "gain")
    return ["codebooks", *(f"{module}.{kind}" for module in modules for kind in kinds)]
