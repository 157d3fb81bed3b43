"""A Transformer stage as nodes: folded weights, and attention over rings of keys and values.

Owns a block's arithmetic and the layout of the rings; the same function of the same weights as
`runtime`. A rotary pair is (j, j + head_dim / 2) rather than neighbors, keys and queries
alike, which changes no score.

A ring (batch, heads, places, head_dim) holds the newest steps by step modulo ``places - 1``; the
last place is never seen: what is not to be kept is written there. Entries beyond a stream's
position are not seen either, so that position 0 is a fresh stream whatever its rings hold.
"""

from dataclasses import dataclass

import numpy as np

from ..config import TransformerStage
from ..onnx.manifest import RingShape
from .graph import MICROSOFT, Graph, Weights

# Values of a row that share a scale, in 8 bits.
BLOCK = 32


class Linears:
    """Products of rows (N, inputs) with stored weights (outputs, inputs), in float32."""

    def __init__(self, graph: Graph, weights: Weights) -> None:
        self._graph = graph
        self._weights = weights

    def matrix(self, name: str) -> str:
        """A stored weight, in float32."""
        return self._graph.stored_float32(name, self._weights.tensor(name))

    def product(self, x: str, name: str, inputs: int) -> str:
        """X W^T."""
        if is_int8(self._weights, name):
            return self._int8_product(x, name, inputs)
        return self._graph.op("Gemm", x, self.matrix(name), transB=1)

    def heads(self, x: str, name: str, num_heads: int, inputs: int) -> str:
        """X W^T for queries, keys and values: pairs as halves, queries scaled for attention."""
        if is_int8(self._weights, name):
            return self._int8_product(x, name, inputs)
        order, scale = head_rows(inputs, num_heads)
        graph = self._graph
        weight = graph.fold("Gather", self.matrix(name), graph.constant(order, "int32"), axis=0)
        weight = graph.fold("Mul", weight, graph.constant(scale[:, None], "float32"))
        return graph.op("Gemm", x, weight, transB=1)

    def add_scaled(self, residual: str, x: str, name: str, scale: str, inputs: int) -> str:
        """Residual + scale * (x W^T)."""
        graph = self._graph
        if is_int8(self._weights, name):
            return graph.op("Add", residual, self._int8_product(x, name, inputs))
        column = graph.fold("Unsqueeze", self.matrix(scale), graph.ints(1))
        weight = graph.fold("Mul", self.matrix(name), column)
        return graph.op("Gemm", x, weight, residual, transB=1)

    def _int8_product(self, x: str, name: str, inputs: int) -> str:
        """X W^T, both in 8 bits by blocks of a row: no row depends on another."""
        bits, scales = (self._weights.tensor(each) for each in int8_names(name))
        names = zip(int8_names(name), (bits, scales), strict=True)
        return self._graph.op(
            "MatMulNBits",
            x,
            *(self._graph.stored(*named) for named in names),
            domain=MICROSOFT,
            K=inputs,
            N=bits.shape[0],
            bits=8,
            block_size=BLOCK,
            accuracy_level=4,
        )


def int8_names(name: str) -> tuple[str, str]:
    """Names of a weight in 8 bits, and of its scales."""
    return f"{name}.int8", f"{name}.scales"


def is_int8(weights: Weights, name: str) -> bool:
    """Whether a weight is stored in 8 bits."""
    return int8_names(name)[0] in weights


