"""What the graphs of a codec take and give, as its configuration has it; see docs/onnx.md.

Standard library only. Owns names, types, shapes and rings, for the writer of the graphs and for
those who run them; reads no files.
"""

from dataclasses import asdict, dataclass
from typing import Any

from ..config import CodecConfig, TransformerStage

GRAPHS = ("encoder", "decoder", "encoder_step", "decoder_step")
# Frames of a whole clip that are computed at a time, unless chunk_duration says otherwise.
CHUNK_FRAMES = 25
# An input or output: its name, its type, and its axes.
Value = tuple[str, str, list[int | str]]


@dataclass(frozen=True)
class RingShape:
    """Keys and values of one layer, inputs and outputs of a step.

    Attributes:
        layer: counted through the encoder or the decoder.
        stage: rings of one stage have the same number of positions.
        num_heads: attention heads.
        head_dim: width of a head.
        context_steps: the attention window.
        steps_per_frame: steps that are written for each frame.
    """

    layer: int
    stage: int
    num_heads: int
    head_dim: int
    context_steps: int
    steps_per_frame: int

    def places(self, max_chunk_frames: int) -> int:
        """Positions of a ring for steps of so many frames: window, chunk less one, and a spare."""
        return self.context_steps + max_chunk_frames * self.steps_per_frame

    def names(self, kind: str) -> tuple[str, str]:
        """Names of the "key" or "value" entries that come in and that go out."""
        return f"past_key_values.{self.layer}.{kind}", f"present.{self.layer}.{kind}"

    def values(self) -> tuple[list[Value], list[Value]]:
        """Keys and values as they come in and as they go out."""
        axes: list[int | str] = ["batch", self.num_heads, f"places_{self.stage}", self.head_dim]
        names = (self.names(kind) for kind in ("key", "value"))
        past, present = zip(*names, strict=True)
        return [(name, "float32", axes) for name in past], [(n, "float32", axes) for n in present]


def rings_of(config: CodecConfig, side: str) -> list[RingShape]:
    """The state of the "encoder" or the "decoder", layer by layer."""
    encodes = side == "encoder"
    stages = config.encoder if encodes else config.decoder
    rates = config.encoder_rates if encodes else config.decoder_rates
    rings: list[RingShape] = []
    for index, (stage, rate) in enumerate(zip(stages, rates, strict=True)):
        if isinstance(stage, TransformerStage):
            width = stage.d_model // stage.num_heads
            steps = (config.context_steps(stage, rate), round(rate / config.frame_rate))
            for _ in range(stage.num_layers):
                rings.append(RingShape(len(rings), index, stage.num_heads, width, *steps))
    return rings


def given_and_results(config: CodecConfig, side: str, codes_type: str) -> tuple[Value, list[Value]]:
    """What the encoder or the decoder takes and gives for some frames, besides its state."""
    quantizer = config.quantizer
    audio: list[int | str] = ["batch", config.number_channels, "samples"]
    if side == "decoder":
        codes: list[int | str] = ["num_quantizers", "batch", "frames"]
        return ("audio_codes", codes_type, codes), [("audio", "float32", audio)]
    return ("input_values", "float32", audio), [
        ("audio_codes", codes_type, [quantizer.num_quantizers, "batch", "frames"]),
        ("encoder_hidden_states", "float32", ["batch", quantizer.input_dim, "frames"]),
    ]


def graph_values(
    config: CodecConfig, name: str, codes_type: str
) -> tuple[list[Value], list[Value]]:
    """Inputs and outputs of one of `GRAPHS`, in their order."""
    side, _, step = name.partition("_")
    given, results = given_and_results(config, side, codes_type)
    if not step:
        if side == "encoder":
            results.insert(1, ("audio_codes_lengths", codes_type, ["batch"]))
        return [given], results
    state = [ring.values() for ring in rings_of(config, side)]
    active: Value = ("active", "bool", ["batch", "frames"])
    positions: Value = ("positions", "int64", ["batch"])
    following: Value = ("next_positions", "int64", ["batch"])
    before = [value for past, _ in state for value in past]
    after = [value for _, present in state for value in present]
    return [given, active, positions, *before], [*results, following, *after]


def facts_of(config: CodecConfig, name: str, codes_type: str) -> dict[str, list[dict[str, Any]]]:
    """Inputs, outputs and rings of a graph, in their order and as a manifest has them."""
    inputs, outputs = (
        [{"name": value, "type": dtype, "shape": axes} for value, dtype, axes in values]
        for values in graph_values(config, name, codes_type)
    )
    facts = {"inputs": inputs, "outputs": outputs}
    if not name.endswith("_step"):
        return facts
    rings = rings_of(config, name.removesuffix("_step"))
    return facts | {"rings": [asdict(ring) for ring in rings]}
