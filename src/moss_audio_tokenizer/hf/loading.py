"""Loading and saving a model as transformers does: options, devices, state dicts.

An option that is None counts as not given, as wrappers pass along everything that they know. What
would change the result and cannot be done is refused.
"""

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers.modeling_utils import PreTrainedAudioTokenizerBase, PreTrainedModel

from ..checkpoint.codec_checkpoint import Checkpoint, load_codec, save_codec
from ..checkpoint.stored_weights import find_checkpoint
from ..errors import CheckpointError, ConfigError, one_line
from ..model.codec import Codec
from ..model.inputs import DTYPES, require_device, require_dtype
from .configuration import MossAudioTokenizerConfig

_HUB_OPTIONS = ("cache_dir", "force_download", "local_files_only", "revision", "token")
# What transformers' Auto classes and wrappers pass along, and what changes nothing here: weights
# are always read tensor by tensor, never unpickled, and refused where their shapes do not fit.
_IGNORED_OPTIONS = (
    "_from_auto",
    "_commit_hash",
    "adapter_kwargs",
    "ignore_mismatched_sizes",
    "low_cpu_mem_usage",
    "proxies",
    "resume_download",
    "trust_remote_code",
    "use_safetensors",
)
# Every spelling of a setting, and the setting.
_SETTINGS = {
    "attention_implementation": "attention_implementation",
    "attention_backend": "attention_implementation",
    "attn_implementation": "attention_implementation",
    "compute_dtype": "compute_dtype",
    "codec_compute_dtype": "compute_dtype",
    "lengths": "lengths",
    "return_dict": "return_dict",
}
# Those of them that a config.json states.
_STATED = tuple(name for name in _SETTINGS if name not in ("attn_implementation", "return_dict"))
_WEIGHT_DTYPES = ("codec_weight_dtype", "codec_load_dtype", "dtype", "torch_dtype")
_AUTO_DEVICES = ("auto", "balanced", "balanced_low_0", "sequential")
_DTYPE_NAMES = {str(dtype).removeprefix("torch."): name for name, dtype in DTYPES.items()}


@dataclass(frozen=True)
class LoadingOptions:
    """The options of one call of `from_pretrained`.

    Attributes:
        hub: options of the hub, such as the revision.
        settings: values of the configuration that the call overrides.
        weight_dtype: type of the weights of encoder and decoder, or None.
        subfolder: folder of the model inside the repository.
        loading_info: whether a report of missing and unexpected tensors is wanted too.
    """

    hub: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    weight_dtype: str | None = None
    subfolder: str = ""
    loading_info: bool = False


def read_options(options: Mapping[str, Any]) -> LoadingOptions:
    """Sort the options of `from_pretrained`.

    Raises:
        ConfigError: an option is not known, or two of them contradict each other.
    """
    given = {name: value for name, value in options.items() if value is not None}
    known = {*_HUB_OPTIONS, *_IGNORED_OPTIONS, *_SETTINGS, *_WEIGHT_DTYPES}
    unknown = sorted(set(given) - known - {"subfolder", "output_loading_info"})
    if unknown:
        raise ConfigError(f"from_pretrained got unknown options {unknown}")
    return LoadingOptions(
        hub={name: given[name] for name in _HUB_OPTIONS if name in given},
        settings=_settings(given),
        weight_dtype=_weight_dtype(given),
        subfolder=str(given.get("subfolder", "")),
        loading_info=bool(given.get("output_loading_info", False)),
    )


def plain_settings(released: Mapping[str, Any]) -> dict[str, Any]:
    """How to compute, from a config.json that may carry keys of other programs."""
    given = {name: released[name] for name in _STATED if released.get(name) is not None}
    return _settings({name: value for name, value in given.items() if value != ""})


def check_saving_options(options: Mapping[str, Any]) -> bool:
    """Whether `save_pretrained` is to write anything, by the options of transformers.

    Raises:
        ConfigError: an option that would change what is written, and is not known here.
    """
    given = {name: value for name, value in options.items() if value is not None}
    write = bool(given.pop("is_main_process", True))
    for name in ("safe_serialization", "save_peft_format", "token"):
        given.pop(name, None)
    if not given.get("push_to_hub", True):
        given.pop("push_to_hub")
    if given:
        raise ConfigError(
            f"save_pretrained got unknown options {sorted(given)}; save to a folder, and upload it "
            "with huggingface_hub"
        )
    return write