def head_rows(width: int, num_heads: int) -> tuple[np.ndarray, np.ndarray]:
    """The order of the rows of an input projection, and a factor for each."""
    head_dim = width // num_heads
    rows = np.arange(3 * width).reshape(3, num_heads, head_dim // 2, 2)
    turned = rows[:2].swapaxes(2, 3)
    scale = np.ones((3, width), np.float32)
    scale[0] = head_dim**-0.5
    return np.concatenate((turned.reshape(-1), rows[2].reshape(-1))), scale.reshape(-1)


# Beyond any window, in steps.
_FAR = 1 << 30


class Rows:
    """What a step knows of its streams, shared by all stages of a graph.

    Args:
        graph: to write to.
        positions: frames that each row has seen (batch,).
        num_frames: new frames of every row, as a vector of one.
        counts: of these, the ones that each row keeps (batch,); None if all.
    """

    def __init__(self, graph: Graph, positions: str, num_frames: str, counts: str | None) -> None:
        self._graph = graph
        self._shared: dict[object, str] = {}
        self.batch = graph.size(positions, 0)
        self.num_frames = num_frames
        self.positions = graph.reshape(positions, -1, 1, 1, 1)
        self.counts = None if counts is None else graph.reshape(counts, -1, 1, 1, 1)

    def heads_shape(self, num_heads: int, head_dim: int) -> str:
        """(batch, steps, 3 x heads, head_dim)."""
        key = (num_heads, head_dim)
        if key not in self._shared:
            sizes = self._graph.ints(-1, 3 * num_heads, head_dim)
            self._shared[key] = self._graph.op("Concat", self.batch, sizes, axis=0)
        return self._shared[key]

    def first_places(self, num_heads: int) -> str:
        """(row, head, 0) of every ring: (batch, heads, 1, 3)."""
        if num_heads not in self._shared:
            graph = self._graph
            row = graph.op("Reshape", graph.range(self.batch), graph.ints(-1, 1, 1, 1))
            row = graph.op("Mul", row, graph.ints(1, 0, 0))
            head = np.arange(num_heads).reshape(1, -1, 1, 1) * [0, 1, 0]
            self._shared[num_heads] = graph.op("Add", row, graph.constant(head, "int64"))
        return self._shared[num_heads]


@dataclass(frozen=True)
class StageSteps:
    """What all layers of a stage share in a step.

    Attributes:
        cosine: of both halves' angles (batch, 1, steps, head_dim).
        sine: likewise, negative for the first half.
        mask: 0 or minus infinity, (batch, 1, steps, places).
        places: where new entries go, (batch, heads, steps, 3).
        heads_shape: see `Rows`.
    """

    cosine: str
    sine: str
    mask: str
    places: str
    heads_shape: str


class StageWriter:
    """Writes one stage into a graph.

    Args:
        graph: to write to.
        linears: makes the products with weights.
        stage: its sizes.
        prefix: of its weights' names, such as "decoder.0".
        rings: of its layers.
    """

    def __init__(
        self,
        graph: Graph,
        linears: Linears,
        stage: TransformerStage,
        prefix: str,
        rings: list[RingShape],
    ) -> None:
        self._graph = graph
        self._linears = linears
        self._stage = stage
        self._prefix = prefix
        self._rings = rings

    def write(self, x: str, rows: Rows) -> str:
        """Rows (N, input_dimension) to (N, output_dimension)."""
        stage, linears = self._stage, self._linears
        steps = self._steps(rows)
        if stage.projects_input:
            name = f"{self._prefix}.input_proj.weight"
            x = linears.product(x, name, stage.input_dimension)
        for index, ring in enumerate(self._rings):
            x = self._block(x, f"{self._prefix}.transformer.layers.{index}", ring, steps)
        if stage.projects_output:
            x = linears.product(x, f"{self._prefix}.output_proj.weight", stage.d_model)
        return x

    def _block(self, x: str, prefix: str, ring: RingShape, steps: StageSteps) -> str:
        linears, width = self._linears, self._stage.d_model
        in_proj, out_proj = (f"{prefix}.self_attn.{name}_projs.0.weight" for name in ("in", "out"))
        normed = self._normalise(x, f"{prefix}.norm1")
        heads = linears.heads(normed, in_proj, ring.num_heads, width)
        attended = self._attend(heads, ring, steps)
        scale = f"{prefix}.layer_scale_1.scale"
        x = linears.add_scaled(x, attended, out_proj, scale, width)
        normed = self._normalise(x, f"{prefix}.norm2")
        hidden = linears.product(normed, f"{prefix}.linear1.weight", width)
        hidden = self._graph.op("Gelu", hidden)
        down, scale = f"{prefix}.linear2.weight", f"{prefix}.layer_scale_2.scale"
        return linears.add_scaled(x, hidden, down, scale, self._stage.dim_feedforward)

    def _normalise(self, x: str, prefix: str) -> str:
        weight, bias = (self._linears.matrix(f"{prefix}.{name}") for name in ("weight", "bias"))
        return self._graph.op("LayerNormalization", x, weight, bias, axis=-1, epsilon=1e-5)

    def _attend(self, heads: str, ring: RingShape, steps: StageSteps) -> str:
        """Rows (N, 3 x width) of queries, keys and values to rows (N, width)."""
        graph, count = self._graph, ring.num_heads
        heads = graph.op("Reshape", heads, steps.heads_shape)
        heads = graph.op("Transpose", heads, perm=[0, 2, 1, 3])
        turning, value = graph.op("Split", heads, graph.ints(2 * count, count), axis=1, outputs=2)
        turned = self._rotate(turning, steps)
        query, key = graph.op("Split", turned, axis=1, num_outputs=2, outputs=2)
        keys = self._remember(ring.names("key"), steps, key)
        values = self._remember(ring.names("value"), steps, value)
        scores = graph.op("MatMul", query, graph.op("Transpose", keys, perm=[0, 1, 3, 2]))
        weights = graph.op("Softmax", graph.op("Add", scores, steps.mask), axis=-1)
        attended = graph.op("MatMul", weights, values)
        attended = graph.op("Transpose", attended, perm=[0, 2, 1, 3])
        return graph.reshape(attended, -1, self._stage.d_model)

    def _remember(self, names: tuple[str, str], steps: StageSteps, entries: str) -> str:
        past, present = names
        return self._graph.op("ScatterND", past, steps.places, entries, outputs=[present])

    def _rotate(self, heads: str, steps: StageSteps) -> str:
        """Heads (batch, heads, steps, head_dim) turned: x cos + swapped x sin."""
        graph = self._graph
        left, right = graph.op("Split", heads, axis=3, num_outputs=2, outputs=2)
        swapped = graph.op("Concat", right, left, axis=3)
        first = graph.op("Mul", heads, steps.cosine)
        return graph.op("Add", first, graph.op("Mul", swapped, steps.sine))

    def _steps(self, rows: Rows) -> StageSteps:
        """Rotations, visibility and places of the steps of this call."""
        graph, ring = self._graph, self._rings[0]
        offsets = graph.range(self._per_frame(rows.num_frames))
        offsets = graph.op("Unsqueeze", offsets, graph.ints(1))
        steps = graph.op("Add", self._per_frame(rows.positions), offsets)  # (batch, 1, steps, 1)
        cosine, sine = self._rotations(steps)
        places = graph.op("Sub", graph.size(ring.names("key")[0], 2), graph.ints(1))
        place = graph.op("Mod", steps, places)
        kept = place
        if rows.counts is not None:
            keeps = graph.op("Less", offsets, self._per_frame(rows.counts))
            kept = graph.op("Where", keeps, place, places)
        kept = graph.op("Mul", kept, graph.ints(0, 0, 1))
        return StageSteps(
            cosine=cosine,
            sine=sine,
            mask=self._mask(steps, place, places),
            places=graph.op("Add", rows.first_places(ring.num_heads), kept),
            heads_shape=rows.heads_shape(ring.num_heads, ring.head_dim),
        )

    def _per_frame(self, frames: str) -> str:
        """Frames as steps of this stage."""
        count = self._rings[0].steps_per_frame
        return frames if count == 1 else self._graph.op("Mul", frames, self._graph.ints(count))

    def _rotations(self, steps: str) -> tuple[str, str]:
        """Angles in float64, less whole turns: right to 1e-6 rad after weeks of audio."""
        graph, pairs = self._graph, self._rings[0].head_dim // 2
        frequencies = np.tile(self._stage.max_period ** (-np.arange(pairs) / pairs), 2)
        turns = graph.constant(frequencies / (2 * np.pi), "float64")
        turns = graph.op("Mul", graph.cast(steps, "float64"), turns)
        rest = graph.cast(graph.op("Sub", turns, graph.op("Floor", turns)), "float32")
        angle = graph.op("Mul", rest, graph.constant(2 * np.pi, "float32"))
        signs = graph.constant(np.repeat([-1, 1], pairs), "float32")
        return graph.op("Cos", angle), graph.op("Mul", graph.op("Sin", angle), signs)

    def _mask(self, steps: str, place: str, places: str) -> str:
        """What each step sees of the ring, whose place p holds the newest step of its residue.

        How far back that is: (step - p) modulo the places. Steps of this call after the one that
        looks come out as further back than the window, for the ring is longer than it. The spare
        place counts as further back than anything.
        """
        graph, context = self._graph, self._rings[0].context_steps
        count = graph.cast(places, "int32")
        zero, one = (graph.constant(value, "int32") for value in (0, 1))
        index = graph.op("Range", zero, graph.op("Squeeze", count), one)
        index = graph.op("Concat", index, graph.constant([-_FAR], "int32"), axis=0)
        distance = graph.op("Sub", graph.cast(place, "int32"), index)
        wrapped = graph.op("Add", distance, count)
        distance = graph.op("Where", graph.op("Less", distance, zero), wrapped, distance)
        limit = graph.op("Min", graph.op("Add", steps, graph.ints(1)), graph.ints(context))
        seen = graph.op("Less", distance, graph.cast(limit, "int32"))
        levels = (graph.constant(0, "float32"), graph.constant(-np.inf, "float32"))
        return graph.op("Where", seen, *levels)
