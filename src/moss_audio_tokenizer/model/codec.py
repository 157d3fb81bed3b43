"""The codec: encoder, quantizer and decoder put together, and how they are initialized.

This is the reference, and what is trained. Inference runs the same function of the same weights
in `runtime`; tests/runtime/test_inference_codec.py and test_folded_quantizer.py hold the two
equal. Encoder and decoder are optional, the quantizer is not. Works on whole frames of checked
tensors; padding, lengths and formats belong to its callers.
"""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..config import CodecConfig
from ..errors import ConfigError
from .quantizer import LayeredLinear, ResidualQuantizer, WeightNormLinear
from .stages import Decoder, Encoder

PARTS = ("all", "encoder", "decoder")


class Codec(nn.Module):
    """Audio to codes and back.

    Args:
        config: what to build.
        parts: "all", "encoder" (with the quantizer) or "decoder" (with the quantizer).
    """

    def __init__(self, config: CodecConfig, parts: str = "all") -> None:
        super().__init__()
        if parts not in PARTS:
            raise ConfigError(f"parts is {parts!r}; expected one of {', '.join(PARTS)}")
        self.config = config
        self.encoder = Encoder(config) if parts != "decoder" else None
        self.quantizer = ResidualQuantizer(config.quantizer)
        self.decoder = Decoder(config) if parts != "encoder" else None

    def require_encoder(self) -> Encoder:
        """The encoder, or a ConfigError that says how to get it."""
        if self.encoder is None:
            raise ConfigError("only the decoder was loaded; load with parts='all' or 'encoder'")
        return self.encoder

    def require_decoder(self) -> Decoder:
        """The decoder, or a ConfigError that says how to get it."""
        if self.decoder is None:
            raise ConfigError("only the encoder was loaded; load with parts='all' or 'decoder'")
        return self.decoder

    def reconstruct(
        self, audio: Float[Tensor, "batch channels samples"], num_quantizers: int | None = None
    ) -> tuple[Float[Tensor, "batch channels samples"], Int[Tensor, "num_quantizers batch frames"]]:
        """Whole frames of audio through codes and back: (audio, codes)."""
        codes = self.quantizer.encode(self.require_encoder()(audio), num_quantizers)
        return self.require_decoder()(self.quantizer.decode(codes)), codes

    @torch.no_grad()
    def initialize(self, generator: torch.Generator | None = None) -> None:
        """Draw new weights for all modules.

        | tensors                                    | value                                   |
        | ------------------------------------------ | --------------------------------------- |
        | linear layers of the Transformer stages    | uniform, variance 1 / (3 fan-in)        |
        | layer norms                                | weight 1, bias 0                        |
        | layer scales                               | the configuration's (0.01)              |
        | quantizer's directions                     | normal, std 0.02                        |
        | quantizer's gains                          | the length of their direction           |
        | quantizer's biases                         | 0                                       |
        | codebooks                                  | normal, std 1                           |

        The small quantizer weights keep the Jacobian I - O W of each layer close to I:
        larger ones explode over 32 layers.
        """
        for module in self.modules():
            if isinstance(module, nn.Linear):
                bound = 1 / math.sqrt(module.in_features)
                nn.init.uniform_(module.weight, -bound, bound, generator=generator)
            elif isinstance(module, WeightNormLinear | LayeredLinear):
                nn.init.normal_(module.direction, std=0.02, generator=generator)
                module.gain.copy_(module.direction.norm(dim=-1))
                nn.init.zeros_(module.bias)
        nn.init.normal_(self.quantizer.codebooks, generator=generator)
