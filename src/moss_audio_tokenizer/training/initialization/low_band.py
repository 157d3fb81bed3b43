"""A start that takes low frequencies through encoder and decoder as they are, phase included.

Owns the arithmetic; knows nothing of the loop. A codec of separate patches learns magnitudes
within minutes and waveforms hardly at all, and pitch is in the waveform (docs/experiments.md). So
the waveform below a frequency gets a lane: at every place of the codec some directions, those in
which its signals vary least, are emptied and carry the waveform's coefficients. Projections fold
them as the patches are folded; blocks neither read nor write the lane at first, and learn what to
make of it. What the codec does otherwise is hardly touched, so a trained one can be given a lane.

The coefficients are those of discrete prolate spheroidal sequences (Slepian, Bell System Technical
Journal 57, 1978): T seconds of what lies below F hertz are held by little more than 2FT of them.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ...errors import ConfigError
from ...model.codec import Codec
from ...model.patchify import Patchify, Unpatchify, interleave, patchify
from ...model.stack import StageStack
from ...model.transformer import Transformer

# Coefficients beyond 2FT of each channel, for the edges of the band.
_SPARE = 8
# The energy of a lane at a place, relative to that of all else there: far above what else is in its
# directions, and above what steps of training add to them.
_SHARE = 0.2
# In the hidden states the share decides how many of the quantizer's bits the waveform gets.
_HIDDEN_SHARE = 0.1
# And its channels are brought half way to a common variance (in dB), for the quantizer's error is
# of one size in all of them, and the weaker ones are heard no less.
_EVENING = -0.25


@dataclass(frozen=True)
class _Lane:
    """Where coefficients are within the channels of a place.

    Attributes:
        directions: (channels, coefficients), orthonormal.
        gains: by what the coefficients are multiplied there.
        shared: other signals are in the same directions: the audio itself.
    """

    directions: Float[Tensor, "channels coefficients"]
    gains: Float[Tensor, "coefficients"]
    shared: bool = False

    def folded(self, patch_size: int) -> "_Lane":
        """As it is in the channels of `patchify`."""
        directions = torch.kron(self.directions.contiguous(), torch.eye(patch_size))
        return _Lane(directions, self.gains.repeat_interleave(patch_size), self.shared)

    @property
    def rest(self) -> Float[Tensor, "channels channels"]:
        """Projects onto what is not in the lane."""
        identity = torch.eye(len(self.directions))
        return identity if self.shared else identity - self.directions @ self.directions.T


@dataclass(frozen=True)
class _Signals:
    """What passes a stage: its input, its residual stream behind the blocks, its output."""

    input: Tensor
    stream: Tensor
    output: Tensor

    def behind(self, stage: Transformer, projection: nn.Linear) -> Tensor:
        """What a projection of the stage leads to."""
        return self.stream if projection is stage.input_proj else self.output


@torch.no_grad()
def start_low_band(
    codec: Codec, audio: Float[Tensor, "batch channels samples"], hertz: float
) -> list[int]:
    """Give a codec a lane for the waveform below a frequency.

    Args:
        codec: changed in place, fresh or trained; its decoder has the encoder's stages in reverse.
        audio: whole frames of what it is for, some thousands of them.
        hertz: the upper end of the band.

    Returns:
        The number of coefficients at each stage of the encoder.

    Raises:
        ConfigError: the decoder does not mirror the encoder, a stage has no projection, or the
            lane would take more than two thirds of a stage's channels.
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
    lane = _write(encoder, written, band)
    _read(decoder, read, band, lane)
    return [len(selection) for selection in band.selections]


_MIRRORED: dict[type, type] = {Patchify: Unpatchify, Transformer: Transformer}


class _Band:
    """The coefficients of every stage: how they are selected, and how strong they are in audio.

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
        """Put together the coefficients of each patch of steps, in the order of `patchify`."""
        count, span = self._of_samples.shape
        folded = self._of_samples.new_zeros(count * patch_size, span * patch_size)
        for offset in range(patch_size):
            columns = slice(offset * span, (offset + 1) * span)
            folded[offset::patch_size, columns] = self._of_samples
        self._of_samples = folded
        self._coefficients = patchify(self._coefficients, patch_size)

    def select(self) -> Float[Tensor, "kept given"]:
        """Of what there is now, keep what noise below the frequency would have."""
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
        """Gains that bring the coefficients of a level to an energy, which they share."""
        variances = self._variances[level]
        relative = (variances / variances.mean()).clamp_min(1e-4) ** evening
        return relative * (energy / (variances * relative.square()).sum()).sqrt()


def _write(encoder: StageStack, signals: dict[nn.Module, _Signals], band: _Band) -> _Lane:
    """Take the audio's low band through the encoder; the lane in the hidden states."""
    lane = _Lane(torch.eye(1), torch.ones(1), shared=True)
    for stage in encoder.stages:
        if isinstance(stage, Patchify):
            lane = lane.folded(stage.patch_size)
            band.fold(stage.patch_size)
        elif isinstance(stage, Transformer):
            selection = band.select()
            if not isinstance(stage.input_proj, nn.Linear):
                _blind(stage, lane)
            for projection in _projections(stage):
                place = signals[stage].behind(stage, projection)
                ends = stage is encoder.stages[-1] and projection is _projections(stage)[-1]
                following = _new_lane(place, band, -1, hidden=ends)
                _reroute(projection, lane, selection, following)
                lane, selection = following, torch.eye(len(selection))
                if projection is stage.input_proj:
                    _blind(stage, lane)
    return lane


