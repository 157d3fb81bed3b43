"""Products with weights as nodes, in the precision that each weight is stored in.

Owns what happens to a weight between its file and its use: casts, layer scales, the order of
rotary pairs. All of that is folded when a session is made. Weights in 8 bits were prepared when
they were written (`export.quantize`).
"""

import numpy as np

from .graph import MICROSOFT, Graph
from .weights import Weights

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
