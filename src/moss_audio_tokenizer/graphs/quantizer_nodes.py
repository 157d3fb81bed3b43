"""The residual quantizer as nodes: hidden states to codes, codes to the decoder's input.

Everything affine is folded in float64 when a session is made, and used in float32, in every
export. What follows from the choice of one layer for the later ones is a product of 8 values a
layer (see `model.quantizer`), so that no table grows with the codebooks.
"""

from ..config import QuantizerConfig
from .graph import TYPES, Graph, Weights

_PREFIX = "quantizer.quantizers"


class QuantizerWriter:
    """Writes both directions of the quantizer.

    Args:
        graph: to write to.
        weights: of the checkpoint.
        config: its sizes.
    """

    def __init__(self, graph: Graph, weights: Weights, config: QuantizerConfig) -> None:
        self._graph = graph
        self._weights = weights
        self._config = config
        self._projects = config.codebook_dim != config.rvq_dim

    # Encoding

    def encode(self, hidden: str) -> str:
        """Rows (N, input_dim) to codes (N, num_quantizers), int64."""
        graph, layers = self._graph, self._config.num_quantizers
        search, half_squares = self._search_tables()
        views = graph.op("Gemm", hidden, *self._view_weights(), transB=1)
        codes = []
        for layer in range(layers):
            view = views
            last = layer + 1 == layers
            if self._projects and not last:
                sizes = graph.ints(
                    self._config.codebook_dim, (layers - layer - 1) * self._config.codebook_dim
                )
                view, views = graph.op("Split", views, sizes, axis=1, outputs=2)
            bias = (half_squares[layer],) if self._config.quantizer_type == "rvq" else ()
            scores = graph.op("Gemm", view, search[layer], *bias, transB=1)
            codes.append(graph.op("ArgMax", scores, axis=1, keepdims=1))
            if not last:
                views = self._without(views, layer, codes[-1])
        return graph.op("Concat", *codes, axis=1)

    def _without(self, views: str, layer: int, codes: str) -> str:
        """The views of later layers, less what this layer's rows take from them."""
        graph = self._graph
        rows = graph.op("Gather", self._codebook(layer), graph.op("Squeeze", codes, graph.ints(1)))
        if not self._projects:
            return graph.op("Sub", views, rows)
        size, layers = self._config.codebook_dim, self._config.num_quantizers
        block = graph.fold(
            "Slice",
            self._coupling(),
            graph.ints((layer + 1) * size, layer * size),
            graph.ints(layers * size, (layer + 1) * size),
        )
        block = graph.fold_cast(block, "float32")
        return graph.op("Gemm", rows, block, views, transB=1, alpha=-1.0)

    def _codebook(self, layer: int) -> str:
        return self._single(f"{_PREFIX}.{layer}.codebook.weight")

    def _search_tables(self) -> tuple[list[str], list[str]]:
        """What views are compared with, for each layer: rows, and minus half their squares."""
        graph = self._graph
        tables, half_squares = [], []
        for layer in range(self._config.num_quantizers):
            rows = self._codebook(layer)
            squares = graph.fold("Mul", rows, rows)
            squares = graph.fold("ReduceSum", squares, graph.ints(1), keepdims=1)
            if self._config.quantizer_type == "rlfq":
                length = graph.fold("Sqrt", squares)
                rows = graph.fold(
                    "Div", rows, graph.fold("Max", length, graph.constant(1e-12, "float32"))
                )
            tables.append(rows)
            half = graph.fold("Mul", squares, graph.constant(-0.5, "float32"))
            half_squares.append(graph.fold("Squeeze", half, graph.ints(1)))
        return tables, half_squares

    def _view_weights(self) -> tuple[str, str]:
        """Weight and bias from hidden states to what every layer looks at.

        The biases of the layers before are the same whatever they choose: they are taken off here.
        """
        graph, config = self._graph, self._config
        weight, bias = self._projection("quantizer.input_proj", config.input_dim, config.rvq_dim)
        if self._projects:
            inwards, in_bias = self._in_projs()
            weight = graph.fold("MatMul", inwards, weight)
            bias = graph.fold("Add", graph.fold("MatMul", inwards, bias), in_bias)
            bias = graph.fold("Sub", bias, self._earlier_biases())
        bias = graph.fold("Squeeze", bias, graph.ints(1))
        return graph.fold_cast(weight, "float32"), graph.fold_cast(bias, "float32")

    def _earlier_biases(self) -> str:
        """Sum over earlier layers of W_c d_j, a column in the order of the views."""
        graph, config = self._graph, self._config
        _, biases = self._out_projs()  # (rvq_dim, layers)
        before = graph.fold("CumSum", biases, graph.constant(1, "int64"), exclusive=1)
        shape = graph.ints(config.num_quantizers, config.codebook_dim, config.rvq_dim)
        inwards = graph.fold("Reshape", self._in_projs()[0], shape)
        each = graph.fold("Unsqueeze", graph.fold("Transpose", before, perm=[1, 0]), graph.ints(2))
        return graph.fold("Reshape", graph.fold("MatMul", inwards, each), graph.ints(-1, 1))

    def _coupling(self) -> str:
        """W_c O_j for all layers c (rows) and j (columns), in float64."""
        return self._graph.fold("MatMul", self._in_projs()[0], self._out_projs()[0])

    # Decoding

    def decode(self, codes: str) -> str:
        """Codes (num_quantizers or fewer, batch, frames), -1 for none, to rows (N, output_dim)."""
        graph, config = self._graph, self._config
        codes = self._all_layers(graph.cast(codes, "int64"))
        codes = graph.op(
            "Reshape",
            graph.op("Transpose", codes, perm=[1, 2, 0]),
            graph.ints(-1, config.num_quantizers),
        )
        zero = graph.constant(0, "int64")
        present = graph.cast(graph.op("GreaterOrEqual", codes, zero), "float32")
        starts = [layer * config.codebook_size for layer in range(config.num_quantizers)]
        places = graph.op("Add", graph.op("Max", codes, zero), graph.ints(*starts))
        rows = graph.op("Gather", self._all_rows(), places)  # (N, layers, codebook_dim)
        rows = graph.op("Mul", rows, graph.op("Unsqueeze", present, graph.ints(2)))
        if not self._projects:
            total = graph.op("ReduceSum", rows, graph.ints(1), keepdims=0)
            return self._project_out(total)
        rows = graph.reshape(rows, -1, config.num_quantizers * config.codebook_dim)
        features = graph.op("Concat", rows, present, axis=1)
        return graph.op("Gemm", features, *self._decode_weights(), transB=1)

    def _all_layers(self, codes: str) -> str:
        """Layers that are not given count as -1."""
        graph = self._graph
        missing = graph.op("Sub", graph.ints(self._config.num_quantizers), graph.size(codes, 0))
        shape = graph.op("Concat", missing, graph.op("Shape", codes, start=1), axis=0)
        none = graph.op("Expand", graph.constant(-1, "int64"), shape)
        return graph.op("Concat", codes, none, axis=0)

    def _all_rows(self) -> str:
        layers = range(self._config.num_quantizers)
        return self._graph.fold("Concat", *(self._codebook(layer) for layer in layers), axis=0)

    def _decode_weights(self) -> tuple[str, str]:
        """From the rows of all layers, then which there are, to the decoder's input."""
        graph, config = self._graph, self._config
        features = graph.fold("Concat", *self._out_projs(), axis=1)
        weight, bias = self._projection("quantizer.output_proj", config.rvq_dim, config.output_dim)
        weight = graph.fold_cast(graph.fold("MatMul", weight, features), "float32")
        return weight, graph.fold_cast(graph.fold("Squeeze", bias, graph.ints(1)), "float32")

    def _project_out(self, total: str) -> str:
        graph, config = self._graph, self._config
        if config.rvq_dim == config.output_dim:
            return total
        weight, bias = self._projection("quantizer.output_proj", config.rvq_dim, config.output_dim)
        bias = graph.fold("Squeeze", bias, graph.ints(1))
        weights = (graph.fold_cast(weight, "float32"), graph.fold_cast(bias, "float32"))
        return graph.op("Gemm", total, *weights, transB=1)

    # Weights, in float64

    def _in_projs(self) -> tuple[str, str]:
        """Of all layers: (layers x codebook_dim, rvq_dim), and a column."""
        layers = [f"{_PREFIX}.{q}.in_proj" for q in range(self._config.num_quantizers)]
        return self._normed(layers, self._config.codebook_dim, self._config.rvq_dim)

    def _out_projs(self) -> tuple[str, str]:
        """Of all layers: (rvq_dim, layers x codebook_dim), and (rvq_dim, layers)."""
        graph, config = self._graph, self._config
        layers = [f"{_PREFIX}.{q}.out_proj" for q in range(config.num_quantizers)]
        weight, bias = self._normed(layers, config.rvq_dim, config.codebook_dim)
        stacked = graph.ints(config.num_quantizers, config.rvq_dim, config.codebook_dim)
        weight = graph.fold("Transpose", graph.fold("Reshape", weight, stacked), perm=[1, 0, 2])
        weight = graph.fold("Reshape", weight, graph.ints(config.rvq_dim, -1))
        bias = graph.fold("Reshape", bias, graph.ints(config.num_quantizers, config.rvq_dim))
        return weight, graph.fold("Transpose", bias, perm=[1, 0])

    def _projection(self, name: str, inputs: int, outputs: int) -> tuple[str, str]:
        """Weight and bias (a column) of a projection that is the identity between equal widths."""
        graph = self._graph
        if inputs != outputs:
            return self._normed([name], outputs, inputs)
        diagonal = graph.fold("ConstantOfShape", graph.ints(inputs, inputs))
        identity = graph.fold("EyeLike", diagonal, dtype=TYPES["float64"])
        zeros = graph.fold("ConstantOfShape", graph.ints(outputs, 1))
        return identity, graph.fold_cast(zeros, "float64")

    def _normed(self, names: list[str], outputs: int, inputs: int) -> tuple[str, str]:
        """Weight-normalised projections below each other, and their biases as a column."""
        graph = self._graph
        gain = self._column(names, "parametrizations.weight.original0")
        bias = self._column(names, "bias")
        direction = self._joined(names, "parametrizations.weight.original1")
        direction = graph.fold("Reshape", direction, graph.ints(len(names) * outputs, inputs))
        squares = graph.fold("Mul", direction, direction)
        squares = graph.fold("ReduceSum", squares, graph.ints(1), keepdims=1)
        length = graph.fold("Sqrt", squares)
        return graph.fold("Mul", direction, graph.fold("Div", gain, length)), bias

    def _column(self, names: list[str], suffix: str) -> str:
        return self._graph.fold("Reshape", self._joined(names, suffix), self._graph.ints(-1, 1))

    def _joined(self, names: list[str], suffix: str) -> str:
        stored = [self._single(f"{name}.{suffix}") for name in names]
        joined = self._graph.fold("Concat", *stored, axis=0) if len(stored) > 1 else stored[0]
        return self._graph.fold_cast(joined, "float64")

    def _single(self, name: str) -> str:
        """A stored tensor, in float32."""
        return self._graph.stored_float32(name, self._weights.tensor(name))
