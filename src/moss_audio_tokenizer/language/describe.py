"""What a folder of CAT-ASR or CAT-TTS holds, as plain values; tensors are counted, not read."""

import json
from math import prod
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from ..errors import CheckpointError
from .folder import CONFIG_NAME, WEIGHTS_NAME

_KINDS = {"cat-asr": "speech to text", "cat-tts": "text to speech"}
_FACTS = ("num_quantizers", "codebook_size", "code_rank")


def describe_language_folder(folder: Path) -> dict[str, Any]:
    """Kind, sizes and parts of such a folder.

    Raises:
        CheckpointError: its weights cannot be read.
    """
    values = json.loads((folder / CONFIG_NAME).read_text(encoding="utf-8"))
    parts: dict[str, int] = {}
    try:
        with safe_open(folder / WEIGHTS_NAME, framework="np") as tensors:
            for name in tensors.keys():  # noqa: SIM118 - no mapping
                part = name.split(".")[0]
                size = prod(tensors.get_slice(name).get_shape())
                parts[part] = parts.get(part, 0) + size
    except (OSError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{folder / WEIGHTS_NAME} cannot be read ({reason})") from error
    return {
        "model": str(folder),
        "kind": _KINDS[values["model_type"]],
        "parameters": {"total": sum(parts.values())} | parts,
        "language_model": (values.get("text_config") or {}).get("model_type"),
        **{name: values.get(name) for name in _FACTS},
        "codec_identity": values.get("codec") or None,
    }
