"""ONNX graphs of bidirectional encoders: ``frames.onnx`` of CAT-ASR, ``text.onnx`` of CAT-TTS.

Takes whole clips without padding. Weights stay in model.safetensors.
"""

from typing import Any

import numpy as np
from onnx import ModelProto

from .. import __version__
from ..checkpoint.stored_weights import StoredTensor
from ..errors import CheckpointError
from ..graphs.graph import Graph, value_info
from ..graphs.onnx_models import finish_model

# As in `llm.bidirectional`, which needs PyTorch.
_HEAD_DIM, _ROTARY_BASE = 64, 10_000.0


class EncoderWriter:
    """Writes a bidirectional encoder into a graph.

    Args:
        graph: graph to write to.
        tensors: weights by name.
        steps: name of the input of shape (batch, steps, width) whose steps are encoded.
    """

    def __init__(self, graph: Graph, tensors: dict[str, StoredTensor], steps: str) -> None:
        self._graph, self._tensors = graph, tensors
        self._batch = graph.size(steps, 0)
        self._rotations = self._angles(graph.size(steps, 1))

    def write(self, x: str, prefix: str, num_layers: int) -> str:
        """All blocks and the last norm: (batch, steps, width) to the same."""
        for layer in range(num_layers):
            x = self._block(x, f"{prefix}.blocks.{layer}")
        return self.norm(x, f"{prefix}.norm")

    def norm(self, x: str, name: str) -> str:
        """Layer norm over the last axis."""
        weights = (self._weight(f"{name}.{part}") for part in ("weight", "bias"))
        normed: str = self._graph.op("LayerNormalization", x, *weights, axis=-1, epsilon=1e-5)
        return normed

    def _block(self, x: str, prefix: str) -> str:
        graph = self._graph
        normed = self.norm(x, f"{prefix}.attention_norm")
        x = graph.op("Add", x, self._attend(normed, prefix))
        normed = self.norm(x, f"{prefix}.convolution_norm")
        x = graph.op("Add", x, self._convolve(normed, prefix))
        normed = self.norm(x, f"{prefix}.feedforward_norm")
        inner = self._silu(self._linear(normed, f"{prefix}.feedforward_in"))
        return str(graph.op("Add", x, self._linear(inner, f"{prefix}.feedforward_out")))

    def _attend(self, x: str, prefix: str) -> str:
        graph = self._graph
        name = f"{prefix}.attention_in"
        heads = self._shape(f"{name}.weight")[1] // _HEAD_DIM
        split = graph.op("Concat", self._batch, graph.ints(-1, 3 * heads, _HEAD_DIM), axis=0)
        parts = graph.op("Reshape", self._linear(x, name), split)
        parts = graph.op("Transpose", parts, perm=[0, 2, 1, 3])
        turning, values = graph.op("Split", parts, graph.ints(2 * heads, heads), axis=1, outputs=2)
        turned = graph.op("Split", self._rotated(turning), axis=1, num_outputs=2, outputs=2)
        queries, keys = turned
        scores = graph.op("MatMul", queries, graph.op("Transpose", keys, perm=[0, 1, 3, 2]))
        scores = graph.op("Mul", scores, graph.constant(_HEAD_DIM**-0.5, "float32"))
        attended = graph.op("MatMul", graph.op("Softmax", scores, axis=-1), values)
        attended = graph.op("Transpose", attended, perm=[0, 2, 1, 3])
        joined = graph.op("Concat", self._batch, graph.ints(-1, heads * _HEAD_DIM), axis=0)
        attended = graph.op("Reshape", attended, joined)
        return self._linear(attended, f"{prefix}.attention_out")

    def _convolve(self, x: str, prefix: str) -> str:
        graph = self._graph
        value, gate = graph.op(
            "Split",
            self._linear(x, f"{prefix}.convolution_in"),
            axis=-1,
            num_outputs=2,
            outputs=2,
        )
        gated = graph.op("Mul", value, graph.op("Sigmoid", gate))
        weights = [self._weight(f"{prefix}.convolution.{part}") for part in ("weight", "bias")]
        width, _, kernel = self._shape(f"{prefix}.convolution.weight")
        channels = graph.op("Transpose", gated, perm=[0, 2, 1])
        mixed = graph.op("Conv", channels, *weights, group=width, pads=[kernel // 2] * 2)
        mixed = self._silu(graph.op("Transpose", mixed, perm=[0, 2, 1]))
        return self._linear(mixed, f"{prefix}.convolution_out")

    def _rotated(self, heads: str) -> str:
        graph, (cosine, sine) = self._graph, self._rotations
        left, right = graph.op("Split", heads, axis=3, num_outputs=2, outputs=2)
        swapped = graph.op("Concat", graph.op("Neg", right), left, axis=3)
        first = graph.op("Mul", heads, cosine)
        return str(graph.op("Add", first, graph.op("Mul", swapped, sine)))

    def _angles(self, count: str) -> tuple[str, str]:
        """Cosines and sines of rotary positions, (steps, head_dim) each."""
        graph, half = self._graph, _HEAD_DIM // 2
        rates = np.tile(_ROTARY_BASE ** (-np.arange(half, dtype=np.float32) / half), 2)
        steps = graph.cast(graph.op("Unsqueeze", graph.range(count), graph.ints(1)), "float32")
        angles = graph.op("Mul", steps, graph.constant(rates, "float32"))
        return graph.op("Cos", angles), graph.op("Sin", angles)

    def _silu(self, x: str) -> str:
        return str(self._graph.op("Mul", x, self._graph.op("Sigmoid", x)))

    def _linear(self, x: str, name: str) -> str:
        weight = self._graph.fold("Transpose", self._weight(f"{name}.weight"), perm=[1, 0])
        product = self._graph.op("MatMul", x, weight)
        return str(self._graph.op("Add", product, self._weight(f"{name}.bias")))

    def _shape(self, name: str) -> tuple[int, ...]:
        self._weight(name)
        return self._tensors[name].shape

    def _weight(self, name: str) -> str:
        if name not in self._tensors:
            raise CheckpointError(f"the model has no tensor {name!r}; its config.json does not fit")
        return self._graph.stored_float32(name, self._tensors[name])


def frames_graph(config: dict[str, Any], tensors: dict[str, StoredTensor]) -> ModelProto:
    """Frames of codes, embedded, to the states that CAT-ASR's letters are read from.

    Args:
        config: the model's config.json.
        tensors: its weights by name.

    Raises:
        CheckpointError: a weight is missing.
    """
    graph = Graph()
    writer = EncoderWriter(graph, tensors, "embeds")
    x = writer.norm("embeds", "frame_encoder.input_norm")
    x = writer.write(x, "frame_encoder.encoder", config["encoder_layers"])
    return _finished(graph, x, "frames", config["encoder_width"])


def text_graph(config: dict[str, Any], tensors: dict[str, StoredTensor]) -> ModelProto:
    """Phonemes, embedded, to the states that CAT-TTS takes durations and conditions from.

    Args:
        config: the model's config.json.
        tensors: its weights by name.

    Raises:
        CheckpointError: a weight is missing.
    """
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
