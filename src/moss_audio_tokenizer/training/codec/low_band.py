"""Initialization that passes the low band (phase included) through encoder and decoder unchanged.

Owns the arithmetic; knows nothing of the loop. A codec of separate patches learns magnitudes
within minutes and waveforms hardly at all, and pitch is in the waveform (docs/experiments.md). So
the waveform below a frequency gets a pass-through: at every layer of the codec some directions,
those in which its activations vary least, are cleared and carry the waveform's coefficients.
Projections fold them as the patches are folded; blocks neither read nor write the pass-through at
first, and learn to use it. Everything else that the codec does is hardly changed, so a trained
codec can be given a pass-through too. The paper has nothing of this.

The coefficients are those of discrete prolate spheroidal sequences (Slepian, Bell System Technical
Journal 57, 1978): T seconds of what lies below F hertz are held by little more than 2FT of them.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ...errors import ConfigError
from ...model.codec import Codec, Patchify, StageStack, Unpatchify, interleave, patchify
from ...model.transformer import Transformer

# Coefficients beyond 2FT of each channel, for the edges of the band.
_SPARE = 8
# The energy of the pass-through in an activation, relative to everything else there: far above what
# else is in its directions, and above what steps of training add to them.
_SHARE = 0.2
# In the encoder's output this share decides how many of the quantizer's bits the waveform gets.
_HIDDEN_SHARE = 0.1
# There its channels are brought half way to a common variance (in dB): the quantizer's error is the
# same in all of them, and the weaker ones are as audible.
_EQUALIZATION = -0.25


@dataclass(frozen=True)
class _PassThrough:
    """Where the coefficients are within the channels of an activation.

    Attributes:
        directions: (channels, coefficients), orthonormal.
        gains: the factors that the coefficients are multiplied by.
        shared: whether other signals use the same directions, as in the audio itself.
    """

    directions: Float[Tensor, "channels coefficients"]
    gains: Float[Tensor, "coefficients"]
    shared: bool = False

    def folded(self, patch_size: int) -> "_PassThrough":
        """The pass-through after `patchify`, whose channels are those of a whole patch."""
        directions = torch.kron(self.directions.contiguous(), torch.eye(patch_size))
        return _PassThrough(directions, self.gains.repeat_interleave(patch_size), self.shared)

    @property
    def rest(self) -> Float[Tensor, "channels channels"]:
        """The projection onto everything outside the pass-through."""
        identity = torch.eye(len(self.directions))
        return identity if self.shared else identity - self.directions @ self.directions.T


@dataclass(frozen=True)
class _Signals:
    """Activations of a stage: its input, its residual stream after the blocks, its output."""

    input: Tensor
    stream: Tensor
    output: Tensor

    def after(self, stage: Transformer, projection: nn.Linear) -> Tensor:
        """The activation after one of the projections of the stage."""
        return self.stream if projection is stage.input_proj else self.output


@torch.no_grad()
def start_low_band(
    codec: Codec, audio: Float[Tensor, "batch channels samples"], hertz: float
) -> list[int]:
    """Give a codec a pass-through for the waveform below a frequency.

    Args:
        codec: changed in place, fresh or trained; its decoder has the encoder's stages in reverse.
        audio: some thousands of whole frames of audio like that which it is for.
        hertz: the upper end of the band.

    Returns:
        The number of coefficients at each stage of the encoder.

    Raises:
        ConfigError: the decoder does not mirror the encoder, a stage has no projection, or the
            pass-through would take more than two thirds of a stage's channels.
    """
    encoder, decoder = codec.require_encoder(), codec.require_decoder()
    if [type(s) for s in decoder.stages][::-1] != [_MIRRORED[type(s)] for s in encoder.stages]:
        raise ConfigError("warm_start.low_band needs a decoder that mirrors the encoder's stages")
    if not all(_projections(stage) for stage in encoder.transformers() + decoder.transformers()):
        raise ConfigError("warm_start.low_band needs a projection in every stage")
    x = interleave(audio)
    written, hidden = _signals(encoder, x)
    read, _ = _signals(decoder, hidden)
    band = _Band(hertz, codec.config.sampling_rate, audio.shape[1], x)
    pass_through = _write(encoder, written, band)
    _read(decoder, read, band, pass_through)
    return [len(selection) for selection in band.selections]


_MIRRORED: dict[type, type] = {Patchify: Unpatchify, Transformer: Transformer}


class _Band:
    """The coefficients of every stage: how they are selected, and their energy in audio.

    Attributes:
        selections: of each level so far, (kept, given) with orthonormal rows.
    """

    def __init__(self, hertz: float, rate: int, channels: int, x: Tensor) -> None:
        self.selections: list[Tensor] = []
        self._hertz, self._rate, self._channels = hertz, rate, channels
        self._of_samples = torch.eye(1, dtype=torch.float64)
        self._coefficients = x
        self._variances: list[Tensor] = []

    def fold(self, patch_size: int) -> None:
        """Concatenate the coefficients of each patch of steps, in the order of `patchify`."""
        count, span = self._of_samples.shape
        folded = self._of_samples.new_zeros(count * patch_size, span * patch_size)
        for offset in range(patch_size):
            columns = slice(offset * span, (offset + 1) * span)
            folded[offset::patch_size, columns] = self._of_samples
        self._of_samples = folded
        self._coefficients = patchify(self._coefficients, patch_size)

    def select(self) -> Float[Tensor, "kept given"]:
        """Keep the coefficients that carry the energy of white noise below the frequency."""
        given, span = self._of_samples.shape
        sample = torch.arange(span)
        seconds = (sample // self._channels).double() / self._rate
        apart = 2 * self._hertz * (seconds[:, None] - seconds)
        together = sample % self._channels == (sample % self._channels)[:, None]
        covariance = self._of_samples @ (torch.sinc(apart) * together) @ self._of_samples.T
        kept = min(given, math.ceil(2 * self._hertz * span / self._rate) + _SPARE * self._channels)
        selection = torch.linalg.eigh(covariance).eigenvectors[:, -kept:].flip(1).T
        self._of_samples = selection @ self._of_samples
        self.selections.append(selection.float())
        self._coefficients = self._coefficients @ self.selections[-1].T
        self._variances.append(self._coefficients.flatten(0, 1).square().mean(0).clamp_min(1e-12))
        return self.selections[-1]

    def gains(self, level: int, energy: Tensor, evening: float = 0.0) -> Tensor:
        """Gains that give the coefficients of a level a total energy."""
        variances = self._variances[level]
        relative = (variances / variances.mean()).clamp_min(1e-4) ** evening
        return relative * (energy / (variances * relative.square()).sum()).sqrt()


def _write(encoder: StageStack, signals: dict[nn.Module, _Signals], band: _Band) -> _PassThrough:
    """Route the low band of the audio through the encoder.

    Returns:
        The pass-through in the encoder's output.
    """
    pass_through = _PassThrough(torch.eye(1), torch.ones(1), shared=True)
    for stage in encoder.stages:
        if isinstance(stage, Patchify):
            pass_through = pass_through.folded(stage.patch_size)
            band.fold(stage.patch_size)
        elif isinstance(stage, Transformer):
            selection = band.select()
            if not isinstance(stage.input_proj, nn.Linear):
                _isolate(stage, pass_through)
            for projection in _projections(stage):
                activation = signals[stage].after(stage, projection)
                ends = stage is encoder.stages[-1] and projection is _projections(stage)[-1]
                following = _new_pass_through(activation, band, -1, hidden=ends)
                _reroute(projection, pass_through, selection, following)
                pass_through, selection = following, torch.eye(len(selection))
                if projection is stage.input_proj:
                    _isolate(stage, pass_through)
    return pass_through


def _read(
    decoder: StageStack, signals: dict[nn.Module, _Signals], band: _Band, pass_through: _PassThrough
) -> None:
    """Route the low band from the encoder's output through the decoder, back into audio."""
    stages = decoder.transformers()
    patches = [stage.patch_size for stage in decoder.stages if isinstance(stage, Unpatchify)]
    for number, stage in enumerate(stages):
        level = len(stages) - 1 - number
        if not isinstance(stage.input_proj, nn.Linear):
            _isolate(stage, pass_through)
        *moving, unfolding = _projections(stage)
        for projection in moving:
            following = _new_pass_through(signals[stage].after(stage, projection), band, level)
            _reroute(projection, pass_through, torch.eye(len(pass_through.gains)), following)
            _isolate(stage, following)
            pass_through = following
        selection = band.selections[level]
        if level:
            after = stages[number + 1]
            enters = isinstance(after.input_proj, nn.Linear)
            activation = signals[after].input if enters else signals[after].stream
            unfolded = _new_pass_through(activation, band, level - 1)
            folded = unfolded.folded(patches[number])
            _reroute(unfolding, pass_through, selection.T, folded)
        else:
            unfolded = folded = _PassThrough(selection.T, torch.ones(len(selection)))
            _reroute(unfolding, pass_through, torch.eye(len(selection)), folded)
        if unfolding is stage.input_proj:
            _isolate(stage, folded)
        pass_through = unfolded


