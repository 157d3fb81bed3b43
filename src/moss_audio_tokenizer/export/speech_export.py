"""Folders of CAT-TTS and CAT-ASR that run without PyTorch: weights, text tokens and ONNX graphs.

Owns the types that weights are stored in; the graphs are `export.speech_graphs`.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from safetensors.numpy import save_file

from ..checkpoint.key_names import SCALES_SUFFIX
from ..checkpoint.stored_weights import CONFIG_NAME, WEIGHTS_NAME, read_header, with_scales
from ..errors import CheckpointError, InputError
from ..files import atomic_path
from ..speech.model_facts import graphs_of
from ..speech.phonemes import LEXICON_NAME
from ..speech.tokens import TEXT_NAME, TOKENIZER_FOLDER
from ..speech.word_language_model import WORD_LM_NAME
from .precision import as_float16
from .speech_graphs import speech_graphs

WEIGHT_TYPES = ("float32", "float16", "int8")
# Shorter rows stay in float32: the scale of a row in 8 bits takes 4 bytes itself.
_SHORTEST_ROW = 8
# Files beside the weights that only some models have.
_EXTRAS = (LEXICON_NAME, WORD_LM_NAME)


def export_speech(
    model: str | Path, output: str | Path, weights: str = "float32"
) -> dict[str, Any]:
    """Export a folder of CAT-TTS or CAT-ASR; returns what was written.

    Args:
        model: folder of the model.
        output: new folder; or the model's own, which gets the graphs alone.
        weights: type to store matrices in: "float32", "float16", or "int8" with a factor for each
            row. Norms, biases and short rows are stored in float32. Models compute in float32.

    Raises:
        CheckpointError: the model cannot be read or written, or float16 cannot hold its weights.
        InputError: its language model or the type of weights is not supported.
    """
    source, output = Path(model), Path(output)
    if weights not in WEIGHT_TYPES:
        raise InputError(f"no weights of type {weights!r}; expected {', '.join(WEIGHT_TYPES)}")
    config = json.loads((source / CONFIG_NAME).read_text(encoding="utf-8"))
    if output.exists() and output.resolve() == source.resolve():
        if weights != "float32":
            raise InputError(f"{output} keeps its weights; name a new folder for {weights}")
        _write_graphs(config, output)
    else:
        with atomic_path(output, error=CheckpointError, replace_folder=False) as folder:
            folder.mkdir(exist_ok=True)
            _write_weights(source / WEIGHTS_NAME, folder / WEIGHTS_NAME, weights)
            _write_graphs(config, folder)
            _copy_settings(source, folder)
    files = {path.name: path.stat().st_size for path in sorted(output.iterdir()) if path.is_file()}
    kind = config["model_type"]
    return {"kind": kind, "weights": weights, "graphs": list(graphs_of(config)), "bytes": files}


def _copy_settings(source: Path, folder: Path) -> None:
    for name in (CONFIG_NAME, TEXT_NAME):
        shutil.copyfile(source / name, folder / name)
    for name in _EXTRAS:
        if (source / name).is_file():
            shutil.copyfile(source / name, folder / name)
    if (source / TOKENIZER_FOLDER).is_dir():
        shutil.copytree(source / TOKENIZER_FOLDER, folder / TOKENIZER_FOLDER)


def _write_graphs(config: dict[str, Any], folder: Path) -> None:
    tensors = with_scales(read_header(folder / WEIGHTS_NAME))
    for name, graph in speech_graphs(config, tensors).items():
        with atomic_path(folder / name, error=CheckpointError) as beside:
            onnx.save(graph, str(beside))


def _write_weights(source: Path, target: Path, kind: str) -> None:
    stored: dict[str, np.ndarray] = {}
    for name, tensor in with_scales(read_header(source)).items():
        stored |= _converted(name, tensor.read().astype(np.float32, copy=False), kind)
    save_file(stored, target, {"format": "pt"})
    target.chmod(0o644)  # safetensors leaves files that only their owner may read


def _converted(name: str, values: np.ndarray, kind: str) -> dict[str, np.ndarray]:
    """A tensor in another type: under its own name, in 8 bits with its scales under another."""
    if kind == "float32" or values.ndim < 2 or values.shape[-1] < _SHORTEST_ROW:
        return {name: values}
    if kind == "float16":
        return {name: as_float16(name, values)}
    scales = np.abs(values).max(-1) / np.float32(127)
    steps = np.where(scales > 0, scales, np.float32(1))
    return {
        name: np.rint(values / steps[..., None]).astype(np.int8),
        name + SCALES_SUFFIX: scales,
    }
