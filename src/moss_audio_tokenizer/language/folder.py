"""Folders of the models on codes: config.json, model.safetensors and the tokens of texts.

Owns saving and loading; what is in a model is the model's.
"""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import PreTrainedModel

from ..codes.codec import CodecInfo
from ..errors import CheckpointError, ConfigError, ModelMismatchError
from ..files import atomic_path
from ..model.hub import find_checkpoint
from .text import TextCodec, load_text, save_text

WEIGHTS_NAME = "model.safetensors"
CONFIG_NAME = "config.json"


class FolderModel(PreTrainedModel):
    """A model of transformers with the tokens of its texts, saved and loaded as one folder.

    Attributes:
        text: tokens of texts; the constructor of a model takes configuration and text.
    """

    text: TextCodec

    def _init_weights(self, module: nn.Module) -> None:
        """Constructors have done it."""

    @classmethod
    def from_pretrained(cls, path: str | Path, **options: Any) -> Any:  # type: ignore[override]
        """Load a folder that `save_pretrained` or ``moss-audio train`` wrote, or a hub id.

        Raises:
            CheckpointError: there is none, or it is damaged.
        """
        return load_model_folder(cls, path, **options)

    def save_pretrained(self, path: str | Path, **_: Any) -> None:  # type: ignore[override]
        """Write config.json, the weights and the tokens of texts."""
        save_model_folder(self, Path(path))


def check_codec(config: Any, info: CodecInfo) -> None:
    """Refuse a codec whose codes a model does not know.

    Args:
        config: of the model, with ``codec``, the identity of its own codec, and ``codebook_size``.
        info: of the codec that it is to work with.

    Raises:
        ModelMismatchError: see above.
    """
    if config.codec and config.codec != info.identity:
        raise ModelMismatchError(
            f"the model knows codes of the codec {config.codec}, and this one is {info.identity}; "
            "name the codec that it was trained on"
        )
    if info.codebook_size != config.codebook_size:
        raise ModelMismatchError(
            f"the model knows codes of {config.codebook_size} rows, and the codec has "
            f"{info.codebook_size}; name the codec that it was trained on"
        )


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


def load_model_folder(kind: type[FolderModel], path: str | Path, **options: Any) -> FolderModel:
    """A model from its folder or hub id, ready to use.

    Args:
        kind: of the model.
        path: folder or hub id.
        options: of the hub, such as ``revision``.

    Raises:
        CheckpointError: nothing usable is there, or its tensors do not fit.
    """
    folder = Path(find_checkpoint(path, options))
    config = _config(folder, kind.config_class)
    text = load_text(folder)
    try:
        tensors = load_file(folder / WEIGHTS_NAME)
        # Without memory first: a config.json may ask for more than there is.
        with torch.device("meta"):
            _check_fit(kind(config, text), tensors, folder)
        model = kind(config, text)
    except CheckpointError:
        raise
    # Whatever a foreign model's constructor raises about values from a file.
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
    """Hold a file's tensors against those of the model: names, shapes, and finite numbers."""
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
