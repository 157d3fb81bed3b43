"""Folders of the models on codes: config.json, model.safetensors and the tokens of texts.

Owns saving and loading; what is in a model is the model's.
"""

import json
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers import PreTrainedConfig, PreTrainedModel

from ..errors import CheckpointError, ConfigError
from ..files import atomic_path
from ..model.hub import find_checkpoint
from .text import load_text, save_text

WEIGHTS_NAME = "model.safetensors"
CONFIG_NAME = "config.json"

Model = TypeVar("Model", bound=PreTrainedModel)


def save_model_folder(model: Any, folder: Path) -> None:
    """Write a model whose ``text`` is a `TextCodec`; tensors that are one are stored once.

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


def load_model_folder(
    kind: type[Model], config_kind: type[PreTrainedConfig], path: str | Path, **options: Any
) -> Model:
    """A model from its folder or hub id, ready to use.

    Args:
        kind: of the model.
        config_kind: of its configuration.
        path: folder or hub id.
        options: of the hub, such as ``revision``.

    Raises:
        CheckpointError: nothing usable is there, or its tensors do not fit.
    """
    folder = Path(find_checkpoint(path, options))
    config = _config(folder, config_kind)
    text = load_text(folder)
    try:
        model = kind(config, text)
        tensors = load_file(folder / WEIGHTS_NAME)
    except (OSError, SafetensorError, ConfigError) as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{folder} holds no usable model ({reason})") from error
    _fill(model, tensors, folder)
    model.eval()
    return model


def _config(folder: Path, kind: type[PreTrainedConfig]) -> Any:
    path = folder / CONFIG_NAME
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if values.get("model_type") != kind.model_type:
            raise ConfigError(f"its model_type is {values.get('model_type')!r}")
        return kind(**{key: value for key, value in values.items() if key != "model_type"})
    except (OSError, ValueError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(
            f"{path} describes no {kind.model_type} model ({reason}); name the folder of one"
        ) from error


@torch.no_grad()
def _fill(model: Any, tensors: dict[str, torch.Tensor], folder: Path) -> None:
    parameters = dict(model.named_parameters())
    differing = parameters.keys() ^ tensors.keys()
    differing |= {
        name
        for name in parameters.keys() & tensors.keys()
        if parameters[name].shape != tensors[name].shape
    }
    if differing:
        raise CheckpointError(
            f"{folder / WEIGHTS_NAME} does not fit its config.json: {min(differing)!r} is missing, "
            "left over or of another shape"
        )
    for name, parameter in parameters.items():
        parameter.copy_(tensors[name])
