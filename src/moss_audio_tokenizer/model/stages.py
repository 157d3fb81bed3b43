"""Encoder and decoder: runs of patch stages, which have no weights, and Transformer stages.

A patch stage folds time into channels or back: output channel = input channel * patch size +
offset within the patch, as in released checkpoints. Stereo is interleaved sample by sample.
"""

from collections.abc import Callable, Sequence

from jaxtyping import Float
from torch import Tensor, nn

from ..config import CodecConfig, PatchStage, Stage
from .transformer import Transformer


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
