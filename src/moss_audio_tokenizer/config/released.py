"""Converts `CodecConfig` to and from the config.json of released checkpoints.

Owns the released key names, their aliases and older spellings, and refuses what no
released checkpoint uses. Source: the published configuration files.
"""

from collections.abc import Mapping
from typing import Any

from ..errors import ConfigError
from .codec import CodecConfig, PatchStage, QuantizerConfig, Stage, TransformerStage

# What a Transformer stage may say besides sizes; anything else would change the mathematics.
_FIXED = {
    "causal": (True,),
    "norm": ("layer_norm",),
    "positional_embedding": ("rope",),
    "gating": ("none",),
    "conv_layout": (True, False),
}
_SIZES = (
    "input_dimension",
    "output_dimension",
    "d_model",
    "num_heads",
    "num_layers",
    "dim_feedforward",
)
_OPTIONAL = ("max_period", "layer_scale", "context_duration")
_QUANTIZER_KEYS = (
    "input_dim",
    "rvq_dim",
    "output_dim",
    "num_quantizers",
    "codebook_size",
    "codebook_dim",
    "quantizer_type",
)
_QUANTIZER_NAMES = {
    "rlfq": "rlfq",
    "random_prefix_rlfq": "rlfq",
    "rvq": "rvq",
    "spec_rvq": "rvq",
}
LAYOUTS = ("v1", "v2")
# The key that tells the configuration of the class inside transformers from released ones.
PORT_KEY = "downsampling_ratios"
ALIASES = {
    "sample_rate": "sampling_rate",
    "channels_numbers": "number_channels",
    "attention_backend": "attention_implementation",
    "codec_compute_dtype": "compute_dtype",
    "codec_load_dtype": "codec_weight_dtype",
}


def codec_config_from_released(
    released: Mapping[str, Any], always_project: bool | None = None
) -> CodecConfig:
    """Build a `CodecConfig` from the contents of a released config.json.

    Args:
        released: the parsed JSON; keys that say nothing about the codec are ignored.
        always_project: whether stages project between equal dimensions. The key names of the
            weights tell; without weights (None) the file's own ``always_project`` or, in its
            absence, interleaved stereo (the v2 family) decides.

    Raises:
        ConfigError: a key is missing, unknown inside a stage, or asks for what no released
            checkpoint uses.
    """
    if PORT_KEY in released:
        raise ConfigError(
            "this config.json is that of the class inside transformers, which only "
            "MossAudioTokenizerModel.from_pretrained reads; for everything else write the model "
            "again: moss-audio export hf DIR -o NEW --layout v1"
        )
    values = _without_aliases(released)
    channels = _integer(values, "number_channels", "config") if "number_channels" in values else 1
    interleave = bool(values.get("enable_channel_interleave", channels > 1))
    if channels > 1 and not interleave:
        raise ConfigError("number_channels above 1 needs enable_channel_interleave = true")
    if always_project is None:
        always_project = bool(values.get("always_project", interleave and channels > 1))
    context = _number(values, "causal_transformer_context_duration", 10.0)
    sides = _sides(values)
    return CodecConfig(
        sampling_rate=_integer(values, "sampling_rate", "config"),
        downsample_rate=_integer(values, "downsample_rate", "config"),
        number_channels=channels,
        encoder=tuple(_stage(item, context, always_project) for item in sides[0]),
        decoder=tuple(_stage(item, context, always_project) for item in sides[1]),
        quantizer=_quantizer(values),
    )


def _without_aliases(released: Mapping[str, Any]) -> dict[str, Any]:
    """The keys that say something, under the names that this package writes."""
    stated = {key: value for key, value in released.items() if value is not None}
    values = {key: value for key, value in stated.items() if key not in ALIASES}
    for alias, key in ALIASES.items():
        if alias in stated and values.setdefault(key, stated[alias]) != stated[alias]:
            raise ConfigError(
                f"{alias} is {stated[alias]!r}, but {key} is {values[key]!r}; they mean the "
                "same, keep one"
            )
    return values