def _settings(given: Mapping[str, Any]) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    for name in _SETTINGS.keys() & given.keys():
        value = "sdpa" if given[name] == "eager" else given[name]
        if settings.setdefault(_SETTINGS[name], value) != value:
            raise ConfigError(f"{name} is {given[name]!r}, but another spelling of it differs")
    return settings


def _weight_dtype(given: Mapping[str, Any]) -> str | None:
    named = [name for name in _WEIGHT_DTYPES if name in given and given[name] != "auto"]
    found = {name: dtype_name(given[name]) for name in named}
    if len(set(found.values())) > 1:
        raise ConfigError(f"the weights cannot have several types: {found}")
    return next(iter(found.values()), None)


def dtype_name(value: object) -> str:
    """The name of a precision that may be a torch.dtype, or spelled as PyTorch does.

    Raises:
        ConfigError: it is not one of fp32, bf16 and fp16.
    """
    text = str(value).removeprefix("torch.")
    name = _DTYPE_NAMES.get(text, text)
    require_dtype(name)
    return name


def device_of(device_map: Any) -> torch.device | None:
    """The one device that a ``device_map`` names; the codec is never split.

    Raises:
        ConfigError: there is no such device here, or the map names several.
    """
    if device_map is None:
        return None
    if isinstance(device_map, Mapping):
        places = {str(place) for place in device_map.values()}
        if len(places) != 1:
            raise ConfigError(
                f"device_map spreads the model over {sorted(places)}; expected one device, such as "
                "{'': 'cuda'}: the codec is not split"
            )
        device_map = next(iter(device_map.values()))
    if isinstance(device_map, str) and device_map in _AUTO_DEVICES:
        device_map = "cuda" if torch.cuda.is_available() else "cpu"
    if isinstance(device_map, int) and not isinstance(device_map, bool):
        device_map = f"cuda:{device_map}"
    return require_device(device_map)


def with_weights(codec: Codec, state: Mapping[str, Tensor]) -> Codec:
    """A copy of a codec with other weights, under the names of ``model.state_dict()``.

    Raises:
        ConfigError: names or shapes are others.
    """
    copy = deepcopy(codec)
    try:
        copy.load_state_dict({name.removeprefix("codec."): value for name, value in state.items()})
    except RuntimeError as error:
        raise ConfigError(
            f"state_dict is not one of this model ({one_line(error, 200)}); expected the "
            "names and shapes of model.state_dict()"
        ) from error
    return copy


def loading_info() -> dict[str, list[str]]:
    """What transformers reports of a checkpoint in which every tensor fits."""
    names = ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs")
    return {name: [] for name in names}


