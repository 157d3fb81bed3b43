"""Inference encoders and decoders, built at first use and rebuilt when weights change."""

from collections.abc import Callable
from copy import copy, deepcopy
from typing import Any, TypeVar

import torch
from torch import Tensor

from ..model.codec import Codec, StageStack
from .inference_codec import InferenceCoder, InferenceDecoder, InferenceEncoder

Coder = TypeVar("Coder", bound=InferenceCoder)
# Values that are compared of every weight, evenly spaced.
_SAMPLES = 16


class InferenceCache:
    """The inference encoder and decoder of one codec, in one precision at a time.

    Weights count as changed when a parameter was replaced, moved or written to. Writing through
    ``parameter.data`` leaves PyTorch's version counter alone; it is noticed by 16 values of every
    weight. After writing less than whole weights in that way, call `clear`.
    """

    def __init__(self) -> None:
        self._made: dict[str, tuple[_Stamp, Any]] = {}

    def encoder(self, codec: Codec, dtype: torch.dtype) -> InferenceEncoder:
        """The encoder and the quantizer, ready to run."""
        stages = codec.encoder or codec.require_encoder()
        return self._get(codec, stages, "encoder", InferenceEncoder, dtype)

    def decoder(self, codec: Codec, dtype: torch.dtype) -> InferenceDecoder:
        """The quantizer and the decoder, ready to run."""
        stages = codec.decoder or codec.require_decoder()
        return self._get(codec, stages, "decoder", InferenceDecoder, dtype)

    def _get(
        self,
        codec: Codec,
        stages: StageStack,
        side: str,
        make: Callable[[Codec, torch.dtype], Coder],
        dtype: torch.dtype,
    ) -> Coder:
        stamp = _Stamp(stages, codec, dtype)
        made = self._made.get(side)
        if made is None or not stamp.equals(made[0]):
            made = self._made[side] = (stamp, make(_in_float32(codec, side), dtype))
        return made[1]

    def clear(self) -> None:
        """Rebuild both at their next use."""
        self._made.clear()


class _Stamp:
    """Equal as long as nothing has changed that an inference encoder or decoder was built from."""

    def __init__(self, part: StageStack, codec: Codec, dtype: torch.dtype) -> None:
        # Held, so that no new weight can be allocated at the address of an old one.
        self._weights = [
            parameter.detach()
            for module in (part, codec.quantizer)
            for parameter in module.parameters()
        ]
        self._settings = dtype, [stage.attention_backend for stage in part.transformers()]
        self._versions = [
            (weight.data_ptr(), 0 if weight.is_inference() else weight._version)
            for weight in self._weights
        ]
        self._samples = torch.cat([_samples(weight) for weight in self._weights])

    def equals(self, other: "_Stamp") -> bool:
        """Whether settings, versions and samples are the same."""
        return (
            self._settings == other._settings
            and self._versions == other._versions
            and torch.equal(self._samples, other._samples)
        )


def _samples(weight: Tensor) -> Tensor:
    """The bits of some values, since NaN would equal nothing."""
    values = weight.flatten()[:: max(1, weight.numel() // _SAMPLES)]
    return values.float().view(torch.int32)


def _in_float32(codec: Codec, side: str) -> Codec:
    """The codec with its quantizer and one side in float32, from weights of whatever type."""
    parts = {name: getattr(codec, name) for name in (side, "quantizer")}
    weights = [weight for part in parts.values() for weight in part.parameters()]
    if all(weight.dtype == torch.float32 for weight in weights):
        return codec
    converted = copy(codec)
    converted._modules = codec._modules | {name: deepcopy(p).float() for name, p in parts.items()}
    return converted
