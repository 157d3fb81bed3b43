"""Transformers as nodes of ONNX graphs: one step with a KV cache, and bidirectional encoders.

Owns the arithmetic of `llm` and `tts.depth` in nodes; which graphs there are, and what they take
and give, is `speech_export`'s. Weights stay in model.safetensors.
"""

from dataclasses import dataclass

import numpy as np

from ..checkpoint.stored_weights import StoredTensor
from ..errors import CheckpointError
from ..graphs.graph import Graph

# As in `llm.bidirectional`, which needs PyTorch.
_HEAD_DIM, _ROTARY_BASE = 64, 10_000.0
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


class LayerWriter:
    """Writes layers into a graph.

    Args:
        graph: graph to write to.
        tensors: weights by name.
    """

    def __init__(self, graph: Graph, tensors: dict[str, StoredTensor]) -> None:
        self._graph, self._tensors = graph, tensors

    def linear(self, x: str, name: str) -> str:
        """A projection, with its bias if it has one."""
        weight = self._graph.fold("Transpose", self.weight(f"{name}.weight"), perm=[1, 0])
        x = self._graph.op("MatMul", x, weight)
        bias = f"{name}.bias"
        return self._graph.op("Add", x, self.weight(bias)) if bias in self._tensors else x

    def silu(self, x: str) -> str:
        """X times its sigmoid."""
        return str(self._graph.op("Mul", x, self._graph.op("Sigmoid", x)))

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a weight."""
        self.weight(name)
        return self._tensors[name].shape

    def weight(self, name: str) -> str:
        """A weight, in float32.

        Raises:
            CheckpointError: the model has none of this name.
        """
        if name not in self._tensors:
            raise CheckpointError(f"the model has no tensor {name!r}; its config.json does not fit")
        return self._graph.stored_float32(name, self._tensors[name])


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


class TransformerWriter(LayerWriter):
    """Writes a step of a Transformer into a graph.

    Args:
        graph: graph to write to.
        tensors: weights by name.
        sizes: sizes of the Transformer.
    """

    def __init__(self, graph: Graph, tensors: dict[str, StoredTensor], sizes: Sizes) -> None:
        super().__init__(graph, tensors)
        self._sizes = sizes

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
        return str(graph.op("Mul", scaled, self.weight(f"{name}.weight")))

    def gated(self, x: str, gates: tuple[str, ...], down: str) -> str:
        """W_down (silu(W_gate x) * W_value x)."""
        graph = self._graph
        parts = [self.linear(x, name) for name in gates]
        if len(parts) == 1:
            parts = graph.op("Split", parts[0], axis=-1, num_outputs=2, outputs=2)
        gate, value = parts
        return self.linear(graph.op("Mul", self.silu(gate), value), down)

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


class EncoderWriter(LayerWriter):
    """Writes a bidirectional encoder into a graph.

    Args:
        graph: graph to write to.
        tensors: weights by name.
        steps: name of the input of shape (batch, steps, width) whose steps are encoded.
    """

    def __init__(self, graph: Graph, tensors: dict[str, StoredTensor], steps: str) -> None:
        super().__init__(graph, tensors)
        self._batch = graph.size(steps, 0)
        self._rotations = self._angles(graph.size(steps, 1))

    def write(self, x: str, prefix: str, num_layers: int) -> str:
        """All blocks and the last norm: (batch, steps, width) to the same."""
        for layer in range(num_layers):
            x = self._block(x, f"{prefix}.blocks.{layer}")
        return self.norm(x, f"{prefix}.norm")

    def norm(self, x: str, name: str) -> str:
        """Layer norm over the last axis."""
        weights = (self.weight(f"{name}.{part}") for part in ("weight", "bias"))
        return self._graph.op("LayerNormalization", x, *weights, axis=-1, epsilon=1e-5)

    def _block(self, x: str, prefix: str) -> str:
        graph = self._graph
        normed = self.norm(x, f"{prefix}.attention_norm")
        x = graph.op("Add", x, self._attend(normed, prefix))
        normed = self.norm(x, f"{prefix}.convolution_norm")
        x = graph.op("Add", x, self._convolve(normed, prefix))
        normed = self.norm(x, f"{prefix}.feedforward_norm")
        inner = self.silu(self.linear(normed, f"{prefix}.feedforward_in"))
        return str(graph.op("Add", x, self.linear(inner, f"{prefix}.feedforward_out")))

    def _attend(self, x: str, prefix: str) -> str:
        graph = self._graph
        name = f"{prefix}.attention_in"
        heads = self.shape(f"{name}.weight")[1] // _HEAD_DIM
        split = graph.op("Concat", self._batch, graph.ints(-1, 3 * heads, _HEAD_DIM), axis=0)
        parts = graph.op("Reshape", self.linear(x, name), split)
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
        return self.linear(attended, f"{prefix}.attention_out")

    def _convolve(self, x: str, prefix: str) -> str:
        graph = self._graph
        value, gate = graph.op(
            "Split",
            self.linear(x, f"{prefix}.convolution_in"),
            axis=-1,
            num_outputs=2,
            outputs=2,
        )
        gated = graph.op("Mul", value, graph.op("Sigmoid", gate))
        weights = [self.weight(f"{prefix}.convolution.{part}") for part in ("weight", "bias")]
        width, _, kernel = self.shape(f"{prefix}.convolution.weight")
        channels = graph.op("Transpose", gated, perm=[0, 2, 1])
        mixed = graph.op("Conv", channels, *weights, group=width, pads=[kernel // 2] * 2)
        mixed = self.silu(graph.op("Transpose", mixed, perm=[0, 2, 1]))
        return self.linear(mixed, f"{prefix}.convolution_out")

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
