"""A codec's halves made ready when first needed, and made anew when its weights have changed."""

from copy import copy, deepcopy

import torch
from torch import Tensor

from ..model.codec import Codec
from ..model.stack import StageStack
from .inference_codec import InferenceDecoder, InferenceEncoder


class InferenceCache:
    """The halves of one codec for inference, in one precision at a time.

    Weights count as changed when a parameter was replaced, moved or written to. Writing through
    ``parameter.data`` leaves no trace: call `forget` after that.
    """

    def __init__(self) -> None:
        self._encoder: tuple[object, list[Tensor], InferenceEncoder] | None = None
        self._decoder: tuple[object, list[Tensor], InferenceDecoder] | None = None

    def encoder(self, codec: Codec, dtype: torch.dtype) -> InferenceEncoder:
        """The encoder and the quantizer, ready to run."""
        encoder = codec.require_encoder()
        stamp = _stamp(encoder, codec, dtype)
        if self._encoder is None or self._encoder[0] != stamp:
            self._encoder = (
                stamp,
                _weights(encoder, codec),
                InferenceEncoder(_in_float32(codec, "encoder"), dtype),
            )
        return self._encoder[2]

    def decoder(self, codec: Codec, dtype: torch.dtype) -> InferenceDecoder:
        """The quantizer and the decoder, ready to run."""
        decoder = codec.require_decoder()
        stamp = _stamp(decoder, codec, dtype)
        if self._decoder is None or self._decoder[0] != stamp:
            self._decoder = (
                stamp,
                _weights(decoder, codec),
                InferenceDecoder(_in_float32(codec, "decoder"), dtype),
            )
        return self._decoder[2]

    def forget(self) -> None:
        """Prepare afresh at the next use."""
        self._encoder = self._decoder = None


def _in_float32(codec: Codec, side: str) -> Codec:
    """The codec with its quantizer and one side in float32, from weights of whatever type."""
    parts = {name: getattr(codec, name) for name in (side, "quantizer")}
    if all(
        weight.dtype == torch.float32 for part in parts.values() for weight in part.parameters()
    ):
        return codec
    converted = copy(codec)
    converted._modules = codec._modules | {name: deepcopy(p).float() for name, p in parts.items()}
    return converted


def _stamp(part: StageStack, codec: Codec, dtype: torch.dtype) -> object:
    """Equal as long as nothing has changed that a half was made of."""
    backends = [stage.attention_backend for stage in part.transformers()]
    versions = [
        (weight.data_ptr(), 0 if weight.is_inference() else weight._version)
        for weight in _weights(part, codec)
    ]
    return dtype, backends, versions


def _weights(part: StageStack, codec: Codec) -> list[Tensor]:
    """What a half is made of. Kept beside it, so that no new weight comes to lie at its address."""
    return [
        parameter.detach()
        for module in (part, codec.quantizer)
        for parameter in module.parameters()
    ]
