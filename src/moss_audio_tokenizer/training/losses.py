"""Losses of the reconstruction stage, as pure modules.

Owns the multi-scale log-mel distance; knows nothing of models or data. Source: training.md
section 2, after DAC's recipe.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from transformers.audio_utils import mel_filter_bank

_LOG_FLOOR = 1e-5


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
            self.register_buffer(f"window_{length}", window, persistent=False)
            self.register_buffer(f"filters_{length}", filters, persistent=False)

    def _scales(self) -> Iterator[tuple[int, int]]:
        return zip(self.config.window_lengths, self.config.num_mels, strict=True)

    def log_mel(
        self, audio: Float[Tensor, "rows samples"], length: int
    ) -> Float[Tensor, "rows mels frames"]:
        """log10 of the mel magnitudes at the scale of window ``length``."""
        window = self.get_buffer(f"window_{length}")
        spectrum = torch.stft(
            audio, length, length // 4, window=window, center=True, return_complex=True
        )
        # The small constant keeps the gradient of the magnitude finite at silence.
        magnitude = (torch.view_as_real(spectrum).square().sum(-1) + 1e-14).sqrt()
        mel = self.get_buffer(f"filters_{length}").T @ magnitude
        return mel.clamp_min(_LOG_FLOOR).log10()

    def forward(
        self, estimate: Float[Tensor, "*batch samples"], reference: Float[Tensor, "*batch samples"]
    ) -> Float[Tensor, ""]:
        """Distance of two signals of the same shape, in float32."""
        estimate, reference = (item.float().flatten(0, -2) for item in (estimate, reference))
        total = estimate.new_zeros(())
        for length in self.config.window_lengths:
            with torch.no_grad():
                target = self.log_mel(reference, length)
            total = total + F.l1_loss(self.log_mel(estimate, length), target)
        return total


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
