"""What the graphs of a codec take and give, as its configuration has it; see docs/onnx.md.

Standard library only. Owns names, types, shapes and rings; reads no files.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from ..config import CodecConfig, TransformerStage

GRAPHS = ("encoder", "decoder", "encoder_step", "decoder_step")
# Frames of a whole clip that are computed at a time, unless chunk_duration says otherwise.
PIECE_FRAMES = 25


@dataclass(frozen=True)
class RingShape:
    """Keys and values of one layer, inputs and outputs of a step; see docs/onnx.md.

    Attributes:
        layer: counted through the encoder or the decoder.
        stage: rings of one stage have the same number of positions.
        num_heads: of attention.
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


def rings_of(config: CodecConfig, name: str) -> list[RingShape]:
    """The state of a graph; empty for those of whole clips."""
    side, _, step = name.partition("_")
    if not step:
        return []
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


def facts_of(config: CodecConfig, name: str, codes_type: str) -> dict[str, list[dict[str, Any]]]:
    """Inputs, outputs and rings of a graph, in their order and as a manifest has them."""
    rings = rings_of(config, name)
    step = name.endswith("_step")
    given, results = _values(config, name, codes_type)
    if step:
        given += [
            _value("active", "bool", "batch", "frames"),
            _value("positions", "int64", "batch"),
        ]
        results.append(_value("next_positions", "int64", "batch"))
    facts = {
        "inputs": given + list(_state("past_key_values", rings)),
        "outputs": results + list(_state("present", rings)),
    }
    return facts | ({"rings": [asdict(ring) for ring in rings]} if step else {})


def _values(
    config: CodecConfig, name: str, codes_type: str
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """What comes in and goes out besides state."""
    audio = ("float32", "batch", config.number_channels, "samples")
    if name.startswith("decoder"):
        codes = _value("audio_codes", codes_type, "num_quantizers", "batch", "frames")
        return [codes], [_value("audio", *audio)]
    quantizer = config.quantizer
    results = [
        _value("audio_codes", codes_type, quantizer.num_quantizers, "batch", "frames"),
        _value("encoder_hidden_states", "float32", "batch", quantizer.input_dim, "frames"),
    ]
    if name == "encoder":
        results.insert(1, _value("audio_codes_lengths", codes_type, "batch"))
    return [_value("input_values", *audio)], results


def _state(prefix: str, rings: list[RingShape]) -> Iterator[dict[str, Any]]:
    for ring in rings:
        shape = ("batch", ring.num_heads, f"places_{ring.stage}", ring.head_dim)
        for kind in ("key", "value"):
            yield _value(f"{prefix}.{ring.layer}.{kind}", "float32", *shape)


def _value(name: str, dtype: str, *shape: int | str) -> dict[str, Any]:
    return {"name": name, "type": dtype, "shape": list(shape)}
