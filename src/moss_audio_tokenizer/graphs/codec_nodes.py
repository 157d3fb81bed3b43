"""Encoding or decoding as nodes: audio to codes, or codes to audio, of the next frames of rows.

Owns the order of stages, patches and channels, and the names of what comes in and goes out.
"""

from ..config import CodecConfig, PatchStage, TransformerStage
from .graph import Graph
from .linear_nodes import Linears
from .quantizer_nodes import QuantizerWriter
from .transformer_nodes import Ring, Rows, StageWriter
from .weights import Weights

SIDES = ("encoder", "decoder")
# A name, a type, and axes.
Value = tuple[str, str, list[int | str]]


class CodecWriter:
    """Writes the encoder and the quantizer, or the quantizer and the decoder.

    Args:
        weights: of the checkpoint.
        side: "encoder" or "decoder".
        codes_type: "int32" or "int64".

    Attributes:
        rings: of all layers, in order.
        entries_per_frame: along the last axis of what comes in.
    """

    def __init__(self, weights: Weights, side: str, codes_type: str) -> None:
        self.side = side
        self.config: CodecConfig = weights.config
        self.codes_type = codes_type
        self._weights = weights
        encodes = side == "encoder"
        self._stages = self.config.encoder if encodes else self.config.decoder
        self.rings = [ring for rings in self._rings_by_stage().values() for ring in rings]
        self.entries_per_frame = self.config.downsample_rate if encodes else 1

    def _rings_by_stage(self) -> dict[int, list[Ring]]:
        """The rings of every Transformer stage, by its place among all stages."""
        config = self.config
        rates = config.encoder_rates if self.side == "encoder" else config.decoder_rates
        rings: dict[int, list[Ring]] = {}
        for index, (stage, rate) in enumerate(zip(self._stages, rates, strict=True)):
            if isinstance(stage, TransformerStage):
                first = sum(map(len, rings.values()))
                rings[index] = [
                    Ring(
                        layer=first + layer,
                        stage=index,
                        num_heads=stage.num_heads,
                        head_dim=stage.d_model // stage.num_heads,
                        context_steps=config.context_steps(stage, rate),
                        steps_per_frame=round(rate / config.frame_rate),
                    )
                    for layer in range(stage.num_layers)
                ]
        return rings

    def given(self, entries: str) -> Value:
        """What comes in; ``entries`` names its last axis."""
        config = self.config
        if self.side == "encoder":
            return "input_values", "float32", ["batch", config.number_channels, entries]
        return "audio_codes", self.codes_type, ["num_quantizers", "batch", entries]

    def results(self) -> list[Value]:
        """What goes out."""
        config = self.config
        if self.side == "decoder":
            return [("audio", "float32", ["batch", config.number_channels, "samples"])]
        quantizer = config.quantizer
        return [
            ("audio_codes", self.codes_type, [quantizer.num_quantizers, "batch", "frames"]),
            ("encoder_hidden_states", "float32", ["batch", quantizer.input_dim, "frames"]),
        ]

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
        rings = self._rings_by_stage()
        width = 1 if self.side == "encoder" else self.config.quantizer.output_dim
        for index, stage in enumerate(self._stages):
            if isinstance(stage, TransformerStage):
                prefix = f"{self.side}.{index}"
                x = StageWriter(graph, linears, stage, prefix, rings[index]).write(x, rows)
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