def _read(
    decoder: StageStack, signals: dict[nn.Module, _Signals], band: _Band, lane: _Lane
) -> None:
    """Take the low band from the hidden states through the decoder, back into audio."""
    stages = decoder.transformers()
    patches = [stage.patch_size for stage in decoder.stages if isinstance(stage, Unpatchify)]
    for number, stage in enumerate(stages):
        level = len(stages) - 1 - number
        if not isinstance(stage.input_proj, nn.Linear):
            _blind(stage, lane)
        *moving, unfolding = _projections(stage)
        for projection in moving:
            following = _new_lane(signals[stage].behind(stage, projection), band, level)
            _reroute(projection, lane, torch.eye(len(lane.gains)), following)
            _blind(stage, following)
            lane = following
        selection = band.selections[level]
        if level:
            after = stages[number + 1]
            enters = isinstance(after.input_proj, nn.Linear)
            place = signals[after].input if enters else signals[after].stream
            unfolded = _new_lane(place, band, level - 1)
            folded = unfolded.folded(patches[number])
            _reroute(unfolding, lane, selection.T, folded)
        else:
            unfolded = folded = _Lane(selection.T, torch.ones(len(selection)))
            _reroute(unfolding, lane, torch.eye(len(selection)), folded)
        if unfolding is stage.input_proj:
            _blind(stage, folded)
        lane = unfolded


def _new_lane(place: Tensor, band: _Band, level: int, hidden: bool = False) -> _Lane:
    """A lane for the coefficients of a level, in the directions of a place that vary least.

    Raises:
        ConfigError: it would take more than two thirds of the channels.
    """
    count, width = len(band.selections[level]), place.shape[-1]
    if 3 * count > 2 * width:
        raise ConfigError(
            f"warm_start.low_band takes {count} of a stage's {width} channels; expected at most "
            "two thirds of them: lower it"
        )
    signal = place.flatten(0, 1)
    signal = (signal - signal.mean(0)).double()
    variances, directions = torch.linalg.eigh(signal.T @ signal / len(signal))
    energy = variances.sum().float()
    if hidden:
        gains = band.gains(level, _HIDDEN_SHARE * energy, _EVENING)
    else:
        gains = band.gains(level, _SHARE * energy)
    return _Lane(directions[:, :count].float().contiguous(), gains)


def _reroute(
    projection: nn.Linear, lane: _Lane, change: Float[Tensor, "after before"], following: _Lane
) -> None:
    """Let a projection do with a lane what ``change`` says and no more, and leave the rest."""
    through = following.directions * following.gains @ change @ (lane.directions / lane.gains).T
    projection.weight.copy_(following.rest @ projection.weight @ lane.rest + through)


def _blind(stage: Transformer, lane: _Lane) -> None:
    """Keep the blocks of a stage from reading and from writing a lane in their stream.

    Scales of single channels mix once directions are taken out, so they are made one, of the same
    mean square: to divide by each of them would leave huge weights behind tiny scales, and steps
    of training would be thrown far by these.
    """
    for block in stage.blocks():
        for norm, reading in (
            (block.attention_norm, block.attention.in_proj),
            (block.feedforward_norm, block.feedforward_in),
        ):
            shift = reading.weight @ norm.bias
            common = norm.weight.square().mean().sqrt()
            reading.weight.copy_((reading.weight * norm.weight) @ lane.rest / common)
            norm.weight.fill_(common)
            norm.bias.copy_(torch.linalg.pinv(reading.weight, rtol=1e-3) @ shift)
        for scale, writing in (
            (block.attention_scale, block.attention.out_proj),
            (block.feedforward_scale, block.feedforward_out),
        ):
            common = scale.square().mean().sqrt()
            writing.weight.copy_(lane.rest @ (scale[:, None] * writing.weight) / common)
            scale.fill_(common)


def _projections(stage: Transformer) -> list[nn.Linear]:
    """The projections that exist, in order."""
    found = (stage.input_proj, stage.output_proj)
    return [module for module in found if isinstance(module, nn.Linear)]


def _signals(stack: StageStack, x: Tensor) -> tuple[dict[nn.Module, _Signals], Tensor]:
    """What passes each Transformer stage when a stack is given ``x``, and what comes out."""
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
