"""Folders of CAT-TTS and CAT-ASR that run without PyTorch: weights, text tokens and ONNX graphs.

Owns the types that weights are stored in, which graphs there are, and what they take and give;
their layers are `speech_layers`. Embeddings, output layers and the loop are NumPy
(`speech.onnx_speech`).
"""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto
from safetensors.numpy import save_file

from .. import __version__
from ..checkpoint.key_names import SCALES_SUFFIX
from ..checkpoint.stored_weights import (
    CONFIG_NAME,
    WEIGHTS_NAME,
    StoredTensor,
    read_header,
    with_scales,
)
from ..errors import CheckpointError, InputError
from ..files import atomic_path
from ..graphs.graph import Graph, value_info
from ..graphs.onnx_models import finish_model
from ..speech.model_facts import graphs_of
from ..speech.phonemes import LEXICON_NAME
from ..speech.tokens import TEXT_NAME, TOKENIZER_FOLDER
from ..speech.word_language_model import WORD_LM_NAME
from .precision import as_float16
from .speech_layers import EncoderWriter, Sizes, TransformerWriter

WEIGHT_TYPES = ("float32", "float16", "int8")
# Shorter rows stay in float32: the scale of a row in 8 bits takes 4 bytes itself.
_SHORTEST_ROW = 8
# The prefix of the decoder-only model's weights.
_PREFIXES = {"cat-tts": "temporal.", "cat-asr": "language_model.model."}
_LANGUAGE_MODELS = ("qwen2", "qwen3", "llama")
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


def speech_graphs(
    config: dict[str, Any], tensors: dict[str, StoredTensor]
) -> dict[str, ModelProto]:
    """The graphs of CAT-TTS or CAT-ASR, by file name.

    ``temporal.onnx`` is a step of the decoder-only model of either (without its embeddings and
    output layer), ``depth.onnx`` of the depth Transformer of CAT-TTS, both with their KV cache; a
    CAT-ASR with an encoder has ``frames.onnx`` instead, and a CAT-TTS with a text encoder
    ``text.onnx`` besides, which take whole clips without padding.

    Args:
        config: the model's config.json.
        tensors: its weights by name, in the file that the graphs will point to.

    Raises:
        CheckpointError: a weight is missing.
        InputError: its language model is of a kind that is not supported.
    """
    kind = config["model_type"]
    if kind == "cat-asr" and config.get("encoder_layers"):
        return {"frames.onnx": _frames_graph(config, tensors)}
    built = {"temporal.onnx": _temporal(config["text_config"], tensors, _PREFIXES[kind])}
    if kind == "cat-tts":
        built["depth.onnx"] = _depth(config, tensors)
        if config.get("text_encoder_layers"):
            built["text.onnx"] = _text_graph(config, tensors)
    return built


def _temporal(config: dict[str, Any], tensors: dict[str, StoredTensor], prefix: str) -> ModelProto:
    sizes = _temporal_sizes(config)
    graph = Graph()
    writer = TransformerWriter(graph, tensors, sizes)
    x = writer.blocks("embeds", f"{prefix}layers")
    graph.op("Identity", writer.norm(x, f"{prefix}norm"), outputs=["hidden"])
    rotations: list[int | str] = ["batch", "steps", sizes.head_dim]
    inputs = [
        value_info("mask", "float32", ["batch", "steps", "total"]),
        value_info("cosine", "float32", rotations),
        value_info("sine", "float32", rotations),
    ]
    return _model(graph, "temporal", sizes, sizes.width, inputs, sizes.width)


def _temporal_sizes(config: dict[str, Any]) -> Sizes:
    """Sizes of the decoder-only model.

    Raises:
        InputError: its kind, rotary encoding or attention window is not supported.
    """
    kind, rotary = config.get("model_type"), config.get("rope_parameters") or {}
    windowed = "sliding_attention" in (config.get("layer_types") or ())
    if kind not in _LANGUAGE_MODELS or rotary.get("rope_type", "default") != "default" or windowed:
        raise InputError(
            f"the language model is {kind!r}; expected {', '.join(_LANGUAGE_MODELS)}, with full "
            "attention and plain rotary positions"
        )
    width, heads = config["hidden_size"], config["num_attention_heads"]
    return Sizes(
        width,
        heads,
        config["num_key_value_heads"],
        config.get("head_dim") or width // heads,
        config["num_hidden_layers"],
        float(config["rms_norm_eps"]),
        True,
    )


def _depth(config: dict[str, Any], tensors: dict[str, StoredTensor]) -> ModelProto:
    graph = Graph()
    sizes = Sizes(
        config["depth_width"],
        config["depth_heads"],
        config["depth_key_value_heads"],
        config["depth_head_dim"],
        config["depth_layers"],
        float(np.finfo(np.float32).eps),
        False,
    )
    writer, x = TransformerWriter(graph, tensors, sizes), "embeds"
    entrance = "depth.entrance"
    if f"{entrance}.entrance.weight" in tensors:
        x = writer.gated(x, (f"{entrance}.entrance",), f"{entrance}.exit")
    else:
        x = writer.linear(x, f"{entrance}.exit")
    graph.op("Identity", writer.blocks(x, "depth.blocks"), outputs=["hidden"])
    return _model(graph, "depth", sizes, tensors["signs"].shape[1], [], sizes.width)


def _model(
    graph: Graph, name: str, sizes: Sizes, width: int, inputs: list[Any], outputs: int
) -> ModelProto:
    """The finished graph, with the KV cache as inputs and outputs."""
    given = [value_info("embeds", "float32", ["batch", "steps", width]), *inputs]
    results = [value_info("hidden", "float32", ["batch", "steps", outputs])]
    for layer in range(sizes.num_layers):
        for kind in ("key", "value"):
            shape: list[int | str] = ["batch", sizes.num_pairs, "past", sizes.head_dim]
            given.append(value_info(f"past.{layer}.{kind}", "float32", shape))
            shape = ["batch", sizes.num_pairs, "total", sizes.head_dim]
            results.append(value_info(f"present.{layer}.{kind}", "float32", shape))
    return finish_model(graph, name, (given, results), ("moss-audio-tokenizer", __version__))


def _frames_graph(config: dict[str, Any], tensors: dict[str, StoredTensor]) -> ModelProto:
    """Frames of codes, embedded, to the states that CAT-ASR's letters are read from."""
    graph = Graph()
    writer = EncoderWriter(graph, tensors, "embeds")
    x = writer.norm("embeds", "frame_encoder.input_norm")
    x = writer.write(x, "frame_encoder.encoder", config["encoder_layers"])
    return _finished(graph, x, "frames", config["encoder_width"])


def _text_graph(config: dict[str, Any], tensors: dict[str, StoredTensor]) -> ModelProto:
    """Phonemes, embedded, to the states that CAT-TTS takes durations and conditions from."""
    graph = Graph()
    writer = EncoderWriter(graph, tensors, "embeds")
    x = writer.write("embeds", "text_encoder.encoder", config["text_encoder_layers"])
    return _finished(graph, x, "text", config["text_config"]["hidden_size"])


def _finished(graph: Graph, x: str, name: str, width: int) -> ModelProto:
    graph.op("Identity", x, outputs=["hidden"])
    shape: list[int | str] = ["batch", "steps", width]
    given = [value_info("embeds", "float32", shape)]
    results = [value_info("hidden", "float32", shape)]
    return finish_model(graph, name, (given, results), ("moss-audio-tokenizer", __version__))
