"""Folders of CAT-TTS and CAT-ASR: where they come from, and what one holds."""

import json
from math import prod
from pathlib import Path
from typing import Any

from ..checkpoint.hub import find_checkpoint
from ..checkpoint.stored_weights import CONFIG_NAME, WEIGHTS_NAME, read_header, with_scales
from ..errors import CheckpointError

# Folders "tts" and "asr" in it, each with exported graphs, where a release ships them.
BUNDLED_SPEECH = Path(__file__).parent.parent / "bundled_speech"
_KINDS = {"tts": "text to speech", "asr": "speech to text"}
# The graphs of an export, by the kind in config.json.
GRAPHS = {"cat-tts": ("temporal.onnx", "depth.onnx"), "cat-asr": ("temporal.onnx",)}
_FACTS = ("num_quantizers", "codebook_size", "code_rank")


def is_installed(kind: str) -> bool:
    """Whether a model of a kind, "tts" or "asr", is installed with the package."""
    return (BUNDLED_SPEECH / kind / "config.json").is_file()


def find_speech_model(kind: str, name: str) -> Path:
    """The folder of a speech model.

    Args:
        kind: "tts" or "asr".
        name: folder, hub id, or "bundled" for the installed one.

    Raises:
        CheckpointError: there is no such model.
        MissingDependencyError: the hub's library is not installed.
    """
    if name != "bundled":
        return find_checkpoint(name, {})
    if not is_installed(kind):
        raise CheckpointError(
            f"no model for {_KINDS[kind]} is installed; train one with moss-audio train "
            f"{kind}_tiny (docs/speech.md) and name its folder with --model"
        )
    return BUNDLED_SPEECH / kind


def is_speech_model(folder: str | Path) -> bool:
    """Whether a folder holds CAT-TTS or CAT-ASR."""
    try:
        values = json.loads((Path(folder) / CONFIG_NAME).read_text(encoding="utf-8"))
        return isinstance(values, dict) and values.get("model_type") in GRAPHS
    except (OSError, ValueError, RecursionError):
        return False


def is_exported_speech(folder: str | Path) -> bool:
    """Whether a folder holds a speech model with its graphs."""
    return (Path(folder) / "temporal.onnx").is_file()


def describe_speech_model(folder: Path) -> dict[str, Any]:
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
        "kind": _KINDS[values["model_type"].removeprefix("cat-")],
        "parameters": {"total": sum(parts.values())} | parts,
        "language_model": (values.get("text_config") or {}).get("model_type"),
        **{name: values.get(name) for name in _FACTS},
        "codec_identity": values.get("codec") or None,
    }
