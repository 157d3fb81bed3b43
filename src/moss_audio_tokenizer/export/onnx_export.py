"""Writing an export: weights, graphs and the manifest, checked before anyone sees them."""

import json
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto

from .. import __version__
from ..checkpoint.key_names import codes_identity
from ..checkpoint.stored_weights import CONFIG_NAME, StoredWeights
from ..config import released_from_codec_config
from ..errors import CheckpointError, InputError
from ..files import atomic_path, hash_file
from ..graphs.graph import OPSET, TYPES
from ..graphs.onnx_models import build_model
from ..onnx.folder import folder_path
from ..onnx.manifest import CODES_TYPES, FORMAT, GRAPHS, MANIFEST_NAME, sealed
from ..onnx.tokenizer import OnnxCodec
from .precision import Distance, compare, probe, require_pytorch_results, write_weights

PRODUCER = "moss-audio-tokenizer"
_MOST_CHANGED_CODES = 0.01


def export_onnx(
    model: str | Path,
    output: str | Path,
    encoder: str = "stored",
    decoder: str = "stored",
    codes_type: str = "int32",
    clips: Sequence[np.ndarray] = (),
    force: bool = False,
) -> dict[str, Any]:
    """Export a model folder (or "bundled") to ONNX; returns the manifest.

    Args:
        model: a folder with config.json and safetensors.
        output: a folder that is empty or not there yet; or the model's own, which gets the graphs.
        encoder: precision of its weights, one of `precision.PRECISIONS`.
        decoder: likewise.
        codes_type: "int32" or "int64".
        clips: to compare on, at the model's rate and channels (default: a synthetic one).
        force: keep what changes more than 1% of the codes.

    Raises:
        CheckpointError: the model cannot be read, the folder not written, or graphs and model
            disagree.
        ConfigError: a precision or a configuration.
        InputError: more than 1% of the codes would change, or the codes' type.
    """
    if codes_type not in CODES_TYPES:
        raise InputError(f"codes_type is {codes_type!r}; expected int32 or int64")
    weights = StoredWeights(folder_path(model))
    if weights.in_8_bits and Path(output).resolve() == weights.folder.resolve():
        raise InputError(
            f"{output} holds weights in 8 bits by rows, which graphs do not read; "
            "export to another folder"
        )
    precisions = {"encoder": encoder, "decoder": decoder}
    clips = list(clips) or [probe(weights.config)]
    with _target(weights.folder, Path(output)) as folder:
        checks = _write_checked(weights, folder, precisions, codes_type, clips, force)
        manifest = sealed(_read_manifest(folder) | {"checks": checks})
        _write_manifest(folder, manifest)
    return manifest


def _write_checked(
    weights: StoredWeights,
    folder: Path,
    precisions: dict[str, str],
    codes_type: str,
    clips: Sequence[np.ndarray],
    force: bool,
) -> dict[str, Any]:
    """Write everything into an empty folder; returns what was found out about it."""
    write_folder(weights, folder, precisions, codes_type)
    stored, opened = {"encoder": "stored", "decoder": "stored"}, OnnxCodec.from_pretrained
    if precisions == stored:
        return {"pytorch": require_pytorch_results(weights.folder, opened(folder), clips)}
    with tempfile.TemporaryDirectory(dir=folder.parent) as plain:
        write_folder(weights, Path(plain), stored, codes_type)
        exact = require_pytorch_results(weights.folder, opened(plain), clips)
        distance = compare(opened(plain), opened(folder), clips)
    _check_precision(distance, force)
    return {"pytorch": exact, "precision": asdict(distance)}


def write_folder(
    weights: StoredWeights, folder: Path, precisions: dict[str, str], codes_type: str
) -> None:
    """Weights, graphs and manifest, the graphs checked by onnx itself."""
    shutil.copyfile(weights.folder / CONFIG_NAME, folder / CONFIG_NAME)
    written = write_weights(weights, folder, precisions)
    models = {}
    for name in GRAPHS:
        model = build_model(written, name, codes_type, (PRODUCER, __version__))
        models[name] = model
        path = folder / f"{name}.onnx"
        onnx.save(model, path)
        onnx.checker.check_model(str(path), full_check=True)
    _write_manifest(folder, _manifest(written, models, precisions, codes_type))


def _manifest(
    weights: StoredWeights,
    models: dict[str, ModelProto],
    precisions: dict[str, str],
    codes_type: str,
) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "producer": f"{PRODUCER} {__version__}",
        "opset": OPSET,
        "identity": codes_identity(weights.config, lambda name: weights.tensor(name).read()),
        "codes_type": codes_type,
        "precision": precisions,
        "config": released_from_codec_config(weights.config),
        "weights": {file.name: _file_facts(file) for file in weights.files},
        "graphs": {
            name: {"file": f"{name}.onnx"}
            | _file_facts(weights.folder / f"{name}.onnx")
            | _graph_facts(model)
            for name, model in models.items()
        },
    }


def _file_facts(path: Path) -> dict[str, Any]:
    return {"bytes": path.stat().st_size, "sha256": hash_file(path)}


def _graph_facts(model: ModelProto) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "inputs": [_value_facts(value) for value in model.graph.input],
        "outputs": [_value_facts(value) for value in model.graph.output],
    }
    for entry in model.metadata_props:
        facts[entry.key] = json.loads(entry.value)
    return facts


def _value_facts(value: onnx.ValueInfoProto) -> dict[str, Any]:
    tensor = value.type.tensor_type
    names = {int(number): name for name, number in TYPES.items()}
    shape = [axis.dim_param or axis.dim_value for axis in tensor.shape.dim]
    return {"name": value.name, "type": names[tensor.elem_type], "shape": shape}


def _check_precision(distance: Distance, force: bool) -> None:
    if distance.codes_changed > _MOST_CHANGED_CODES and not force:
        raise InputError(
            f"in this precision {distance.codes_changed:.1%} of the codes change, more than "
            f"{_MOST_CHANGED_CODES:.0%}; keep the encoder in float, or force it"
        )


@contextmanager
def _target(model: Path, output: Path) -> Iterator[Path]:
    """An empty folder that becomes ``output``, or whose graphs are moved into the model's own."""
    if output.exists() and output.resolve() == model.resolve():
        with tempfile.TemporaryDirectory(prefix="moss-audio-") as folder:
            yield Path(folder)
            for path in [*Path(folder).glob("*.onnx"), Path(folder) / MANIFEST_NAME]:
                with atomic_path(output / path.name, error=CheckpointError) as beside:
                    shutil.copyfile(path, beside)
        return
    with atomic_path(output, error=CheckpointError, replace_folder=False) as folder:
        folder.mkdir()
        yield folder


def _read_manifest(folder: Path) -> dict[str, Any]:
    return json.loads((folder / MANIFEST_NAME).read_text(encoding="utf-8"))


def _write_manifest(folder: Path, manifest: dict[str, Any]) -> None:
    text = json.dumps(sealed(manifest), indent=1) + "\n"
    (folder / MANIFEST_NAME).write_text(text, encoding="utf-8")