def _need(values: Mapping[str, Any], key: str, where: str) -> Any:
    if values.get(key) is None:
        raise ConfigError(f"{where} has no {key!r}; expected a released or own config.json")
    return values[key]


def _integer(values: Mapping[str, Any], key: str, where: str) -> int:
    value = _need(values, key, where)
    whole = isinstance(value, float) and value.is_integer()
    if not whole and (isinstance(value, bool) or not isinstance(value, int)):
        raise ConfigError(f"{where}: {key} is {value!r}; expected a whole number")
    return int(value)


def _number(values: Mapping[str, Any], key: str, default: float) -> float:
    value = values.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ConfigError(f"{key} is {value!r}; expected a number")
    return float(value)


def _sides(values: Mapping[str, Any]) -> tuple[list[Mapping[str, Any]], list[Mapping[str, Any]]]:
    # The type tells models on codes from codecs that lack something.
    encoder = _stages(values, "encoder_kwargs", f"config of type {values.get('model_type')!r}")
    if values.get("decoder_kwargs"):
        return encoder, _stages(values, "decoder_kwargs", "config")
    where = "config without decoder_kwargs"
    mirrored = _stages(values, "reversed_decoder_kwargs", where)
    return encoder, [_swap(item) for item in reversed(mirrored)]


def _stages(values: Mapping[str, Any], key: str, where: str) -> list[Mapping[str, Any]]:
    stages = _need(values, key, where)
    if not isinstance(stages, list | tuple) or not all(isinstance(s, Mapping) for s in stages):
        raise ConfigError(f"{key} is {stages!r}; expected a list of objects, one for each stage")
    return list(stages)


def _swap(item: Mapping[str, Any]) -> dict[str, Any]:
    """A stage of the mirrored decoder, read the right way round."""
    swapped = dict(item)
    if "input_dimension" in item and "output_dimension" in item:
        swapped["input_dimension"] = item["output_dimension"]
        swapped["output_dimension"] = item["input_dimension"]
    return swapped


def _stage(item: Mapping[str, Any], context: float, always_project: bool) -> Stage:
    kind = item.get("module_type")
    if kind == "PatchedPretransform":
        _refuse_unknown(item, ("module_type", "patch_size"), kind)
        return PatchStage(_integer(item, "patch_size", kind))
    if kind != "Transformer":
        raise ConfigError(
            f"module_type is {kind!r}; expected 'PatchedPretransform' or 'Transformer'"
        )
    _refuse_unknown(item, ("module_type", *_SIZES, *_OPTIONAL, *_FIXED), kind)
    _refuse_unsupported(item)
    values = {key: value for key, value in item.items() if value is not None}
    return TransformerStage(
        **{key: _integer(item, key, kind) for key in _SIZES},
        context_seconds=_number(values, "context_duration", context),
        max_period=_number(values, "max_period", 10_000.0),
        layer_scale=_number(values, "layer_scale", 0.01),
        always_project=always_project,
    )


def _refuse_unsupported(item: Mapping[str, Any]) -> None:
    """Refuse what would change the mathematics."""
    for key, allowed in _FIXED.items():
        if key in item and item[key] not in allowed:
            raise ConfigError(
                f"Transformer.{key} is {item[key]!r}; only {allowed[0]!r} is supported, "
                "as in every released checkpoint"
            )
    if item.get("layer_scale", 0.01) is None:
        raise ConfigError("Transformer.layer_scale is None; only blocks with one are supported")


def _refuse_unknown(item: Mapping[str, Any], known: tuple[str, ...], where: str) -> None:
    unknown = sorted(set(item) - set(known))
    if unknown:
        raise ConfigError(f"{where} has unknown keys {unknown}; known are {sorted(known)}")


