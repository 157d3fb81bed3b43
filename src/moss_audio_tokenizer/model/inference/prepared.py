"""A codec's halves made ready when first needed, and made anew when its weights have changed."""

import torch

from ..codec import Codec
from ..stack import StageStack
from .halves import DecoderHalf, EncoderHalf


class Prepared:
    """The halves of one codec for inference, in one precision at a time.

    Weights count as changed when a parameter was replaced, moved or written to. Writing through
    ``parameter.data`` leaves no trace: call `forget` after that.
    """

    def __init__(self) -> None:
        self._encoder: tuple[object, EncoderHalf] | None = None
        self._decoder: tuple[object, DecoderHalf] | None = None

    def encoder(self, codec: Codec, dtype: torch.dtype) -> EncoderHalf:
        """The encoder and the quantizer, ready to run."""
        stamp = _stamp(codec.require_encoder(), codec, dtype)
        if self._encoder is None or self._encoder[0] != stamp:
            self._encoder = (stamp, EncoderHalf(codec, dtype))
        return self._encoder[1]

    def decoder(self, codec: Codec, dtype: torch.dtype) -> DecoderHalf:
        """The quantizer and the decoder, ready to run."""
        stamp = _stamp(codec.require_decoder(), codec, dtype)
        if self._decoder is None or self._decoder[0] != stamp:
            self._decoder = (stamp, DecoderHalf(codec, dtype))
        return self._decoder[1]

    def forget(self) -> None:
        """Prepare afresh at the next use."""
        self._encoder = self._decoder = None


def _stamp(part: StageStack, codec: Codec, dtype: torch.dtype) -> object:
    """Equal as long as nothing has changed that a half was made of."""
    backends = [stage.attention_backend for stage in part.transformers()]
    versions = [
        (parameter.data_ptr(), 0 if parameter.is_inference() else parameter._version)
        for module in (part, codec.quantizer)
        for parameter in module.parameters()
    ]
    return dtype, backends, versions
