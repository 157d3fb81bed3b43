"""Distances of waveforms that a codec is trained by, as pure modules.

Owns the multi-scale log-mel distance of the paper (section 3.2; bands and reduction, which it
leaves open, are DAC's), and three that are not in the paper and have the weight 0 by default: of
complex spectra of low frequencies, of linear-frequency magnitudes, and of phase advances. Mel bands
are wide at high frequencies: they cannot tell harmonics of a low voice from a buzz of the same
envelope there, which bins of equal width can. Knows nothing of models or data.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Complex, Float, Int
from torch import Tensor, nn
from transformers.audio_utils import mel_filter_bank

# Window lengths of the mel loss in samples, and the number of mel bands at each.
_MEL_SCALES = {32: 5, 64: 10, 128: 20, 256: 40, 512: 80, 1024: 160, 2048: 320}
_MEL_FLOOR = 1e-5
# Spectra of windows up to this length are matrix products, faster than short transforms.
_LONGEST_PRODUCT = 256

_PHASE_WINDOWS = (512, 1024, 2048)
_PHASE_BAND_HERTZ = 100.0
_PHASE_FLOOR = 0.01
# About the energy that noise at -54 dBFS has in a frame's band.
_PHASE_SILENCE = 1e-5

# Relative to full scale and with windows of norm 1: -80 and -60 dBFS of white noise in every bin.
_STFT_FLOOR = 1e-4
_ENERGY_FLOOR = 1e-3

FREQUENCY_WINDOWS = (1024, 2048)
NUM_MEL_WINDOWS = len(_MEL_SCALES)
NUM_PHASE_WINDOWS = len(_PHASE_WINDOWS)

Signals = Float[Tensor, "rows samples"]


@dataclass(frozen=True)
class Counted:
    """What counts of the rows of a loss: the samples before their padding, by their weights."""

    lengths: Int[Tensor, "rows"] | None
    weights: Float[Tensor, "rows"] | None

    def frames(self, num_frames: int, hop: int) -> Float[Tensor, "rows frames"] | None:
        """1 for the frames whose center is not padding, 0 for others; None if all of them count."""
        if self.lengths is None:
            return None
        centers = torch.arange(num_frames, device=self.lengths.device) * hop
        return (centers < self.lengths[:, None]).float()

    def mean_of_frames(self, values: Float[Tensor, "rows bands frames"], hop: int) -> Tensor:
        """The mean over the frames of a row that count, then over rows."""
        if self.weights is not None:
            values = values * self.weights[:, None, None]
        counts = self.frames(values.shape[-1], hop)
        if counts is None:
            return values.mean()
        return ((values.mean(1) * counts).sum(1) / counts.sum(1).clamp_min(1.0)).mean()

    def mean_of_rows(self, values: Float[Tensor, "rows"]) -> Tensor:
        """The mean over rows."""
        return (values if self.weights is None else values * self.weights).mean()


class SpectralLoss(nn.Module, ABC):
    """A distance of short-time spectra, measured with windows of several lengths.

    Args:
        window_lengths: the lengths of the Hann windows in samples; the hop is a quarter of each.
    """

    def __init__(self, window_lengths: Sequence[int]) -> None:
        super().__init__()
        self.window_lengths = tuple(window_lengths)

    @abstractmethod
    def terms(
        self, estimate: Signals, reference: Signals, counted: Counted, length: int
    ) -> tuple[Tensor, ...]:
        """The terms of the loss at the window length ``length``, which are added up."""

    def forward(
        self,
        estimate: Float[Tensor, "rows *channels samples"],
        reference: Float[Tensor, "rows *channels samples"],
        lengths: Int[Tensor, "rows"] | None = None,
        drawn: Sequence[int] | None = None,
        weights: Float[Tensor, "rows"] | None = None,
    ) -> Float[Tensor, ""]:
        """Distance of two signals of the same shape, in float32, summed over the windows.

        Args:
            estimate: what the decoder made.
            reference: the recordings.
            lengths: the number of samples of each row that are not padding; all by default.
            drawn: indices of the windows to measure with, all by default. They stand for the
                others: the sum is that of as many windows as there are.
            weights: how much each row counts, from 0 to 1; 1 by default.
        """
        estimate, reference = (item.float().flatten(0, -2) for item in (estimate, reference))
        repeated = [
            None if item is None else item.repeat_interleave(len(reference) // len(item))
            for item in (lengths, weights)
        ]
        counted, windows = Counted(*repeated), self.window_lengths
        indices = range(len(windows)) if drawn is None else drawn
        total = estimate.new_zeros(())
        for length in (windows[index] for index in indices):
            for term in self.terms(estimate, reference, counted, length):
                total = total + term
        return total * (len(windows) / len(indices))


class MelLoss(SpectralLoss):
    """L1 distance of log10 mel magnitudes: mean over each scale, summed over the scales.

    Args:
        sampling_rate: the sampling rate of the audio.
    """

    def __init__(self, sampling_rate: int) -> None:
        super().__init__(tuple(_MEL_SCALES))
        for length, num_mels in _MEL_SCALES.items():
            window = torch.hann_window(length)
            # Normalized, the floor of the logarithm means the same at every scale.
            norm = window.square().sum().sqrt()
            filters = _slaney_filters(length, num_mels, sampling_rate) / norm
            self.register_buffer(f"filters_{length}", filters, persistent=False)
            if length <= _LONGEST_PRODUCT:
                waves = _windowed_waves(window)
                self.register_buffer(f"waves_{length}", waves, persistent=False)
            else:
                self.register_buffer(f"window_{length}", window, persistent=False)

    def log_mel(self, audio: Signals, length: int) -> Float[Tensor, "rows mels frames"]:
        """log10 of the mel magnitudes at the scale of window ``length``."""
        half = length // 2
        frames = F.pad(audio[:, None], (half, half), mode="reflect")[:, 0]
        # The small constant keeps the gradient of the magnitude finite at silence.
        magnitude = (self._powers(frames.unfold(-1, length, length // 4)) + 1e-14).sqrt()
        mel = magnitude @ self.get_buffer(f"filters_{length}")
        return mel.clamp_min(_MEL_FLOOR).log10().transpose(1, 2)

    def _powers(
        self, frames: Float[Tensor, "rows frames length"]
    ) -> Float[Tensor, "rows frames bins"]:
        length = frames.shape[-1]
        if length <= _LONGEST_PRODUCT:
            real, imaginary = (frames @ self.get_buffer(f"waves_{length}")).chunk(2, dim=-1)
            return real.square() + imaginary.square()
        return _power(torch.fft.rfft(frames * self.get_buffer(f"window_{length}")))

    def terms(
        self, estimate: Signals, reference: Signals, counted: Counted, length: int
    ) -> tuple[Tensor, ...]:
        """The mean L1 distance at one scale."""
        with torch.no_grad():
            target = self.log_mel(reference, length)
        difference = (self.log_mel(estimate, length) - target).abs()
        return (counted.mean_of_frames(difference, length // 4),)


class PhaseLoss(SpectralLoss):
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
    """

    def __init__(self, sampling_rate: int, hertz: float = 700.0) -> None:
        super().__init__(_PHASE_WINDOWS)
        for length in _PHASE_WINDOWS:
            window = torch.hann_window(length)
            self.register_buffer(f"window_{length}", window / window.norm(), persistent=False)
            centers = torch.fft.rfftfreq(length, 1 / sampling_rate)
            lower = torch.arange(0.0, hertz, _PHASE_BAND_HERTZ)[:, None]
            inside = (centers >= lower) & (centers < (lower + _PHASE_BAND_HERTZ).clamp_max(hertz))
            # Short windows have no bin in some of the bands.
            bands = inside[inside.any(1)].float()
            self.register_buffer(f"bands_{length}", bands, persistent=False)

    def terms(
        self, estimate: Signals, reference: Signals, counted: Counted, length: int
    ) -> tuple[Tensor, ...]:
        """The mean relative error with windows of one length."""
        error = self._energies(estimate - reference, length)
        with torch.no_grad():
            energy = self._energies(reference, length)
            floor = _PHASE_FLOOR * energy.mean((1, 2), keepdim=True) + _PHASE_SILENCE
        ratio = ((error + floor) / (energy + floor)).sqrt()
        return (counted.mean_of_frames(ratio, length // 4),)

    def _energies(self, audio: Signals, length: int) -> Float[Tensor, "rows bands frames"]:
        window, bands = self.get_buffer(f"window_{length}"), self.get_buffer(f"bands_{length}")
        spectrum = torch.stft(audio, length, length // 4, window=window, return_complex=True)
        return bands @ _power(spectrum)


class _BandLoss(SpectralLoss):
    """A mean over windows, of spectra within a band of frequencies.

    Args:
        sampling_rate: the sampling rate of the audio.
        window_lengths: as in `SpectralLoss`.
        band_hertz: the lowest and the highest frequency; a highest of 0 is the Nyquist frequency.
    """

    def __init__(
        self, sampling_rate: int, window_lengths: Sequence[int], band_hertz: tuple[float, float]
    ) -> None:
        super().__init__(window_lengths)
        low, high = band_hertz[0], band_hertz[1] or sampling_rate / 2
        for length in self.window_lengths:
            window = torch.hann_window(length)
            self.register_buffer(f"window_{length}", window / window.norm(), persistent=False)
            centers = torch.fft.rfftfreq(length, 1 / sampling_rate)
            inside = ((centers >= low) & (centers <= high)).nonzero().squeeze(1)
            self.register_buffer(f"bins_{length}", inside, persistent=False)

    def spectrum(self, audio: Signals, length: int) -> Complex[Tensor, "rows bins frames"]:
        """The spectrum of windows of one length, zero beyond both ends of the audio."""
        window, bins = self.get_buffer(f"window_{length}"), self.get_buffer(f"bins_{length}")
        spectrum = torch.stft(
            audio, length, length // 4, window=window, pad_mode="constant", return_complex=True
        )
        return spectrum[:, bins]

    def forward(self, *signals: Any) -> Float[Tensor, ""]:
        """The mean over the windows; arguments are those of `SpectralLoss`."""
        return super().forward(*signals) / len(self.window_lengths)


class StftLoss(_BandLoss):
    """Distance of linear-frequency magnitudes, at several resolutions.

    For each window length the spectral convergence ||R| - |E|| / ||R|| (Frobenius norms over a
    row) plus the mean L1 distance of the natural logarithms of both magnitudes; the mean over the
    windows. Source: Yamamoto et al. 2020 (arXiv 1910.11480), equations 4 to 6. Both terms have a
    floor, so that silence neither explodes nor counts.
    """

    def terms(
        self, estimate: Signals, reference: Signals, counted: Counted, length: int
    ) -> tuple[Tensor, ...]:
        """Log distance and spectral convergence with windows of one length."""
        hop = length // 4
        with torch.no_grad():
            target = _magnitude(self.spectrum(reference, length))
        found = _magnitude(self.spectrum(estimate, length))
        logs = found.clamp_min(_STFT_FLOOR).log() - target.clamp_min(_STFT_FLOOR).log()
        counts = _counts(counted, target, hop)
        error = ((found - target).square() * counts).sum((1, 2))
        energy = (target.square() * counts).sum((1, 2))
        floor = _ENERGY_FLOOR**2 * target.shape[1] * counts.expand(len(target), -1, -1).sum((1, 2))
        # The square root has no slope at zero.
        convergence = (error + 1e-12).sqrt() / (energy + floor + 1e-12).sqrt()
        return counted.mean_of_frames(logs.abs(), hop), counted.mean_of_rows(convergence)


class InstantaneousFrequencyLoss(_BandLoss):
    """Distance of the phase advances from frame to frame, above a lowest frequency.

    In bin k the phase of frame t+1 relative to frame t is that of D = S(t+1) S(t)*; it follows the
    instantaneous frequency and does not depend on where a sinusoid began, which no decoder needs to
    reproduce above some hundred Hz. The loss is 1 - cos of the angle between D of the estimate and
    D of the recording: the mean over bins and frames, weighted by the recording's |D|^(1/2), and
    over the windows. It is 0 for equal advances and 1 for unrelated ones.
    """

    def terms(
        self, estimate: Signals, reference: Signals, counted: Counted, length: int
    ) -> tuple[Tensor, ...]:
        """The mean distance of advances with windows of one length."""
        with torch.no_grad():
            target = _advances(self.spectrum(reference, length))
            weights = target.abs().sqrt() * _counts(counted, target, length // 4)
        found = _advances(self.spectrum(estimate, length))
        floor = _ENERGY_FLOOR**2
        cosines = (found * target.conj()).real / ((found.abs() + floor) * (target.abs() + floor))
        apart = (weights * (1 - cosines)).sum((1, 2))
        # A row that is silent counts for nothing.
        silent = _ENERGY_FLOOR * weights.shape[1] * weights.shape[2]
        return (counted.mean_of_rows(apart / (weights.sum((1, 2)) + silent)),)


def _power(spectrum: Tensor) -> Tensor:
    return torch.view_as_real(spectrum).square().sum(-1)


def _magnitude(spectrum: Tensor) -> Tensor:
    # The small constant keeps the gradient finite at silence.
    return (_power(spectrum) + 1e-14).sqrt()


def _advances(spectrum: Tensor) -> Tensor:
    return spectrum[..., 1:] * spectrum[..., :-1].conj()


def _counts(counted: Counted, values: Tensor, hop: int) -> Float[Tensor, "_ 1 frames"]:
    """1 for frames whose center lies within a row, 0 for those in its padding."""
    counts = counted.frames(values.shape[-1], hop)
    if counts is None:
        return torch.ones(1, 1, values.shape[-1], device=values.device)
    return counts[:, None]


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
