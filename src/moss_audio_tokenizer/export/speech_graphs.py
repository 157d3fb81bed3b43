"""ONNX graphs of CAT-TTS and CAT-ASR: one step of a Transformer with its KV cache.

``temporal.onnx`` is the decoder-only model of either (without its embeddings and output layer),
``depth.onnx`` the depth Transformer of CAT-TTS; a CAT-ASR with an encoder has ``frames.onnx``
instead, and a CAT-TTS with a text encoder ``text.onnx`` besides (`encoder_graph`). Weights stay in
model.safetensors. Embeddings, output layers and the loop are NumPy (`speech.onnx_speech`).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import ModelProto

from .. import __version__
from ..checkpoint.stored_weights import StoredTensor
from ..errors import CheckpointError, InputError
from ..graphs.graph import Graph, value_info
from ..graphs.onnx_models import finish_model
from .encoder_graph import frames_graph, text_graph

# The prefix of the decoder-only model's weights.
_PREFIXES = {"cat-tts": "temporal.", "cat-asr": "language_model.model."}
_LANGUAGE_MODELS = ("qwen2", "qwen3", "llama")
# What the weights of a block are called in the depth Transformer, by their names in a Qwen model.
_DEPTH_NAMES = {
    "input_layernorm": "attention_norm",
    "self_attn.q_proj": "queries",
    "self_attn.k_proj": "keys",
    "self_attn.v_proj": "values",
    "self_attn.o_proj": "output",
    "self_attn.q_norm": "query_norm",
    "self_attn.k_norm": "key_norm",
    "post_attention_layernorm": "feedforward_norm",
    "mlp.down_proj": "feedforward.exit",
}


@dataclass(frozen=True)
class Sizes:
    """Sizes of a Transformer.

    Attributes:
        width: channels.
        num_heads: attention heads.
        num_pairs: heads of keys and values.
        head_dim: channels of a head.
        num_layers: blocks.
        epsilon: of RMS norms.
        rotary: whether positions are encoded, as in the decoder-only model alone.
    """

    width: int
    num_heads: int
    num_pairs: int
    head_dim: int
    num_layers: int
    epsilon: float
    rotary: bool


class TransformerWriter:
    """Writes a step of a Transformer into a graph.

    Args:
        graph: graph to write to.
        tensors: weights by name.
        sizes: sizes of the Transformer.
    """

    def __init__(self, graph: Graph, tensors: dict[str, StoredTensor], sizes: Sizes) -> None:
        self._graph, self._tensors, self._sizes = graph, tensors, sizes

    def blocks(self, x: str, prefix: str) -> str:
        """All blocks: (batch, steps, width) to the same."""
        for layer in range(self._sizes.num_layers):
            x = self._block(x, f"{prefix}.{layer}", layer)
        return x

    def norm(self, x: str, name: str) -> str:
        """RMS norm over the last axis."""
        graph = self._graph
        mean = graph.op("ReduceMean", graph.op("Mul", x, x), graph.ints(-1), keepdims=1)
        raised = graph.op("Add", mean, graph.constant(self._sizes.epsilon, "float32"))
        scaled = graph.op("Div", x, graph.op("Sqrt", raised))
        return str(graph.op("Mul", scaled, self._weight(f"{name}.weight")))

    def linear(self, x: str, name: str) -> str:
        """A projection, with its bias if it has one."""
        weight = self._graph.fold("Transpose", self._weight(f"{name}.weight"), perm=[1, 0])
        x = self._graph.op("MatMul", x, weight)
        bias = f"{name}.bias"
        return self._graph.op("Add", x, self._weight(bias)) if bias in self._tensors else x

    def gated(self, x: str, gates: tuple[str, ...], down: str) -> str:
        """W_down (silu(W_gate x) * W_value x)."""
        graph = self._graph
        parts = [self.linear(x, name) for name in gates]
        if len(parts) == 1:
            parts = graph.op("Split", parts[0], axis=-1, num_outputs=2, outputs=2)
        gate, value = parts
        active = graph.op("Mul", gate, graph.op("Sigmoid", gate))
        return self.linear(graph.op("Mul", active, value), down)

    def _weight(self, name: str) -> str:
        if name not in self._tensors:
            raise CheckpointError(f"the model has no tensor {name!r}; its config.json does not fit")
        return self._graph.stored_float32(name, self._tensors[name])

    def _name(self, prefix: str, name: str) -> str:
        return f"{prefix}.{name if self._sizes.rotary else _DEPTH_NAMES[name]}"

    def _block(self, x: str, prefix: str, layer: int) -> str:
        normed = self.norm(x, self._name(prefix, "input_layernorm"))
        x = self._graph.op("Add", x, self._attend(normed, prefix, layer))
        normed = self.norm(x, self._name(prefix, "post_attention_layernorm"))
        gates = tuple(f"{prefix}.mlp.{name}_proj" for name in ("gate", "up"))
        gates = gates if self._sizes.rotary else (f"{prefix}.feedforward.entrance",)
        fed = self.gated(normed, gates, self._name(prefix, "mlp.down_proj"))
        return str(self._graph.op("Add", x, fed))

    def _attend(self, x: str, prefix: str, layer: int) -> str:
        """Queries of a group of heads share one head of keys and values."""
        graph, sizes = self._graph, self._sizes
        query, key, value = (self._heads(x, prefix, kind) for kind in "qkv")
        keys = self._cached(key, layer, "key")
        values = self._cached(value, layer, "value")
        group = sizes.num_heads // sizes.num_pairs
        batch = graph.size(x, 0)
        shape = graph.op(
            "Concat", batch, graph.ints(sizes.num_pairs, group, -1, sizes.head_dim), axis=0
        )
        query = graph.op("Reshape", query, shape)
        keys, values = (graph.op("Unsqueeze", item, graph.ints(2)) for item in (keys, values))
        scores = graph.op("MatMul", query, graph.op("Transpose", keys, perm=[0, 1, 2, 4, 3]))
        scores = graph.op("Mul", scores, graph.constant(sizes.head_dim**-0.5, "float32"))
        if sizes.rotary:
            scores = graph.op("Add", scores, graph.op("Unsqueeze", "mask", graph.ints(1, 2)))
        attended = graph.op("MatMul", graph.op("Softmax", scores, axis=-1), values)
        merged = graph.op("Concat", batch, graph.ints(sizes.num_heads, -1, sizes.head_dim), axis=0)
        attended = graph.op("Reshape", attended, merged)
        attended = graph.op("Transpose", attended, perm=[0, 2, 1, 3])
        flat = graph.op("Concat", batch, graph.ints(-1, sizes.num_heads * sizes.head_dim), axis=0)
        return self.linear(
            graph.op("Reshape", attended, flat), self._name(prefix, "self_attn.o_proj")
        )

    def _heads(self, x: str, prefix: str, kind: str) -> str:
        """(batch, heads, steps, head_dim), normalized and rotated where the model does so."""
        graph, width = self._graph, self._sizes.head_dim
        name = self._name(prefix, f"self_attn.{kind}_proj")
        count = self._tensors[f"{name}.weight"].shape[0] // width
        shape = graph.op("Concat", graph.size(x, 0), graph.ints(-1, count, width), axis=0)
        heads = graph.op("Reshape", self.linear(x, name), shape)
        norm = "" if kind == "v" else self._name(prefix, f"self_attn.{kind}_norm")
        if f"{norm}.weight" in self._tensors:
            heads = self.norm(heads, norm)
        heads = graph.op("Transpose", heads, perm=[0, 2, 1, 3])
        return self._rotated(heads) if norm and self._sizes.rotary else str(heads)

    def _rotated(self, heads: str) -> str:
        graph = self._graph
        left, right = graph.op("Split", heads, axis=3, num_outputs=2, outputs=2)
        swapped = graph.op("Concat", graph.op("Neg", right), left, axis=3)
        cosine, sine = (graph.op("Unsqueeze", name, graph.ints(1)) for name in ("cosine", "sine"))
        first = graph.op("Mul", heads, cosine)
        return str(graph.op("Add", first, graph.op("Mul", swapped, sine)))

    def _cached(self, entries: str, layer: int, kind: str) -> str:
        past, present = f"past.{layer}.{kind}", f"present.{layer}.{kind}"
        return str(self._graph.op("Concat", past, entries, axis=2, outputs=[present]))


def speech_graphs(
    config: dict[str, Any], tensors: dict[str, StoredTensor]
) -> dict[str, ModelProto]:
    """The graphs of CAT-TTS or CAT-ASR, by file name.

    Args:
        config: the model's config.json.
        tensors: its weights by name, in the file that the graphs will point to.

    Raises:
        CheckpointError: a weight is missing.
        InputError: its language model is of a kind that is not supported.
    """
    kind = config["model_type"]
    if kind == "cat-asr" and config.get("encoder_layers"):
        return {"frames.onnx": frames_graph(config, tensors)}
    built = {"temporal.onnx": _temporal(config["text_config"], tensors, _PREFIXES[kind])}
    if kind == "cat-tts":
        built["depth.onnx"] = _depth(config, tensors)
        if config.get("text_encoder_layers"):
            built["text.onnx"] = text_graph(config, tensors)
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
