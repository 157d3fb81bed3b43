"""What callers of transformers pass to load and save a model, and what it means here.

An option that is None counts as not given, as wrappers pass along everything that they know. What
would change the result and cannot be done is refused.
"""

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..errors import ConfigError
from ..model.codec import Codec
from ..model.inputs import DTYPES, require_device, require_dtype

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
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(
            f"state_dict is not one of this model ({reason}); expected the names and shapes of "
            "model.state_dict()"
        ) from error
    return copy


def loading_info() -> dict[str, list[str]]:
    """What transformers reports of a checkpoint in which every tensor fits."""
    names = ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs")
    return {name: [] for name in names}
