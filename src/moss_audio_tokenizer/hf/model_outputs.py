"""What the public methods return, in the manner of transformers."""

from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor
from transformers.utils import ModelOutput


@dataclass
class MossAudioTokenizerEncoderOutput(ModelOutput):
    """What `encode` returns.

    Attributes:
        audio_codes: int64; past a row's length they are 0.
        audio_codes_lengths: frames of each row.
        encoder_hidden_states: what the quantizer was given; past a row's length 0.
    """

    audio_codes: Int[Tensor, "num_quantizers batch frames"] = None  # type: ignore[assignment]
    audio_codes_lengths: Int[Tensor, "batch"] = None  # type: ignore[assignment]
    encoder_hidden_states: Float[Tensor, "batch width frames"] = None  # type: ignore[assignment]


@dataclass
class MossAudioTokenizerDecoderOutput(ModelOutput):
    """What `decode` returns.

    Attributes:
        audio: float32; past a row's length it is 0.
        audio_lengths: samples (a channel) of each row.
    """

    audio: Float[Tensor, "batch channels samples"] = None  # type: ignore[assignment]
    audio_lengths: Int[Tensor, "batch"] = None  # type: ignore[assignment]


@dataclass
class MossAudioTokenizerOutput(ModelOutput):
    """What the model returns when called: audio that went through codes and back."""

    audio: Float[Tensor, "batch channels samples"] = None  # type: ignore[assignment]
    audio_lengths: Int[Tensor, "batch"] = None  # type: ignore[assignment]
    audio_codes: Int[Tensor, "num_quantizers batch frames"] = None  # type: ignore[assignment]
    audio_codes_lengths: Int[Tensor, "batch"] = None  # type: ignore[assignment]


_TUPLES: dict[type[ModelOutput], tuple[str, ...]] = {
    MossAudioTokenizerEncoderOutput: ("audio_codes", "audio_codes_lengths"),
    MossAudioTokenizerDecoderOutput: ("audio",),
    MossAudioTokenizerOutput: ("audio_codes", "audio", "audio_lengths"),
}


def released_tuple(output: ModelOutput) -> tuple[Tensor, ...]:
    """The tuple that the released code returns with ``return_dict=False``."""
    return tuple(output[name] for name in _TUPLES[type(output)])