def _new_pass_through(
    activation: Tensor, band: _Band, level: int, hidden: bool = False
) -> _PassThrough:
    """A pass-through for the coefficients of a level, in the directions that vary least.

    Raises:
        ConfigError: the pass-through would take more than two thirds of the channels.
    """
    count, width = len(band.selections[level]), activation.shape[-1]
    if 3 * count > 2 * width:
        raise ConfigError(
            f"warm_start.low_band takes {count} of a stage's {width} channels; expected at most "
            "two thirds of them: lower it"
        )
    signal = activation.flatten(0, 1)
    signal = (signal - signal.mean(0)).double()
    variances, directions = torch.linalg.eigh(signal.T @ signal / len(signal))
    energy = variances.sum().float()
    if hidden:
        gains = band.gains(level, _HIDDEN_SHARE * energy, _EQUALIZATION)
    else:
        gains = band.gains(level, _SHARE * energy)
    return _PassThrough(directions[:, :count].float().contiguous(), gains)


def _reroute(
    projection: nn.Linear,
    pass_through: _PassThrough,
    change: Float[Tensor, "after before"],
    following: _PassThrough,
) -> None:
    """Overwrite the channels of the pass-through in ``projection`` by ``change``."""
    through = (
        following.directions
        * following.gains
        @ change
        @ (pass_through.directions / pass_through.gains).T
    )
    projection.weight.copy_(following.rest @ projection.weight @ pass_through.rest + through)


