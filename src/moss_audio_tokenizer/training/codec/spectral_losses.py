"""Losses of harmonics: linear-frequency spectra at several resolutions, and phase advances.

Pure modules that know nothing of models or data. Neither is in the paper, whose reconstruction loss
is the log-mel distance alone; both have the weight 0 by default. Mel bands are wide at high
frequencies: they cannot tell harmonics of a low voice from a buzz of the same envelope there, which
bins of equal width can.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Complex, Float, Int
from torch import Tensor, nn

from .losses import mean_of_rows, repeat_for_channels

STFT_WINDOWS = (512, 1024, 2048, 4096)
FREQUENCY_WINDOWS = (1024, 2048)

# Relative to full scale and with windows of norm 1: -80 and -60 dBFS of white noise in every bin.
_LOG_FLOOR = 1e-4
_ENERGY_FLOOR = 1e-3


class _BandSpectra(nn.Module):
    """Short-time spectra of several window lengths, within a band of frequencies.

    Args:
        sampling_rate: the sampling rate of the audio.
        window_lengths: the lengths of the Hann windows in samples; the hop is a quarter of each.
        band_hertz: the lowest and the highest frequency; a highest of 0 is the Nyquist frequency.
    """

    def __init__(
        self, sampling_rate: int, window_lengths: Sequence[int], band_hertz: tuple[float, float]
    ) -> None:
        super().__init__()
        self.window_lengths = tuple(window_lengths)
        low, high = band_hertz[0], band_hertz[1] or sampling_rate / 2
        for length in self.window_lengths:
            window = torch.hann_window(length)
            self.register_buffer(f"window_{length}", window / window.norm(), persistent=False)
            centers = torch.fft.rfftfreq(length, 1 / sampling_rate)
            inside = ((centers >= low) & (centers <= high)).nonzero().squeeze(1)
            self.register_buffer(f"bins_{length}", inside, persistent=False)

    def spectrum(
        self, audio: Float[Tensor, "rows samples"], length: int
    ) -> Complex[Tensor, "rows bins frames"]:
        """The spectrum of windows of one length, zero beyond both ends of the audio."""
        window, bins = self.get_buffer(f"window_{length}"), self.get_buffer(f"bins_{length}")
        spectrum = torch.stft(
            audio, length, length // 4, window=window, pad_mode="constant", return_complex=True
        )
        return spectrum[:, bins]


class StftLoss(_BandSpectra):
    """Distance of linear-frequency magnitudes, at several resolutions.

    For each window length the spectral convergence ||R| - |E|| / ||R|| (Frobenius norms over a
    row) plus the mean L1 distance of the natural logarithms of both magnitudes; the mean over the
    windows. Source: Yamamoto et al. 2020 (arXiv 1910.11480), equations 4 to 6. Both terms have a
    floor, so that silence neither explodes nor counts.
    """

    def forward(
        self,
        estimate: Float[Tensor, "rows *channels samples"],
        reference: Float[Tensor, "rows *channels samples"],
        lengths: Int[Tensor, "rows"] | None = None,
    ) -> Float[Tensor, ""]:
        """Distance of two signals of the same shape, in float32.

        Args:
            estimate: what the decoder made.
            reference: the recordings.
            lengths: the number of samples of each row that are not padding; all by default.
        """
        estimate, reference = (item.float().flatten(0, -2) for item in (estimate, reference))
        counted = repeat_for_channels(lengths, len(reference))
        total = estimate.new_zeros(())
        for length in self.window_lengths:
            with torch.no_grad():
                target = _magnitude(self.spectrum(reference, length))
            found = _magnitude(self.spectrum(estimate, length))
            hop = length // 4
            logs = found.clamp_min(_LOG_FLOOR).log() - target.clamp_min(_LOG_FLOOR).log()
            total = total + mean_of_rows(logs.abs(), counted, hop)
            total = total + _convergence(found, target, counted, hop)
        return total / len(self.window_lengths)


class InstantaneousFrequencyLoss(_BandSpectra):
    """Distance of the phase advances from frame to frame, above a lowest frequency.

    In bin k the phase of frame t+1 relative to frame t is that of D = S(t+1) S(t)*; it follows the
    instantaneous frequency and does not depend on where a sinusoid began, which no decoder needs to
    reproduce above some hundred Hz. The loss is 1 - cos of the angle between D of the estimate and
    D of the recording: the mean over bins and frames, weighted by the recording's |D|^(1/2), and
    over the windows. It is 0 for equal advances and 1 for unrelated ones.
    """

    def forward(
        self,
        estimate: Float[Tensor, "rows *channels samples"],
        reference: Float[Tensor, "rows *channels samples"],
        lengths: Int[Tensor, "rows"] | None = None,
    ) -> Float[Tensor, ""]:
        """Distance of two signals of the same shape, in float32.

        Args:
            estimate: what the decoder made.
            reference: the recordings.
            lengths: the number of samples of each row that are not padding; all by default.
        """
        estimate, reference = (item.float().flatten(0, -2) for item in (estimate, reference))
        counted = repeat_for_channels(lengths, len(reference))
        total = estimate.new_zeros(())
        for length in self.window_lengths:
            with torch.no_grad():
                target = _advances(self.spectrum(reference, length))
                weights = target.abs().sqrt() * _counts(target, counted, length // 4)
            found = _advances(self.spectrum(estimate, length))
            floor = _ENERGY_FLOOR**2
            cosines = (found * target.conj()).real / (
                (found.abs() + floor) * (target.abs() + floor)
            )
            apart = (weights * (1 - cosines)).sum((1, 2))
            total = total + (apart / (weights.sum((1, 2)) + _silent_weight(weights))).mean()
        return total / len(self.window_lengths)


def _magnitude(spectrum: Tensor) -> Tensor:
    # The small constant keeps the gradient finite at silence.
    return (torch.view_as_real(spectrum).square().sum(-1) + 1e-14).sqrt()


def _unit(values: Tensor) -> Tensor:
    """Complex numbers of length 1, and shorter where there is next to nothing."""
    return values / (torch.view_as_real(values).square().sum(-1) + _ENERGY_FLOOR**4).sqrt()


def _advances(spectrum: Tensor) -> Tensor:
    return spectrum[..., 1:] * spectrum[..., :-1].conj()


def _counts(values: Tensor, lengths: Tensor | None, hop: int) -> Tensor:
    """1 for frames whose center lies within a row, 0 for those in its padding."""
    centers = torch.arange(values.shape[-1], device=values.device) * hop
    if lengths is None:
        return torch.ones_like(centers, dtype=torch.float32)[None, None]
    return (centers < lengths[:, None]).float()[:, None]


def _silent_weight(weights: Tensor) -> float:
    """The weight of a row that is silent, so that it counts for nothing."""
    return _ENERGY_FLOOR * weights.shape[1] * weights.shape[2]


def _convergence(found: Tensor, target: Tensor, lengths: Tensor | None, hop: int) -> Tensor:
    """The norm of the difference relative to that of the target: of each row, then their mean."""
    counts = _counts(target, lengths, hop)
    error = ((found - target).square() * counts).sum((1, 2))
    energy = (target.square() * counts).sum((1, 2))
    floor = _ENERGY_FLOOR**2 * target.shape[1] * counts.expand(len(target), -1, -1).sum((1, 2))
    # The square root has no slope at zero.
    return ((error + 1e-12).sqrt() / (energy + floor + 1e-12).sqrt()).mean()
