"""The two halves of the codec, ready to run: audio to hidden states and codes, codes to audio.

Each has its stages and the quantizer; this is the only place of the package where they meet.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from ..model.codec import Codec
from ..model.patchify import deinterleave, interleave
from .chunk_cache import StackState
from .fingerprint import stream_fingerprint
from .folded_quantizer import fold_quantizer
from .inference_stack import InferenceStack
from .ring_cache import RingKVCache, StepBatch


class InferenceEncoder:
    """Audio to hidden states, and hidden states to codes."""

    def __init__(self, codec: Codec, dtype: torch.dtype) -> None:
        config = codec.config
        self.config = config
        encoder = codec.require_encoder()
        self.identity = stream_fingerprint(config, dtype, encoder, codec.quantizer)
        self.stack = InferenceStack(encoder, config.encoder_rates, config.frame_rate, dtype)
        self.quantizer = fold_quantizer(codec.quantizer)

    def run_piece(
        self, audio: Float[Tensor, "batch channels samples"], state: StackState | None = None
    ) -> Float[Tensor, "batch frames width"]:
        """Hidden states of whole frames of audio; with a state, of the next of them."""
        return self.stack.run_piece(interleave(audio), state)

    def step(
        self,
        audio: Float[Tensor, "rows channels samples"],
        state: RingKVCache,
        rows: StepBatch,
    ) -> Float[Tensor, "rows frames width"]:
        """Hidden states of the next frames of some streams, whose positions advance."""
        return self.stack.step(interleave(audio), state, rows)


class InferenceDecoder:
    """Codes to hidden states, and hidden states to audio."""

    def __init__(self, codec: Codec, dtype: torch.dtype) -> None:
        config = codec.config
        self.config = config
        decoder = codec.require_decoder()
        self.identity = stream_fingerprint(config, dtype, decoder, codec.quantizer)
        self.stack = InferenceStack(decoder, config.decoder_rates, config.frame_rate, dtype)
        self.quantizer = fold_quantizer(codec.quantizer)

    def run_piece(
        self, hidden: Float[Tensor, "batch frames width"], state: StackState | None = None
    ) -> Float[Tensor, "batch channels samples"]:
        """Audio of what the quantizer decoded; with a state, of the next of it."""
        stream = self.stack.run_piece(hidden, state)
        return deinterleave(stream, self.config.number_channels)

    def step(
        self,
        hidden: Float[Tensor, "rows frames width"],
        state: RingKVCache,
        rows: StepBatch,
    ) -> Float[Tensor, "rows channels samples"]:
        """Audio of the next frames of some streams, whose positions advance."""
        stream = self.stack.step(hidden, state, rows)
        return deinterleave(stream, self.config.number_channels)
