"""A trained codec taken to another sampling rate.

Frames and every rate inside stay: the patches of the waveform grow or shrink in proportion, and
the two projections next to the waveform are resampled with them, so that fine-tuning starts from
a codec that encodes and decodes what it did before, below the lower of the two Nyquist frequencies.
"""

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from ...audio.samples import MAX_SAMPLING_RATE, MIN_SAMPLING_RATE
from ...config import CodecConfig, PatchStage, Stage, TransformerStage
from ...errors import ConfigError
from ...model.codec import Codec


def config_at_rate(config: CodecConfig, sampling_rate: int) -> CodecConfig:
    """``config`` with patches of the waveform as long in time as before, at ``sampling_rate``.

    Raises:
        ConfigError: no sound has this rate, a patch would not be a whole number of samples, or the
            stages next to the waveform have no projections that could take it.
    """
    if not MIN_SAMPLING_RATE <= sampling_rate <= MAX_SAMPLING_RATE:
        raise ConfigError(
            f"train.sampling_rate is {sampling_rate}; expected 0, or {MIN_SAMPLING_RATE:,} to "
            f"{MAX_SAMPLING_RATE:,} samples a second"
        )
    outer, first = _ends(config.encoder[0], config.encoder[1], config)
    _, last = _ends(config.decoder[-1], config.decoder[-2], config)
    if config.number_channels != 1 or not first.projects_input or not last.projects_output:
        raise ConfigError(
            "train.sampling_rate is set, but this codec has no projections of mono patches that "
            "could be resampled; leave it out"
        )
    patch, rest = divmod(outer.patch_size * sampling_rate, config.sampling_rate)
    if rest or not patch or config.downsample_rate * sampling_rate % config.sampling_rate:
        raise ConfigError(
            f"train.sampling_rate is {sampling_rate}; at it a patch of {outer.patch_size} samples "
            f"at {config.sampling_rate} Hz would not be a whole number of samples"
        )
    entrance = (PatchStage(patch), replace(first, input_dimension=patch))
    exit_ = (replace(last, output_dimension=patch), PatchStage(patch))
    return replace(
        config,
        sampling_rate=sampling_rate,
        downsample_rate=config.downsample_rate * sampling_rate // config.sampling_rate,
        encoder=(*entrance, *config.encoder[2:]),
        decoder=(*config.decoder[:-2], *exit_),
    )


def _ends(patch: Stage, inner: Stage, config: CodecConfig) -> tuple[PatchStage, TransformerStage]:
    """The stage of patches next to the waveform, and the one behind it."""
    if isinstance(patch, PatchStage) and isinstance(inner, TransformerStage):
        return patch, inner
    raise ConfigError(f"a codec at {config.sampling_rate} Hz without patches of its waveform")


@torch.no_grad()
def at_rate(codec: Codec, config: CodecConfig) -> Codec:
    """``codec`` with the configuration of `config_at_rate`; itself where nothing changes."""
    if codec.config == config:
        return codec
    state = codec.state_dict()
    entrance, exit_ = _entrance(state), _exit(state)
    _, inner = _ends(config.encoder[0], config.encoder[1], config)
    before, after = state[entrance].shape[1], inner.input_dimension
    to_old, to_new = resampling_matrix(after, before), resampling_matrix(before, after)
    state[entrance] = state[entrance] @ to_old
    state[exit_] = to_new @ state[exit_]
    changed = Codec(config)
    changed.load_state_dict(state)
    return changed


def _entrance(state: dict[str, Tensor]) -> str:
    return next(name for name in state if name.startswith("encoder") and "input_proj" in name)


def _exit(state: dict[str, Tensor]) -> str:
    names = [name for name in state if name.startswith("decoder") and "output_proj" in name]
    return names[-1]


def resampling_matrix(inputs: int, outputs: int) -> Float[Tensor, "outputs inputs"]:
    """From a patch of ``inputs`` samples to one of ``outputs``, through its cosine transform.

    What lies above the lower Nyquist frequency is dropped; a constant stays what it is.
    """
    shared = min(inputs, outputs)
    analysis = _cosines(inputs)[:shared]
    synthesis = _cosines(outputs)[:shared].T
    return (synthesis @ analysis * (outputs / inputs) ** 0.5).float()


def _cosines(size: int) -> Float[Tensor, "size size"]:
    """The orthonormal cosine transform (DCT-II), in float64."""
    places = torch.arange(size, dtype=torch.float64)
    basis = torch.cos(torch.pi / size * (places + 0.5) * places[:, None])
    basis[0] /= 2**0.5
    return basis * (2 / size) ** 0.5
