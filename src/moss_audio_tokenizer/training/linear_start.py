"""A start for encoder and decoder from data: their projections as principal components.

Owns the arithmetic; knows nothing of the loop. With small layer scales the blocks of a fresh codec
add next to nothing, so that encoder and decoder are chains of linear maps. Random ones lose the
waveform, and learn it slowly, as deep linear networks do. Here every projection of the encoder
keeps the directions in which its input varies most, and the decoder undoes it: the codec begins as
a transform codec of low frequencies, phase included, and learns the rest from there.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..errors import ConfigError
from ..model.codec import Codec
from ..model.patchify import Patchify, interleave, patchify
from ..model.transformer import Transformer

# Blocks are normalised and projections are not: their input should vary by about 1.
_STREAM_RMS = 1.0


@torch.no_grad()
def start_linear(codec: Codec, audio: Float[Tensor, "batch channels samples"]) -> list[float]:
    """Set the projections of encoder and decoder from audio.

    Args:
        codec: changed in place; its decoder has the encoder's stages in reverse.
        audio: whole frames; enough of them to have as many patches as the widest stage is wide.

    Returns:
        The share of the variance that each stage of the encoder keeps.

    Raises:
        ConfigError: the decoder does not mirror the encoder.
    """
    encoder, decoder = codec.require_encoder(), codec.require_decoder()
    stages = [stage for stage in encoder.stages if isinstance(stage, Transformer)]
    mirrored = [stage for stage in decoder.stages if isinstance(stage, Transformer)][::-1]
    if len(stages) != len(mirrored):
        raise ConfigError("warm_start.linear needs a decoder with as many stages as the encoder")
    x = interleave(audio)
    gain = _STREAM_RMS / float(x.square().mean().sqrt().clamp_min(1e-6))
    kept: list[float] = []
    maps: list[Tensor] = []
    for stage in encoder.stages:
        if isinstance(stage, Patchify):
            x = patchify(x, stage.patch_size)
        elif isinstance(stage, Transformer):
            kept.append(_keep_principal(stage, x.flatten(0, 1), gain))
            if stage is stages[-1]:
                _even_out(stage, x.flatten(0, 1))
            maps.append(_linear_map(stage, x.shape[-1]))
            x, gain = x @ maps[-1].T, 1.0
    for stage, forwards in zip(mirrored, maps, strict=True):
        _set_map(stage, torch.linalg.pinv(forwards))
    return kept


def _keep_principal(
    stage: Transformer, samples: Float[Tensor, "samples width"], gain: float
) -> float:
    """Make the first projection of a stage keep what varies most; the share that it keeps."""
    if not isinstance(stage.input_proj, nn.Linear):
        return 1.0
    variances, directions = torch.linalg.eigh((samples.T @ samples / len(samples)).double())
    width = stage.input_proj.out_features
    _fill(stage.input_proj, directions.flip(1)[:, :width].T.float() * gain)
    if isinstance(stage.output_proj, nn.Linear):
        _fill(stage.output_proj, torch.eye(stage.output_proj.out_features, width))
    size = min(projection.out_features for projection in _projections(stage))
    return float(variances.flip(0)[:size].sum() / variances.sum())


def _even_out(stage: Transformer, samples: Float[Tensor, "samples width"]) -> None:
    """Bring the hidden states' channels half way to a common variance (in dB).

    Noise and the error of the quantizer are of one size in all channels, and would drown the
    weaker ones, which are heard no less.
    """
    for projection in _projections(stage)[-1:]:
        spread = (samples @ _linear_map(stage, samples.shape[-1]).T).square().mean(0)
        scale = (spread / spread.mean()).clamp_min(1e-6) ** -0.25
        projection.weight.mul_(scale[:, None])


def _set_map(stage: Transformer, wanted: Float[Tensor, "outputs inputs"]) -> None:
    """Make a stage compute ``wanted`` on its first channels, as far as its width allows."""
    if isinstance(stage.output_proj, nn.Linear):
        if isinstance(stage.input_proj, nn.Linear):
            _fill(stage.input_proj, torch.eye(*stage.input_proj.weight.shape))
        _fill(stage.output_proj, wanted)
    elif isinstance(stage.input_proj, nn.Linear):
        _fill(stage.input_proj, wanted)


def _fill(linear: nn.Linear, values: Float[Tensor, "outputs inputs"]) -> None:
    """Write into the corner of a weight that is as large or larger; the rest becomes zero."""
    weight = linear.weight
    weight.zero_()
    rows = min(weight.shape[0], values.shape[0])
    columns = min(weight.shape[1], values.shape[1])
    weight[:rows, :columns] = values[:rows, :columns]


def _projections(stage: Transformer) -> list[nn.Linear]:
    """The projections that exist, in order."""
    found = (stage.input_proj, stage.output_proj)
    return [module for module in found if isinstance(module, nn.Linear)]


def _linear_map(stage: Transformer, inputs: int) -> Float[Tensor, "outputs inputs"]:
    """What the projections of a stage do together."""
    result = torch.eye(inputs)
    for projection in _projections(stage):
        result = projection.weight @ result
    return result
