"""Model folders of CAT-TTS and CAT-ASR: config.json, model.safetensors and the text tokens."""

import json
from math import prod
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import nn
from transformers import PreTrainedModel

from ..checkpoint.hub import find_checkpoint
from ..checkpoint.stored_weights import CONFIG_NAME, WEIGHTS_NAME, read_header, with_scales
from ..errors import CheckpointError, ConfigError
from ..files import atomic_path
from ..speech.tokens import TextCodec
from .text import load_text, save_text

_KINDS = {"cat-asr": "speech to text", "cat-tts": "text to speech"}
_FACTS = ("num_quantizers", "codebook_size", "code_rank")


class FolderModel(PreTrainedModel):
    """A model of transformers together with its text tokens, saved and loaded as one folder.

    Attributes:
        text: tokens of texts; constructors take the configuration and these.
    """

    text: TextCodec

    def _init_weights(self, module: nn.Module) -> None:
        """Nothing: constructors initialize all weights."""

    @classmethod
    def from_pretrained(cls, path: str | Path, **options: Any) -> Any:  # type: ignore[override]
        """Load a folder that `save_pretrained` or ``moss-audio train`` wrote, or a hub id.

        Raises:
            CheckpointError: the folder is missing or damaged.
        """
        return load_model_folder(cls, path, **options)

    def save_pretrained(self, path: str | Path, **_: Any) -> None:  # type: ignore[override]
        """Write config.json, the weights and the tokens of texts."""
        save_model_folder(self, Path(path))


def save_model_folder(model: Any, folder: Path) -> None:
    """Write a model with its text tokens; shared tensors are stored once.

    Raises:
        CheckpointError: the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {
            name: parameter.detach().cpu().contiguous()
            for name, parameter in model.named_parameters()
        }
        with atomic_path(folder / WEIGHTS_NAME, error=CheckpointError) as beside:
            save_file(tensors, beside, metadata={"format": "pt"})
        model.config.architectures = [type(model).__name__]
        with atomic_path(folder / CONFIG_NAME, error=CheckpointError) as beside:
            beside.write_text(model.config.to_json_string(use_diff=False), encoding="utf-8")
        save_text(model.text, folder)
    except (OSError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{folder} cannot be written ({reason})") from error


def load_model_folder(kind: type[FolderModel], path: str | Path, **options: Any) -> FolderModel:
    """Load a model for inference.

    Args:
        kind: class of the model.
        path: folder or hub id.
        options: options of the hub, such as ``revision``.

    Raises:
        CheckpointError: the folder is missing, or its tensors do not fit its configuration.
    """
    folder = Path(find_checkpoint(path, options))
    config = _config(folder, kind.config_class)
    text = load_text(folder)
    try:
        stored = with_scales(read_header(folder / WEIGHTS_NAME))
        tensors = {name: torch.from_numpy(tensor.read()) for name, tensor in stored.items()}
        # On the meta device first: a config.json may ask for more memory than there is.
        with torch.device("meta"):
            _check_fit(kind(config, text), tensors, folder)
        model = kind(config, text)
    except CheckpointError:
        raise
    # A constructor of transformers may raise anything about values from a file.
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{folder} holds no usable model ({reason})") from error
    _fill(model, tensors)
    model.eval()
    return model


def _config(folder: Path, kind: Any) -> Any:
    path = folder / CONFIG_NAME
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if values.get("model_type") != kind.model_type:
            raise ConfigError(f"its model_type is {values.get('model_type')!r}")
        return kind(**{key: value for key, value in values.items() if key != "model_type"})
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(
            f"{path} describes no {kind.model_type} model ({reason}); name the folder of one"
        ) from error


def _check_fit(model: Any, tensors: dict[str, torch.Tensor], folder: Path) -> None:
    """Check names, shapes and finiteness of a file's tensors."""
    parameters = dict(model.named_parameters())
    differing = parameters.keys() ^ tensors.keys()
    differing |= {
        name
        for name in parameters.keys() & tensors.keys()
        if parameters[name].shape != tensors[name].shape
    }
    where = folder / WEIGHTS_NAME
    if differing:
        raise CheckpointError(
            f"{where} does not fit its config.json: {min(differing)!r} is missing, left over or of "
            "another shape"
        )
    for name, tensor in tensors.items():
        if not tensor.is_floating_point() or not bool(tensor.isfinite().all()):
            raise CheckpointError(f"{where} is damaged: {name!r} does not hold finite numbers")


@torch.no_grad()
def _fill(model: Any, tensors: dict[str, torch.Tensor]) -> None:
    for name, parameter in model.named_parameters():
        parameter.copy_(tensors[name])


def describe_language_folder(folder: Path) -> dict[str, Any]:
    """Facts of a folder of CAT-ASR or CAT-TTS as plain values; weights are counted, not read.

    Raises:
        CheckpointError: its weights cannot be read.
    """
    values = json.loads((folder / CONFIG_NAME).read_text(encoding="utf-8"))
    parts: dict[str, int] = {}
    for name, tensor in with_scales(read_header(folder / WEIGHTS_NAME)).items():
        part = name.split(".")[0]
        parts[part] = parts.get(part, 0) + prod(tensor.shape)
    return {
        "model": str(folder),
        "kind": _KINDS[values["model_type"]],
        "parameters": {"total": sum(parts.values())} | parts,
        "language_model": (values.get("text_config") or {}).get("model_type"),
        **{name: values.get(name) for name in _FACTS},
        "codec_identity": values.get("codec") or None,
    }