def _isolate(stage: Transformer, pass_through: _PassThrough) -> None:
    """Keep the blocks of a stage from reading and from writing the pass-through.

    The scales of single channels mix once directions are removed, so they are replaced by one
    scale of the same mean square: dividing by each of them would leave huge weights behind tiny
    scales, which would make the steps of training unstable.
    """
    for block in stage.blocks():
        for norm, reader in (
            (block.attention_norm, block.attention.in_proj),
            (block.feedforward_norm, block.feedforward_in),
        ):
            shift = reader.weight @ norm.bias
            common = norm.weight.square().mean().sqrt()
            reader.weight.copy_((reader.weight * norm.weight) @ pass_through.rest / common)
            norm.weight.fill_(common)
            norm.bias.copy_(torch.linalg.pinv(reader.weight, rtol=1e-3) @ shift)
        for scale, writer in (
            (block.attention_scale, block.attention.out_proj),
            (block.feedforward_scale, block.feedforward_out),
        ):
            common = scale.square().mean().sqrt()
            writer.weight.copy_(pass_through.rest @ (scale[:, None] * writer.weight) / common)
            scale.fill_(common)


def _projections(stage: Transformer) -> list[nn.Linear]:
    """The projections that exist, in order."""
    found = (stage.input_proj, stage.output_proj)
    return [module for module in found if isinstance(module, nn.Linear)]


def _signals(stack: StageStack, x: Tensor) -> tuple[dict[nn.Module, _Signals], Tensor]:
    """The activations of each Transformer stage for an input, and the output of the stack."""
    found: dict[nn.Module, _Signals] = {}
    for stage in stack.stages:
        inputs = x
        if isinstance(stage, Transformer):
            streams: list[Tensor] = []
            hook = stage.layers[-1].register_forward_hook(
                lambda *call, kept=streams: kept.append(call[-1])
            )
            x = stage(x)
            hook.remove()
            found[stage] = _Signals(inputs, streams[0], x)
        else:
            x = stage(x)
    return found, x
