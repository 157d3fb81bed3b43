"""Graphs for whole clips as public ONNX repositories of this codec have them.

Owns two contracts: names, ranks and types of what the graphs take and give. The arithmetic is
that of every export; what differs stands in a table.

- "whole-clip", as MossAudioTokenizer-ONNX has it (read at commit 0e1739b, February 2026): codes
  go out as int64 and come in as int32, mono audio comes out as (batch, samples).
- "n-quantizers", as the onnx folder of OpenMOSS/MOSS-Audio-Tokenizer has it (read at commit
  56df9ee, May 2026): codes are int64, both graphs take a scalar ``n_quantizers``, and lengths come
  out of both.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto

from .. import __version__
from ..checkpoint.stored_weights import CONFIG_NAME, StoredWeights
from ..errors import CheckpointError
from ..files import atomic_path
from ..graphs.graph import Graph, value_info
from ..graphs.onnx_models import CodecWriter, Values, finish_model, write_whole_clip
from ..onnx.folder import folder_path
from ..onnx.graph_pair import GraphPair
from .precision import probe, require_pytorch_results, write_weights

_TYPES = {
    ("whole-clip", "encoder"): "int64",
    ("whole-clip", "decoder"): "int32",
    ("n-quantizers", "encoder"): "int64",
    ("n-quantizers", "decoder"): "int64",
}


def export_whole_clip(
    model: str | Path,
    output: str | Path,
    contract: str = "whole-clip",
    encoder: str = "stored",
    decoder: str = "stored",
    clips: Sequence[np.ndarray] = (),
) -> dict[str, Any]:
    """Write encoder.onnx and decoder.onnx with their weights; returns what they take and give.

    Args:
        model: a folder with config.json and safetensors, or "bundled".
        output: a folder that is not there yet.
        contract: "whole-clip" or "n-quantizers".
        encoder: precision of its weights, one of `precision.PRECISIONS`.
        decoder: likewise.
        clips: to compare with PyTorch on, where that is installed (default: a synthetic one).

    Raises:
        CheckpointError: the model cannot be read, the folder not written, or graphs and model
            disagree.
        ConfigError: a precision, or the configuration.
    """
    weights = StoredWeights(folder_path(model))
    with atomic_path(Path(output), error=CheckpointError, replace_folder=False) as folder:
        folder.mkdir()
        shutil.copyfile(weights.folder / CONFIG_NAME, folder / CONFIG_NAME)
        written = write_weights(weights, folder, {"encoder": encoder, "decoder": decoder})
        for side in ("encoder", "decoder"):
            path = folder / f"{side}.onnx"
            onnx.save(build_whole_clip(written, side, contract), path)
            onnx.checker.check_model(str(path), full_check=True)
        if encoder == decoder == "stored":
            pair = GraphPair(folder / "encoder.onnx", folder / "decoder.onnx", use_gpu=False)
            clips = list(clips) or [probe(weights.config)]
            export: Any = _PairCodec(pair)
            require_pytorch_results(weights.folder, export, clips)
    files = sorted(path.name for path in Path(output).iterdir())
    return {"contract": contract, "files": files}


def build_whole_clip(weights: StoredWeights, side: str, contract: str) -> ModelProto:
    """The graph of the encoder or the decoder, whose weights stay in their files."""
    graph = Graph()
    writer = CodecWriter(weights, side, _TYPES[contract, side])
    write = _write_encoder if side == "encoder" else _write_decoder
    values = write(graph, writer, contract == "n-quantizers")
    return finish_model(graph, side, values, ("moss-audio-tokenizer", __version__))


def _write_encoder(graph: Graph, writer: CodecWriter, counted: bool) -> tuple[Values, Values]:
    given = writer.given
    (codes, hidden), frames = write_whole_clip(graph, writer, given[0])
    if counted:
        codes = graph.op("Mul", codes, graph.cast(_present(graph, writer), "int64"))
    lengths = graph.op("Expand", frames, graph.size(given[0], 0))
    shapes = dict(zip(("audio_codes", "encoder_hidden_states"), writer.results, strict=True))
    found = {
        "audio_codes": (codes, *shapes["audio_codes"][1:]),
        "audio_codes_lengths": (lengths, "int64", ["batch"]),
    }
    if not counted:
        found["encoder_hidden_states"] = (hidden, *shapes["encoder_hidden_states"][1:])
    return _inputs(given, counted), _outputs(graph, found)


def _write_decoder(graph: Graph, writer: CodecWriter, counted: bool) -> tuple[Values, Values]:
    given = writer.given
    codes = given[0]
    if counted:  # -1 stands for a layer that is not there
        layers = graph.range(graph.size(codes, 0))
        column = graph.op("Reshape", layers, graph.ints(-1, 1, 1))
        present = graph.op("Less", column, "n_quantizers")
        codes = graph.op("Where", present, codes, graph.constant(-1, "int64"))
    (audio,), frames = write_whole_clip(graph, writer, codes)
    _, kind, axes = writer.results[0]
    if counted:
        samples = graph.op("Mul", frames, graph.ints(writer.config.downsample_rate))
        lengths = graph.op("Expand", samples, graph.size(given[0], 1))
        found = {"audio": (audio, kind, axes), "audio_lengths": (lengths, "int64", ["batch"])}
    elif writer.config.number_channels == 1:
        flat = graph.op("Squeeze", audio, graph.ints(1))
        found = {"audio": (flat, kind, ["batch", "samples"])}
    else:
        found = {"audio": (audio, kind, axes)}
    return _inputs(given, counted), _outputs(graph, found)


def _present(graph: Graph, writer: CodecWriter) -> str:
    """Which layers are wanted: (num_quantizers, 1, 1)."""
    layers = np.arange(writer.config.quantizer.num_quantizers).reshape(-1, 1, 1)
    return graph.op("Less", graph.constant(layers, "int64"), "n_quantizers")


def _inputs(given: Any, counted: bool) -> Values:
    return [value_info(*given), *([value_info("n_quantizers", "int64", [])] if counted else [])]


def _outputs(graph: Graph, found: dict[str, Any]) -> Values:
    """Give results their names."""
    for name, (value, _, _) in found.items():
        graph.op("Identity", value, outputs=[name])
    return [value_info(name, kind, axes) for name, (_, kind, axes) in found.items()]


class _PairCodec:
    """A pair of graphs as `precision.compare` calls it."""

    def __init__(self, pair: GraphPair) -> None:
        self._pair = pair

    def encode(self, audio: np.ndarray) -> np.ndarray:
        """Codes (num_quantizers, frames) of a clip."""
        return self._pair.encode(audio).T

    def decode(self, codes: np.ndarray) -> np.ndarray:
        """Audio (channels, samples) of codes."""
        audio = self._pair.decode(codes.T)
        return audio[None] if audio.ndim == 1 else audio
