"""The codec: encoder, quantizer and decoder put together, and how they are initialized.

This is the reference, and what is trained. Inference runs the same function of the same weights
in `runtime`; tests/runtime/test_inference_codec.py and test_folded_quantizer.py hold the two
equal. Encoder and decoder are runs of patch stages, which have no weights, and Transformer stages;
a patch stage folds time into channels or back: output channel = input channel * patch size +
offset within the patch, as in released checkpoints. Either is optional, the quantizer is not. Works
on whole frames of checked tensors; padding, lengths and formats belong to its callers.
"""

import math
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..config import CodecConfig, PatchStage, Stage
from ..errors import ConfigError
from .quantizer import LayeredLinear, ResidualQuantizer, WeightNormLinear
from .transformer import Transformer

PARTS = ("all", "encoder", "decoder")


def patchify(
    x: Float[Tensor, "batch steps width"], patch_size: int
) -> Float[Tensor, "batch patches patch_width"]:
    """Fold every ``patch_size`` steps into channels."""
    return x.unflatten(1, (-1, patch_size)).transpose(2, 3).flatten(2)


def unpatchify(
    x: Float[Tensor, "batch patches patch_width"], patch_size: int
) -> Float[Tensor, "batch steps width"]:
    """The inverse of `patchify`."""
    return x.unflatten(2, (-1, patch_size)).transpose(2, 3).flatten(1, 2)


def interleave(
    audio: Float[Tensor, "batch channels samples"],
) -> Float[Tensor, "batch stream 1"]:
    """Channels sample by sample into one stream: L0 R0 L1 R1 ..."""
    return audio.transpose(1, 2).flatten(1)[..., None]


def deinterleave(
    stream: Float[Tensor, "batch stream 1"], num_channels: int
) -> Float[Tensor, "batch channels samples"]:
    """The inverse of `interleave`."""
    return stream.squeeze(-1).unflatten(1, (-1, num_channels)).transpose(1, 2)


class Patchify(nn.Module):
    """`patchify` as a stage of the encoder."""

    def __init__(self, patch_size: int) -> None:
        super().__init__()
        self.patch_size = patch_size

    def forward(self, x: Tensor) -> Tensor:
        """Fold steps into channels."""
        return patchify(x, self.patch_size)


class Unpatchify(nn.Module):
    """`unpatchify` as a stage of the decoder."""

    def __init__(self, patch_size: int) -> None:
        super().__init__()
        self.patch_size = patch_size

    def forward(self, x: Tensor) -> Tensor:
        """Unfold channels into steps."""
        return unpatchify(x, self.patch_size)


class StageStack(nn.Module):
    """Stages in order; indices count patch stages too, as released checkpoints do.

    Args:
        config: the codec's, which knows how many steps a stage's window has.
        stages: what to build.
        rates: steps a second at which each stage works.
        make_patch: builds a patch stage of a given size.
    """

    def __init__(
        self,
        config: CodecConfig,
        stages: Sequence[Stage],
        rates: Sequence[float],
        make_patch: Callable[[int], nn.Module],
    ) -> None:
        super().__init__()
        self.stages = nn.ModuleList(
            make_patch(stage.patch_size)
            if isinstance(stage, PatchStage)
            else Transformer(stage, config.context_steps(stage, rate))
            for stage, rate in zip(stages, rates, strict=True)
        )

    def transformers(self) -> list[Transformer]:
        """The Transformer stages, in order."""
        return [stage for stage in self.stages if isinstance(stage, Transformer)]

    def run(self, x: Tensor) -> Tensor:
        """Pass ``x`` through every stage."""
        for stage in self.stages:
            x = stage(x)
        return x


class Encoder(StageStack):
    """Raw patches of the waveform through causal Transformer stages, to frames."""

    def __init__(self, config: CodecConfig) -> None:
        super().__init__(config, config.encoder, config.encoder_rates, Patchify)

    def forward(
        self, audio: Float[Tensor, "batch channels samples"]
    ) -> Float[Tensor, "batch frames width"]:
        """Hidden states of whole frames of audio."""
        return self.run(interleave(audio))


class Decoder(StageStack):
    """Frames through causal Transformer stages, unfolded to raw patches of the waveform."""

    def __init__(self, config: CodecConfig) -> None:
        super().__init__(config, config.decoder, config.decoder_rates, Unpatchify)
        self.num_channels = config.number_channels

    def forward(
        self, hidden: Float[Tensor, "batch frames width"]
    ) -> Float[Tensor, "batch channels samples"]:
        """Audio of frames."""
        return deinterleave(self.run(hidden), self.num_channels)


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
