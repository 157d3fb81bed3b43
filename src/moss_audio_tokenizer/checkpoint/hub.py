"""Finding a checkpoint by what a user calls it."""

from pathlib import Path
from typing import Any

from ..errors import CheckpointError, MissingDependencyError
from ..onnx.folder import BUNDLED


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
        raise CheckpointError(f"{str(name)[:80]!r} is no usable path ({error})") from error
    if Path(name).exists() or str(name).startswith((".", "/", "~")):
        raise CheckpointError(
            f"{str(name)!r} is no folder; expected a model folder, a hub id, or 'bundled'"
        )
    return _from_hub(str(name), hub)


def _from_hub(name: str, hub: dict[str, Any]) -> Path:
    # Here, so that folders can be read where PyTorch's companions are not installed.
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError
    except ImportError as error:
        raise MissingDependencyError(
            f"{name!r} is no folder; to ask the hub for it needs huggingface_hub: "
            "pip install 'moss-audio-tokenizer[torch]'"
        ) from error
    try:
        return Path(snapshot_download(name, allow_patterns=["*.json", "*.safetensors"], **hub))
    except (OSError, HfHubHTTPError, HFValidationError) as error:
        raise CheckpointError(
            f"{name!r} is neither a folder nor to be had from the hub "
            f"({str(error).splitlines()[0]})"
        ) from error
