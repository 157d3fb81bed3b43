"""The four graphs of a codec: encoder and decoder, each for whole clips and for steps of streams.

A step takes and gives the state of every stream; the graph for whole clips scans a clip with
the same step, in chunks of `CHUNK_FRAMES` at most, so that its memory beyond input and output
does not grow with the clip. Owns the order of stages, patches and channels; names and shapes are
those of `onnx.manifest`.
"""

import json
from dataclasses import asdict
from typing import Any

from onnx import ModelProto, ValueInfoProto, helper

from ..config import CodecConfig, PatchStage, TransformerStage
from ..onnx.manifest import CHUNK_FRAMES, given_and_results, graph_values, rings_of
from .graph import IR_VERSION, OPSET, Graph, Weights, value_info
from .quantizer_nodes import QuantizerWriter
from .transformer_nodes import Linears, Rows, StageWriter


class CodecWriter:
    """Writes the encoder and the quantizer, or the quantizer and the decoder.

    Args:
        weights: weights of the checkpoint.
        side: "encoder" or "decoder".
        codes_type: "int32" or "int64".

    Attributes:
        given: what comes in, besides the state.
        results: what goes out.
        rings: the state of all layers, in order.
        entries_per_frame: entries of a frame along the last axis of what comes in.
    """

    def __init__(self, weights: Weights, side: str, codes_type: str) -> None:
        self.side = side
        self.config: CodecConfig = weights.config
        self.codes_type = codes_type
        self._weights = weights
        encodes = side == "encoder"
        self._stages = self.config.encoder if encodes else self.config.decoder
        self.given, self.results = given_and_results(self.config, side, codes_type)
        self.rings = rings_of(self.config, side)
        self.entries_per_frame = self.config.downsample_rate if encodes else 1

    def write(self, graph: Graph, given: str, rows: Rows) -> list[str]:
        """Results for the next frames of some streams, in the order of `results`."""
        quantizer = QuantizerWriter(graph, self._weights, self.config.quantizer)
        if self.side == "decoder":
            x = self._run_stages(graph, quantizer.decode(given), rows)
            return [self._from_rows(graph, x, rows.batch, self.config.number_channels, [0, 2, 1])]
        stream = graph.op("Transpose", given, perm=[0, 2, 1])
        hidden = self._run_stages(graph, graph.reshape(stream, -1, 1), rows)
        layers = self.config.quantizer.num_quantizers
        codes = self._from_rows(graph, quantizer.encode(hidden), rows.batch, layers, [2, 0, 1])
        width = self.config.quantizer.input_dim
        states = self._from_rows(graph, hidden, rows.batch, width, [0, 2, 1])
        return [graph.cast(codes, self.codes_type), states]

    def _from_rows(self, graph: Graph, rows: str, batch: str, width: int, perm: list[int]) -> str:
        shape = graph.op("Concat", batch, graph.ints(-1, width), axis=0)
        return graph.op("Transpose", graph.op("Reshape", rows, shape), perm=perm)

    def _run_stages(self, graph: Graph, x: str, rows: Rows) -> str:
        linears = Linears(graph, self._weights)
        width = 1 if self.side == "encoder" else self.config.quantizer.output_dim
        for index, stage in enumerate(self._stages):
            if isinstance(stage, TransformerStage):
                rings = [ring for ring in self.rings if ring.stage == index]
                prefix = f"{self.side}.{index}"
                x = StageWriter(graph, linears, stage, prefix, rings).write(x, rows)
                width = stage.output_dimension
            else:
                x, width = self._patch(graph, x, stage, width)
        return x

    def _patch(self, graph: Graph, x: str, stage: PatchStage, width: int) -> tuple[str, int]:
        """Fold (encoder) or unfold (decoder) steps: channel = channel x patch + offset."""
        size = stage.patch_size
        if self.side == "encoder":
            folded = graph.op("Transpose", graph.reshape(x, -1, size, width), perm=[0, 2, 1])
            return graph.reshape(folded, -1, width * size), width * size
        width //= size
        unfolded = graph.op("Transpose", graph.reshape(x, -1, width, size), perm=[0, 2, 1])
        return graph.reshape(unfolded, -1, width), width


Values = list[ValueInfoProto]


def build_model(
    weights: Weights, name: str, codes_type: str, producer: tuple[str, str]
) -> ModelProto:
    """One of `GRAPHS`, whose weights stay in their files.

    Args:
        weights: the checkpoint's.
        name: which graph.
        codes_type: "int32" or "int64".
        producer: name and version of what writes.
    """
    side, _, step = name.partition("_")
    graph, writer = Graph(), CodecWriter(weights, side, codes_type)
    (_write_step if step else _write_clip)(graph, writer)
    inputs, outputs = (
        [value_info(*value) for value in values]
        for values in graph_values(weights.config, name, codes_type)
    )
    model = finish_model(graph, name, (inputs, outputs), producer)
    if step:
        rings = json.dumps([asdict(ring) for ring in writer.rings])
        model.metadata_props.add(key="rings", value=rings)
    return model


def finish_model(
    graph: Graph, name: str, values: tuple[Values, Values], producer: tuple[str, str]
) -> ModelProto:
    """A model of a graph with these inputs and outputs."""
    domains = sorted(graph.domains)
    return helper.make_model(
        graph.body(name, *values),
        opset_imports=[helper.make_opsetid(domain, 1 if domain else OPSET) for domain in domains],
        ir_version=IR_VERSION,
        producer_name=producer[0],
        producer_version=producer[1],
    )


