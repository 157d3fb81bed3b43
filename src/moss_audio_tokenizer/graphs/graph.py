"""Writing ONNX graphs: nodes, constants, and weights, those of files left where they are.

What is computed from weights alone is written apart (`Graph.fold`), so that runtimes compute it
once, when a session is made. Knows nothing of codecs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from ..checkpoint.key_names import SCALES_SUFFIX
from ..checkpoint.stored_weights import StoredTensor, StoredWeights
from ..config import CodecConfig

OPSET = 20
# Operators of onnxruntime that are no part of ONNX: products in 8 bits.
MICROSOFT = "com.microsoft"
# The oldest file format that has the opset.
IR_VERSION = 9
TYPES = {
    "float32": TensorProto.FLOAT,
    "float64": TensorProto.DOUBLE,
    "int32": TensorProto.INT32,
    "int64": TensorProto.INT64,
    "bool": TensorProto.BOOL,
}
_STORED_TYPES = {
    "F32": TensorProto.FLOAT,
    "F16": TensorProto.FLOAT16,
    "BF16": TensorProto.BFLOAT16,
    "I8": TensorProto.INT8,
    "U8": TensorProto.UINT8,
}


@dataclass(frozen=True)
class ArrayTensor:
    """A weight in memory, in float32."""

    values: np.ndarray
    dtype: str = "F32"

    @property
    def shape(self) -> tuple[int, ...]:
        """The sizes of its axes."""
        return self.values.shape

    def read(self) -> np.ndarray:
        """The values, not copied."""
        return self.values


class ArrayWeights:
    """Weights in memory; a graph gets copies of them.

    Args:
        config: of the codec.
        arrays: float32 arrays by their v1 names; those of one direction are enough for its graph.
    """

    def __init__(self, config: CodecConfig, arrays: Mapping[str, np.ndarray]) -> None:
        self.config = config
        self._arrays = arrays

    def __contains__(self, name: Any) -> bool:
        return name in self._arrays

    def tensor(self, name: str) -> ArrayTensor:
        """A weight by its v1 name."""
        return ArrayTensor(self._arrays[name])


# A weight, and the weights of a codec, by their v1 names: in files of a checkpoint, or in memory.
WeightTensor = StoredTensor | ArrayTensor
Weights = StoredWeights | ArrayWeights


class Graph:
    """A graph in the making; values are known by name.

    Args:
        outer: the graph that this one is a body within; it holds constants and folded weights.
    """

    def __init__(self, outer: "Graph | None" = None) -> None:
        self.nodes: list[NodeProto] = []
        self.initializers: dict[str, TensorProto] = {}
        self._root: Graph = outer._root if outer is not None else self
        self._count = 0
        self._memory: dict[object, str] = {}
        self.domains = {""}

    def new_name(self) -> str:
        """A name that no other value of the model has."""
        self._root._count += 1
        return f"v{self._root._count}"

    def op(
        self,
        kind: str,
        *inputs: str,
        outputs: int | Sequence[str] = 1,
        domain: str = "",
        **attributes: Any,
    ) -> Any:
        """A node; its output, or the list of them."""
        names = (
            [self.new_name() for _ in range(outputs)] if isinstance(outputs, int) else list(outputs)
        )
        node = helper.make_node(kind, list(inputs), names, domain=domain, **attributes)
        self.nodes.append(node)
        self._root.domains.add(domain)
        return names[0] if len(names) == 1 else names

    def fold(self, kind: str, *inputs: str, **attributes: Any) -> Any:
        """A node of weights and constants alone; the same one twice is one node."""
        key = (kind, inputs, str(sorted(attributes.items())))
        if key not in self._root._memory:
            self._root._memory[key] = self._root.op(kind, *inputs, **attributes)
        return self._root._memory[key]

    def constant(self, values: Any, dtype: str) -> str:
        """Values written into the graph itself; small ones."""
        array = np.asarray(values, dtype)
        key = (dtype, array.shape, array.tobytes())
        if key not in self._root._memory:
            name = self.new_name()
            self._root.initializers[name] = numpy_helper.from_array(array, name)
            self._root._memory[key] = name
        return self._root._memory[key]

    def ints(self, *values: int) -> str:
        """A vector of int64."""
        return self.constant(values, "int64")

    def stored(self, name: str, tensor: WeightTensor) -> str:
        """A weight in its own type, left in its file if it has one."""
        if name not in self._root.initializers:
            self._root.initializers[name] = (
                _pointer(name, tensor)
                if isinstance(tensor, StoredTensor)
                else numpy_helper.from_array(tensor.read(), name)
            )
        return name

    def stored_float32(self, name: str, tensor: WeightTensor) -> str:
        """A weight in float32, left in its file in its own type, with its scales if it has any."""
        stored = self.stored(name, tensor)
        if tensor.dtype == "F32":
            return stored
        values, scales = self.fold_cast(stored, "float32"), getattr(tensor, "scales", None)
        if scales is None:
            return values
        factors = self.fold("Unsqueeze", self.stored(name + SCALES_SUFFIX, scales), self.ints(-1))
        return str(self.fold("Mul", values, factors))

    def cast(self, value: str, dtype: str) -> str:
        """A value in another type."""
        return self.op("Cast", value, to=TYPES[dtype])

    def fold_cast(self, value: str, dtype: str) -> str:
        """A weight in another type."""
        return self.fold("Cast", value, to=TYPES[dtype])

    def reshape(self, value: str, *shape: int) -> str:
        """A value in another shape; -1 is what remains."""
        return self.op("Reshape", value, self.ints(*shape))

    def size(self, value: str, axis: int) -> str:
        """The length of one axis, as a vector of one."""
        return self.op("Shape", value, start=axis, end=axis + 1)

    def range(self, count: str) -> str:
        """0 .. count - 1, for a vector of one."""
        scalars = (self.constant(0, "int64"), self.op("Squeeze", count), self.constant(1, "int64"))
        return self.op("Range", *scalars)

    def body(
        self, name: str, inputs: Sequence[ValueInfoProto], outputs: Sequence[ValueInfoProto]
    ) -> Any:
        """The nodes as a graph, with all constants and folded weights in the outermost one."""
        initializers = list(self.initializers.values())
        return helper.make_graph(self.nodes, name, list(inputs), list(outputs), initializers)


def _pointer(name: str, tensor: StoredTensor) -> TensorProto:
    """An initializer whose values lie in another file."""
    proto = TensorProto(
        name=name,
        dims=tensor.shape,
        data_type=_STORED_TYPES[tensor.dtype],
        data_location=TensorProto.EXTERNAL,
    )
    location = {"location": tensor.file.name, "offset": tensor.offset}
    for key, value in (location | {"length": tensor.num_bytes}).items():
        proto.external_data.add(key=key, value=str(value))
    return proto


def value_info(name: str, dtype: str, shape: Sequence[int | str]) -> ValueInfoProto:
    """An input or output; axes without a fixed length have names."""
    return helper.make_tensor_value_info(name, TYPES[dtype], list(shape))