class MossAudioTokenizerPreTrainedModel(PreTrainedAudioTokenizerBase):
    """The base class by which transformers knows models that turn audio into codes."""

    config_class = MossAudioTokenizerConfig
    base_model_prefix = "codec"
    main_input_name = "input_values"
    input_modalities = "audio"

    codec: Codec

    def _apply_settings(self) -> None:
        """Compute as the configuration says."""
        raise NotImplementedError

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        config: MossAudioTokenizerConfig | None = None,
        parts: str = "all",
        device_map: Any = None,
        **options: Any,
    ) -> Any:
        """Load a checkpoint: a folder, a hub id, or "bundled" (the model in the package).

        Both released layouts, sharded or not. Weights are held in float32 unless an option says
        otherwise.

        Args:
            pretrained_model_name_or_path: where it is.
            config: overrides only how to compute (attention, compute dtype, lengths).
            parts: "encoder" or "decoder" loads that part and the quantizer.
            device_map: a device to move to, "auto" for the GPU if there is one, or a dict that
                names one device.
            **options: options of the hub (revision, cache_dir, subfolder, ...); settings
                (attn_implementation, compute_dtype, lengths); codec_weight_dtype or dtype, the
                type of the weights of encoder and decoder ("fp32", "bf16", "fp16");
                output_loading_info. An option that is None counts as not given.

        Returns:
            The model; with ``output_loading_info=True`` the model and a dict of lists of missing,
            unexpected and misshapen tensors, which are empty: such checkpoints are refused.

        Raises:
            CheckpointError: nothing is there, or tensors are missing, extra or misshapen.
            ConfigError: the configuration is not one of a released kind, or an option is unknown.
        """
        wanted = read_options(options)
        if config is not None and not isinstance(config, MossAudioTokenizerConfig):
            raise ConfigError(
                f"config is {type(config).__name__}; expected MossAudioTokenizerConfig"
            )
        device = device_of(device_map)
        folder = find_checkpoint(pretrained_model_name_or_path, wanted.hub) / wanted.subfolder
        with Checkpoint(folder) as checkpoint:
            codec = load_codec(checkpoint, parts)
            settings = checkpoint.released if config is None else config.to_dict()
        model: Any = cls._around(codec, {**plain_settings(settings), **wanted.settings})
        model.config._name_or_path = str(pretrained_model_name_or_path)
        if wanted.weight_dtype is not None:
            model.set_codec_weight_dtype(wanted.weight_dtype)
        model = model if device is None else model.to(device)
        return (model, loading_info()) if wanted.loading_info else model

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """As every module of PyTorch; tensors of a released checkpoint have other names.

        Raises:
            CheckpointError: no tensor has a name of this model's.
        """
        if state_dict and not any(name.startswith("codec.") for name in state_dict):
            raise CheckpointError(
                f"no tensor has a name of this model's: the first is {next(iter(state_dict))!r}, "
                "and model.state_dict() shows those it has; a released checkpoint is loaded by "
                "MossAudioTokenizerModel.from_pretrained(FOLDER)"
            )
        return super().load_state_dict(state_dict, strict, assign)

    @classmethod
    def _around(cls, codec: Codec, settings: dict[str, Any]) -> Any:
        """A model that wraps a loaded codec, without drawing weights first."""
        config = MossAudioTokenizerConfig.from_codec_config(codec.config, **settings)
        model = cls.__new__(cls)
        PreTrainedModel.__init__(model, config)
        model.codec = codec
        model._apply_settings()
        return model

    def save_pretrained(  # type: ignore[override]
        self,
        save_directory: str | Path,
        *,
        layout: str | None = None,
        max_shard_size: str = "5GB",
        weight_dtype: str | None = None,
        state_dict: Mapping[str, Tensor] | None = None,
        **options: Any,
    ) -> None:
        """Write config.json and safetensors weights with the names of a released layout.

        Args:
            save_directory: a folder; made if missing.
            layout: "v1" or "v2" (default: v1 if code for released v1 models can read it, else
                v2). A model whose stages project between equal dimensions (the v2 family) can
                be written as v1 too, but other engines' v1 code does not expect those tensors.
                Written as v2, a v1 model gets identity projections there.
                "hf" is the layout of the class inside transformers (docs/onnx.md).
            max_shard_size: larger checkpoints are split into shards with an index.
            weight_dtype: "fp32", or "bf16" / "fp16" for half the size: encoder and decoder are
                rounded, the quantizer is not (default: what `set_codec_weight_dtype` chose).
                "int8" stores their matrices in 8 bits with a scale for each row, for a quarter of
                the size; they are read back to float32. Other engines cannot read them.
            state_dict: weights to write in place of the model's, under the names of
                ``model.state_dict()``.
            **options: ``is_main_process=False`` writes nothing; ``safe_serialization`` changes
                nothing. An option that is None counts as not given.

        Raises:
            ConfigError: no such layout or dtype, the layout cannot describe the model, only its
                encoder or its decoder is loaded, or an option or ``state_dict`` does not fit.
        """
        if self.codec.encoder is None or self.codec.decoder is None:
            raise ConfigError(
                "only the encoder or only the decoder is loaded; load parts='all' to save it"
            )
        if not check_saving_options(options):
            return
        codec = self.codec if state_dict is None else with_weights(self.codec, state_dict)
        weight_dtype = weight_dtype or self.config.codec_weight_dtype
        folder = Path(save_directory)
        in_8_bits = weight_dtype == "int8"
        dtype = torch.int8 if in_8_bits else require_dtype(weight_dtype)
        settings = {
            "attention_implementation": self.config.attention_implementation,
            "compute_dtype": self.config.compute_dtype,
            "codec_weight_dtype": "fp32" if in_8_bits else weight_dtype,
        }
        if self.config.lengths != "ceil":
            settings["lengths"] = self.config.lengths
        try:
            folder.mkdir(parents=True, exist_ok=True)
            save_codec(codec, folder, layout, dtype, max_shard_size, settings)
        except OSError as error:
            raise CheckpointError(f"cannot write to {folder}: {error}") from error