def _write_step(graph: Graph, writer: CodecWriter) -> None:
    """The next frames of some streams: ``active`` is true on a prefix of each row's."""
    active = graph.cast("active", "int64")
    counts = graph.op("ReduceSum", active, graph.ints(1), keepdims=0)
    rows = Rows(graph, "positions", graph.size("active", 1), counts)
    _name_all(graph, writer.write(graph, writer.given[0], rows), writer)
    graph.op("Add", "positions", counts, outputs=["next_positions"])


def _name_all(graph: Graph, values: list[str], writer: CodecWriter) -> None:
    for value, (name, _, _) in zip(values, writer.results, strict=True):
        graph.op("Identity", value, outputs=[name])


def _write_clip(graph: Graph, writer: CodecWriter) -> None:
    joined, frames = write_whole_clip(graph, writer, writer.given[0])
    _name_all(graph, joined, writer)
    if writer.side == "encoder":
        lengths = graph.op("Expand", frames, graph.size(writer.given[0], 0))
        lengths = graph.cast(lengths, writer.codes_type)
        graph.op("Identity", lengths, outputs=["audio_codes_lengths"])


def write_whole_clip(graph: Graph, writer: CodecWriter, given: str) -> tuple[list[str], str]:
    """A scan over chunks of equal length: the results, and the number of frames."""
    unit = writer.entries_per_frame
    frames = _divided_up(graph, graph.size(given, 2), graph.ints(unit))
    count = _divided_up(graph, frames, graph.ints(CHUNK_FRAMES))
    length = _divided_up(graph, frames, count)
    chunks = _cut(graph, given, count, graph.op("Mul", length, graph.ints(unit)))
    stacked = _scan(graph, writer, chunks, length)
    ends = _ends(graph, writer, frames)
    return [_joined(graph, part, end) for part, end in zip(stacked, ends, strict=True)], frames


def _divided_up(graph: Graph, count: str, by: str) -> str:
    """Count / by, rounded up."""
    raised = graph.op("Sub", graph.op("Add", count, by), graph.ints(1))
    return graph.op("Div", raised, by)


def _cut(graph: Graph, given: str, count: str, length: str) -> str:
    """(a, b, entries), zero-padded, as (count, a, b, length)."""
    missing = graph.op("Sub", graph.op("Mul", count, length), graph.size(given, 2))
    pads = graph.op("Concat", graph.ints(0, 0, 0, 0, 0), missing, axis=0)
    outer = graph.op("Shape", given, start=0, end=2)
    shape = graph.op("Concat", outer, count, length, axis=0)
    cut = graph.op("Reshape", graph.op("Pad", given, pads), shape)
    return graph.op("Transpose", cut, perm=[2, 0, 1, 3])


def _scan(graph: Graph, writer: CodecWriter, chunks: str, length: str) -> list[str]:
    """The results of every chunk, stacked along a new first axis."""
    states = _empty_states(graph, writer, chunks, length)
    body = Graph(graph)
    results = writer.write(body, "chunk", Rows(body, "positions", length, None))
    following = body.op("Add", "positions", length)
    rings = [ring.values() for ring in writer.rings]
    _, dtype, axes = writer.given
    inputs = [("positions", "int64", ["batch"]), *(value for past, _ in rings for value in past)]
    inputs.append(("chunk", dtype, [*axes[:-1], "entries"]))
    outputs = [(following, "int64", ["batch"]), *(value for _, new in rings for value in new)]
    outputs += [
        (value, kind, axes) for value, (_, kind, axes) in zip(results, writer.results, strict=True)
    ]
    values = ([value_info(*value) for value in side] for side in (inputs, outputs))
    found: Any = graph.op(
        "Scan",
        *states,
        chunks,
        outputs=len(outputs),
        body=body.body("chunk", *values),
        num_scan_inputs=1,
    )
    return list(found[len(states) :])


def _empty_states(graph: Graph, writer: CodecWriter, chunks: str, length: str) -> list[str]:
    """Position 0 and rings without entries, for every row."""
    batch = graph.size(chunks, 1 if writer.side == "encoder" else 2)
    states = [graph.op("Expand", graph.constant(0, "int64"), batch)]
    for ring in writer.rings:
        steps = graph.op("Mul", length, graph.ints(ring.steps_per_frame))
        places = graph.op("Add", steps, graph.ints(ring.context_steps))
        heads, width = graph.ints(ring.num_heads), graph.ints(ring.head_dim)
        shape = graph.op("Concat", batch, heads, places, width, axis=0)
        states += [graph.op("ConstantOfShape", shape)] * 2
    return states


def _ends(graph: Graph, writer: CodecWriter, frames: str) -> list[str]:
    """Where each result ends, without what was padded."""
    if writer.side == "encoder":
        return [frames, frames]
    return [graph.op("Mul", frames, graph.ints(writer.config.downsample_rate))]


def _joined(graph: Graph, chunks: str, end: str) -> str:
    """(count, a, b, length) as (a, b, end)."""
    moved = graph.op("Transpose", chunks, perm=[1, 2, 0, 3])
    outer = graph.op("Shape", moved, start=0, end=2)
    flat = graph.op("Reshape", moved, graph.op("Concat", outer, graph.ints(-1), axis=0))
    return graph.op("Slice", flat, graph.ints(0), end, graph.ints(2))
