"""The four graphs of a codec: encoder and decoder, each for whole clips and for steps of streams.

A step takes and gives the state of every stream; the graph for whole clips scans a clip with
the same step, in pieces of `PIECE_FRAMES` at most, so that its memory beyond input and output
does not grow with the clip. Owns names, shapes and the order of inputs and outputs.
"""

import json
from dataclasses import asdict
from typing import Any

from onnx import ModelProto, ValueInfoProto, helper

from ..onnx.shapes import PIECE_FRAMES
from .codec_nodes import CodecWriter
from .graph import IR_VERSION, OPSET, Graph, value_info
from .transformer_nodes import Ring, Rows
from .weights import Weights

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
    inputs, outputs = (_write_step if step else _write_clip)(graph, writer)
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


def _write_step(graph: Graph, writer: CodecWriter) -> tuple[Values, Values]:
    """The next frames of some streams: ``active`` is true on a prefix of each row's."""
    given = writer.given("samples" if writer.side == "encoder" else "frames")
    active = graph.cast("active", "int64")
    counts = graph.op("ReduceSum", active, graph.ints(1), keepdims=0)
    rows = Rows(graph, "positions", graph.size("active", 1), counts)
    _name_all(graph, writer.write(graph, given[0], rows), writer)
    graph.op("Add", "positions", counts, outputs=["next_positions"])
    rings_in, rings_out = _ring_values(writer.rings)
    flags = value_info("active", "bool", ["batch", "frames"])
    positions = value_info("positions", "int64", ["batch"])
    following = value_info("next_positions", "int64", ["batch"])
    results = [value_info(*result) for result in writer.results()]
    return [value_info(*given), flags, positions, *rings_in], [*results, following, *rings_out]


def _name_all(graph: Graph, values: list[str], writer: CodecWriter) -> None:
    """Give results their public names."""
    for value, (name, _, _) in zip(values, writer.results(), strict=True):
        graph.op("Identity", value, outputs=[name])


def _ring_values(rings: list[Ring]) -> tuple[Values, Values]:
    """State of the streams, as it comes in and goes out."""
    before, after = [], []
    for ring in rings:
        shape: list[int | str] = ["batch", ring.num_heads, f"places_{ring.stage}", ring.head_dim]
        for past, present in (ring.names("key"), ring.names("value")):
            before.append(value_info(past, "float32", shape))
            after.append(value_info(present, "float32", shape))
    return before, after


def _write_clip(graph: Graph, writer: CodecWriter) -> tuple[Values, Values]:
    """Whole clips, with the names that the manifest states."""
    given = writer.given("samples" if writer.side == "encoder" else "frames")
    joined, frames = write_whole_clip(graph, writer, given[0])
    _name_all(graph, joined, writer)
    results = [value_info(*result) for result in writer.results()]
    if writer.side == "encoder":
        lengths = graph.op("Expand", frames, graph.size(given[0], 0))
        graph.op(
            "Identity", graph.cast(lengths, writer.codes_type), outputs=["audio_codes_lengths"]
        )
        results.insert(1, value_info("audio_codes_lengths", writer.codes_type, ["batch"]))
    return [value_info(*given)], results


def write_whole_clip(graph: Graph, writer: CodecWriter, given: str) -> tuple[list[str], str]:
    """A scan over pieces of equal length: the results, and the number of frames."""
    unit = writer.entries_per_frame
    frames = _divided_up(graph, graph.size(given, 2), graph.ints(unit))
    count = _divided_up(graph, frames, graph.ints(PIECE_FRAMES))
    length = _divided_up(graph, frames, count)
    pieces = _cut(graph, given, count, graph.op("Mul", length, graph.ints(unit)))
    stacked = _scan(graph, writer, pieces, length)
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


def _scan(graph: Graph, writer: CodecWriter, pieces: str, length: str) -> list[str]:
    """The results of every piece, stacked along a new first axis."""
    states = _empty_states(graph, writer, pieces, length)
    body = Graph(graph)
    rows = Rows(body, "positions", length, None)
    results = writer.write(body, "piece", rows)
    following = body.op("Add", "positions", length)
    rings_in, rings_out = _ring_values(writer.rings)
    _, dtype, axes = writer.given("entries")
    inputs = [value_info("positions", "int64", ["batch"]), *rings_in]
    inputs.append(value_info("piece", dtype, axes))
    outputs = [value_info(following, "int64", ["batch"]), *rings_out]
    for value, (_, kind, axes) in zip(results, writer.results(), strict=True):
        outputs.append(value_info(value, kind, axes))
    found: Any = graph.op(
        "Scan",
        *states,
        pieces,
        outputs=len(outputs),
        body=body.body("piece", inputs, outputs),
        num_scan_inputs=1,
    )
    return list(found[len(states) :])


def _empty_states(graph: Graph, writer: CodecWriter, pieces: str, length: str) -> list[str]:
    """Position 0 and rings without entries, for every row."""
    batch = graph.size(pieces, 1 if writer.side == "encoder" else 2)
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


def _joined(graph: Graph, pieces: str, end: str) -> str:
    """(count, a, b, length) as (a, b, end)."""
    moved = graph.op("Transpose", pieces, perm=[1, 2, 0, 3])
    outer = graph.op("Shape", moved, start=0, end=2)
    flat = graph.op("Reshape", moved, graph.op("Concat", outer, graph.ints(-1), axis=0))
    return graph.op("Slice", flat, graph.ints(0), end, graph.ints(2))
