"""Distances of waveforms that a codec is trained by, as pure modules.

Owns the multi-scale log-mel distance of the paper (section 3.2; bands and reduction, which it
leaves open, are DAC's) and a distance of complex spectra of low frequencies, which is not in the
paper; knows nothing of models or data.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers.audio_utils import mel_filter_bank

_LOG_FLOOR = 1e-5
# Spectra of windows up to this length are matrix products, faster than short transforms.
_LONGEST_PRODUCT = 256
_PHASE_BAND_HERTZ = 100.0
_PHASE_FLOOR = 0.01
# About the energy that noise at -54 dBFS has in a frame's band.
_PHASE_SILENCE = 1e-5

PHASE_WINDOWS = (512, 1024, 2048)


@dataclass(frozen=True)
class MelLossConfig:
    """Scales of the mel loss.

    Attributes:
        window_lengths: samples of each scale's Hann window; the hop is a quarter of it.
        num_mels: mel bands of each scale.
        stft_normalized: divide each spectrum by the window's L2 norm, so that the floor of
            the logarithm means the same at every scale.
    """

    window_lengths: tuple[int, ...] = (32, 64, 128, 256, 512, 1024, 2048)
    num_mels: tuple[int, ...] = (5, 10, 20, 40, 80, 160, 320)
    stft_normalized: bool = True


NUM_MEL_WINDOWS = len(MelLossConfig.window_lengths)
NUM_PHASE_WINDOWS = len(PHASE_WINDOWS)


class MelLoss(nn.Module):
    """L1 distance of log10 mel magnitudes: mean over each scale, summed over the scales."""

    def __init__(self, sampling_rate: int, config: MelLossConfig | None = None) -> None:
        super().__init__()
        self.config = config or MelLossConfig()
        for length, num_mels in self._scales():
            window = torch.hann_window(length)
            filters = _slaney_filters(length, num_mels, sampling_rate)
            if self.config.stft_normalized:
                filters = filters / window.square().sum().sqrt()
            self.register_buffer(f"filters_{length}", filters, persistent=False)
            if length <= _LONGEST_PRODUCT:
                waves = _windowed_waves(window)
                self.register_buffer(f"waves_{length}", waves, persistent=False)
            else:
                self.register_buffer(f"window_{length}", window, persistent=False)

    def _scales(self) -> Iterator[tuple[int, int]]:
        return zip(self.config.window_lengths, self.config.num_mels, strict=True)

    def log_mel(
        self, audio: Float[Tensor, "rows samples"], length: int
    ) -> Float[Tensor, "rows mels frames"]:
        """log10 of the mel magnitudes at the scale of window ``length``."""
        half = length // 2
        frames = F.pad(audio[:, None], (half, half), mode="reflect")[:, 0]
        # The small constant keeps the gradient of the magnitude finite at silence.
        magnitude = (self._powers(frames.unfold(-1, length, length // 4)) + 1e-14).sqrt()
        mel = magnitude @ self.get_buffer(f"filters_{length}")
        return mel.clamp_min(_LOG_FLOOR).log10().transpose(1, 2)

    def _powers(
        self, frames: Float[Tensor, "rows frames length"]
    ) -> Float[Tensor, "rows frames bins"]:
        """Squared magnitudes of windowed frames."""
        length = frames.shape[-1]
        if length <= _LONGEST_PRODUCT:
            real, imaginary = (frames @ self.get_buffer(f"waves_{length}")).chunk(2, dim=-1)
            return real.square() + imaginary.square()
        spectrum = torch.fft.rfft(frames * self.get_buffer(f"window_{length}"))
        return torch.view_as_real(spectrum).square().sum(-1)

    def forward(
        self,
        estimate: Float[Tensor, "rows *channels samples"],
        reference: Float[Tensor, "rows *channels samples"],
        lengths: Int[Tensor, "rows"] | None = None,
        drawn: Sequence[int] | None = None,
    ) -> Float[Tensor, ""]:
        """Distance of two signals of the same shape, in float32.

        Args:
            estimate: what the decoder made.
            reference: the recordings.
            lengths: the number of samples of each row that are not padding; all by default.
            drawn: indices of the scales to measure, all by default. They stand for the others: the
                sum is that of as many scales as there are.
        """
        estimate, reference = (item.float().flatten(0, -2) for item in (estimate, reference))
        counted = repeat_for_channels(lengths, len(reference))
        windows = self.config.window_lengths
        indices = range(len(windows)) if drawn is None else drawn
        total = estimate.new_zeros(())
        for length in (windows[index] for index in indices):
            with torch.no_grad():
                target = self.log_mel(reference, length)
            difference = (self.log_mel(estimate, length) - target).abs()
            total = total + mean_of_rows(difference, counted, length // 4)
        return total * (len(windows) / len(indices))


def repeat_for_channels(values: Tensor | None, num_signals: int) -> Tensor | None:
    """Values of rows, repeated for every channel of every row."""
    return None if values is None else values.repeat_interleave(num_signals // len(values))


def mean_of_rows(
    values: Float[Tensor, "rows bands frames"], lengths: Int[Tensor, "rows"] | None, hop: int
) -> Float[Tensor, ""]:
    """The mean over the frames of a row whose center is not padding, then over rows."""
    if lengths is None:
        return values.mean()
    centers = torch.arange(values.shape[-1], device=values.device) * hop
    counts = (centers < lengths[:, None]).to(values.dtype)
    return ((values.mean(1) * counts).sum(1) / counts.sum(1).clamp_min(1.0)).mean()


class PhaseLoss(nn.Module):
    """Relative error of complex spectra at low frequencies, phase included.

    The band is cut into bands of 100 Hz. For each of them and every frame the root of
    (|E - R|^2 + f) / (|R|^2 + f), energies summed over the band's frequencies; f is a hundredth of
    the row's mean energy of a band, so that silence neither explodes nor counts. Mean over frames
    and bands, sum over windows. A codec that is silent there scores about 1 a window, one that is
    right 0.1. It is not in the paper: with log-mel magnitudes alone a codec of separate
    patches does not learn pitch (docs/experiments.md).

    Args:
        sampling_rate: the sampling rate of the audio.
        hertz: the upper end of the band.
        window_lengths: the lengths of the Hann windows in samples; the hop is a quarter of each.
    """

    def __init__(
        self,
        sampling_rate: int,
        hertz: float = 700.0,
        window_lengths: tuple[int, ...] = PHASE_WINDOWS,
    ) -> None:
        super().__init__()
        self.window_lengths = window_lengths
        for length in window_lengths:
            window = torch.hann_window(length)
            self.register_buffer(f"window_{length}", window / window.norm(), persistent=False)
            centers = torch.fft.rfftfreq(length, 1 / sampling_rate)
            lower = torch.arange(0.0, hertz, _PHASE_BAND_HERTZ)[:, None]
            inside = (centers >= lower) & (centers < (lower + _PHASE_BAND_HERTZ).clamp_max(hertz))
            # Short windows have no bin in some of the bands.
            bands = inside[inside.any(1)].float()
            self.register_buffer(f"bands_{length}", bands, persistent=False)

    def forward(
        self,
        estimate: Float[Tensor, "rows *channels samples"],
        reference: Float[Tensor, "rows *channels samples"],
        lengths: Int[Tensor, "rows"] | None = None,
        weights: Float[Tensor, "rows"] | None = None,
        drawn: Sequence[int] | None = None,
    ) -> Float[Tensor, ""]:
        """Distance of two signals of the same shape, in float32.

        Args:
            estimate: what the decoder made.
            reference: the recordings.
            lengths: samples of each row that count; all by default.
            weights: how much each row counts, from 0 to 1; 1 by default.
            drawn: indices of the windows to measure with, which stand for the others.
        """
        estimate, reference = (item.float().flatten(0, -2) for item in (estimate, reference))
        counted = repeat_for_channels(lengths, len(reference))
        weights = repeat_for_channels(weights, len(reference))
        indices = range(len(self.window_lengths)) if drawn is None else drawn
        total = estimate.new_zeros(())
        for length in (self.window_lengths[index] for index in indices):
            error = self._energies(estimate - reference, length)
            with torch.no_grad():
                energy = self._energies(reference, length)
                floor = _PHASE_FLOOR * energy.mean((1, 2), keepdim=True) + _PHASE_SILENCE
            ratio = ((error + floor) / (energy + floor)).sqrt()
            if weights is not None:
                ratio = ratio * weights[:, None, None]
            total = total + mean_of_rows(ratio, counted, length // 4)
        return total * (len(self.window_lengths) / len(indices))

    def _energies(
        self, audio: Float[Tensor, "rows samples"], length: int
    ) -> Float[Tensor, "rows bands frames"]:
        """Energy of every band and frame."""
        window, bands = self.get_buffer(f"window_{length}"), self.get_buffer(f"bands_{length}")
        spectrum = torch.stft(audio, length, length // 4, window=window, return_complex=True)
        return bands @ torch.view_as_real(spectrum).square().sum(-1)


def _windowed_waves(window: Float[Tensor, "length"]) -> Float[Tensor, "length twice_bins"]:
    """Cosines, then sines, of all frequencies of a window: its Fourier transform as a matrix."""
    length = len(window)
    turns = torch.outer(torch.arange(length), torch.arange(length // 2 + 1)) % length
    angles = turns.double() * (2 * math.pi / length)
    return (torch.cat((angles.cos(), angles.sin()), 1) * window.double()[:, None]).float()


def _slaney_filters(length: int, num_mels: int, sampling_rate: int) -> Tensor:
    """Mel filters (bins, mels) of the recipe that DAC uses."""
    filters = mel_filter_bank(
        num_frequency_bins=length // 2 + 1,
        num_mel_filters=num_mels,
        min_frequency=0.0,
        max_frequency=sampling_rate / 2,
        sampling_rate=sampling_rate,
        norm="slaney",
        mel_scale="slaney",
    )
    return torch.from_numpy(filters).float()
