"""What a codec costs at least: bytes to read and operations to do, counted from its configuration.

Owns the counting, and the time that it takes at least; the callers measure machines. An addition
and a multiplication are two operations; what is linear in the channels (norms, activations) is left
out.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from .codec import CodecConfig, TransformerStage

SIDES = ("encode", "decode")


@dataclass(frozen=True)
class Cost:
    """One part's share.

    Attributes:
        num_bytes: weights, and keys and values of the streams, each read once.
        operations: of products and attention.
    """

    num_bytes: float
    operations: float

    def seconds(self, bytes_a_second: float, operations_a_second: float) -> float:
        """The least time: reading and computing may overlap."""
        return max(self.num_bytes / bytes_a_second, self.operations / operations_a_second)


@dataclass(frozen=True)
class Machine:
    """The most that a machine does in one precision.

    Attributes:
        name: the device and the precision, for people.
        bytes_a_second: read from memory.
        operations_a_second: in large products.
        bytes_a_value: of weights, keys and values.
    """

    name: str
    bytes_a_second: float
    operations_a_second: float
    bytes_a_value: int

    def floor_seconds(self, costs: Sequence[Cost]) -> float:
        """The least time for parts that run one after the other."""
        return sum(c.seconds(self.bytes_a_second, self.operations_a_second) for c in costs)


def step_costs(
    config: CodecConfig, side: str, num_frames: int, num_streams: int, bytes_a_value: int = 4
) -> list[Cost]:
    """Costs of one step of streams that are past every window, part by part.

    Args:
        config: the codec.
        side: "encode" or "decode".
        num_frames: of each stream.
        num_streams: that step together: they share the weights.
        bytes_a_value: of weights, keys and values.
    """
    frames = num_frames * num_streams
    costs = [_quantizer_cost(config, side, frames)]
    for stage, rate in _stages(config, side):
        context = config.context_steps(stage, rate)
        steps = round(rate / config.frame_rate) * frames
        cache = 2 * stage.d_model * stage.num_layers * context * num_streams
        operations = 2 * _weights(stage) * steps
        operations += 4 * stage.d_model * stage.num_layers * context * steps
        costs.append(Cost((_weights(stage) + cache) * bytes_a_value, operations))
    return costs


def clip_costs(
    config: CodecConfig, side: str, num_frames: int, bytes_a_value: int = 4
) -> list[Cost]:
    """Costs of a whole clip, part by part."""
    costs = [_quantizer_cost(config, side, num_frames)]
    for stage, rate in _stages(config, side):
        steps = round(rate / config.frame_rate) * num_frames
        context = min(config.context_steps(stage, rate), steps)
        pairs = context * (context + 1) / 2 + (steps - context) * context
        operations = 2 * _weights(stage) * steps + 4 * stage.d_model * stage.num_layers * pairs
        costs.append(Cost(_weights(stage) * bytes_a_value, operations))
    return costs


def _stages(config: CodecConfig, side: str) -> Iterator[tuple[TransformerStage, float]]:
    encodes = side == "encode"
    stages = config.encoder if encodes else config.decoder
    rates = config.encoder_rates if encodes else config.decoder_rates
    for stage, rate in zip(stages, rates, strict=True):
        if isinstance(stage, TransformerStage):
            yield stage, rate


def _weights(stage: TransformerStage) -> int:
    block = 4 * stage.d_model**2 + 2 * stage.d_model * stage.dim_feedforward
    projections = stage.projects_input * stage.input_dimension
    projections += stage.projects_output * stage.output_dimension
    return stage.num_layers * block + projections * stage.d_model


def _quantizer_cost(config: CodecConfig, side: str, frames: int) -> Cost:
    """Always in float32, its affine parts folded together."""
    quantizer = config.quantizer
    width = quantizer.num_quantizers * quantizer.codebook_dim
    if side == "decode":
        weights = width * quantizer.output_dim
    else:
        weights = width * (quantizer.input_dim + quantizer.codebook_size)
    return Cost(4 * weights, 2 * weights * frames)
