"""What the verbs return; the names are those of `hf.model_outputs`."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int


@dataclass(frozen=True)
class EncoderOutput:
    """What `encode` returns.

    Attributes:
        audio_codes: int64; past a row's length they are 0.
        audio_codes_lengths: frames of each row.
        encoder_hidden_states: what the quantizer was given; past a row's length 0. None of streams.
    """

    audio_codes: Int[np.ndarray, "num_quantizers batch frames"]
    audio_codes_lengths: Int[np.ndarray, "batch"]
    encoder_hidden_states: Float[np.ndarray, "batch width frames"] | None = None


@dataclass(frozen=True)
class DecoderOutput:
    """What `decode` returns.

    Attributes:
        audio: float32; past a row's length it is 0.
        audio_lengths: samples (a channel) of each row.
    """

    audio: Float[np.ndarray, "batch channels samples"]
    audio_lengths: Int[np.ndarray, "batch"]