def _quantizer(values: Mapping[str, Any]) -> QuantizerConfig:
    item = _need(values, "quantizer_kwargs", "config")
    if not isinstance(item, Mapping):
        raise ConfigError(f"quantizer_kwargs is {item!r}; expected an object")
    name = item.get("quantizer_type") or values.get("quantizer_type") or "rlfq"
    if not isinstance(name, str) or name not in _QUANTIZER_NAMES:
        raise ConfigError(
            f"quantizer_type is {name!r}; expected one of {', '.join(_QUANTIZER_NAMES)}"
        )
    for key in ("input_dim", "rvq_dim", "output_dim"):
        _need(item, key, "quantizer_kwargs")
    # Released files also carry training-time options here; they do not change inference.
    sizes = {
        key: _integer(item, key, "quantizer_kwargs") for key in _QUANTIZER_KEYS[:-1] if key in item
    }
    return QuantizerConfig(**sizes, quantizer_type=_QUANTIZER_NAMES[name])


def released_from_codec_config(config: CodecConfig, layout: str = "v2") -> dict[str, Any]:
    """The config.json keys of a `CodecConfig`, readable by this package and others.

    Args:
        config: the codec.
        layout: "v2" states the attention window of every stage. "v1" has one window for all of
            them, and none of the keys that the v1 family of released models does not know.

    Raises:
        ConfigError: the layout cannot describe this codec, or there is no such layout.
    """
    if layout not in LAYOUTS:
        raise ConfigError(f"no layout {layout!r}; there are {', '.join(LAYOUTS)}")
    values = _all_keys(config)
    return _as_v1(config, values) if layout == "v1" else values


def default_layout(config: CodecConfig) -> str:
    """The released layout that other programs read a codec in: v1 where v1 can describe it."""
    mono = config.number_channels == 1
    plain = not any(stage.always_project for stage in _transformers(config))
    return "v1" if mono and plain and len(_windows(config)) <= 1 else "v2"


def _as_v1(config: CodecConfig, values: dict[str, Any]) -> dict[str, Any]:
    """Without what code for the v1 family refuses or takes for a sign of the v2 family."""
    windows = sorted(_windows(config))
    if len(windows) > 1:
        shown = ", ".join(f"{window:g}" for window in windows)
        raise ConfigError(
            f"the stages have attention windows of {shown} s, but layout v1 has one window for "
            "all stages; write it with --layout v2 (layout='v2')"
        )
    for side in ("encoder_kwargs", "decoder_kwargs"):
        values[side] = [_without(stage, "context_duration") for stage in values[side]]
    if config.number_channels == 1:
        values = _without(values, "number_channels", "enable_channel_interleave")
    return values if values["always_project"] else _without(values, "always_project")


def _without(values: dict[str, Any], *keys: str) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key not in keys}


def _windows(config: CodecConfig) -> set[float]:
    return {stage.context_seconds for stage in _transformers(config)}


def _transformers(config: CodecConfig) -> list[TransformerStage]:
    stages = config.encoder + config.decoder
    return [stage for stage in stages if isinstance(stage, TransformerStage)]


def _all_keys(config: CodecConfig) -> dict[str, Any]:
    quantizer = {key: getattr(config.quantizer, key) for key in _QUANTIZER_KEYS}
    stages = _transformers(config)
    return {
        "sampling_rate": config.sampling_rate,
        "downsample_rate": config.downsample_rate,
        "causal_transformer_context_duration": max(
            (item.context_seconds for item in stages), default=10.0
        ),
        "encoder_kwargs": [_released_stage(stage) for stage in config.encoder],
        "decoder_kwargs": [_released_stage(stage) for stage in config.decoder],
        "quantizer_type": config.quantizer.quantizer_type,
        "quantizer_kwargs": quantizer,
        "code_dim": config.quantizer.output_dim,
        "number_channels": config.number_channels,
        "enable_channel_interleave": config.number_channels > 1,
        "always_project": any(item.always_project for item in stages),
    }


def _released_stage(stage: Stage) -> dict[str, Any]:
    if isinstance(stage, PatchStage):
        return {"module_type": "PatchedPretransform", "patch_size": stage.patch_size}
    fixed = {key: allowed[0] for key, allowed in _FIXED.items()}
    sizes = {key: getattr(stage, key) for key in _SIZES}
    return {
        "module_type": "Transformer",
        **sizes,
        **fixed,
        "max_period": stage.max_period,
        "layer_scale": stage.layer_scale,
        "context_duration": stage.context_seconds,
    }
