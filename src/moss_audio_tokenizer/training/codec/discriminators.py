"""Discriminators of waveforms, and the file of a trained set of them.

Multi-period discriminators look at every p-th sample, multi-band ones at complex spectrograms. The
paper (section 3.2) leaves the architecture open; this is that of DAC (Kumar et al. 2023, arXiv
2306.06546). Knows nothing of losses or steps.
"""

from collections.abc import Sequence
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from ...errors import CheckpointError, one_line
from ...files import atomic_path, require_file
from ..run_config import override
from .codec_config import DiscriminatorConfig

# Feature maps of one discriminator; the last one holds its logits.
Maps = list[Tensor]

_PERIOD_CHANNELS = (32, 128, 512, 1024, 1024)
_BAND_CHANNELS = 32
_BANDS = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0)
_PEAK = 0.8


class Discriminators(nn.Module):
    """All discriminators, on mono audio: every channel is a row."""

    def __init__(self, config: DiscriminatorConfig) -> None:
        super().__init__()
        self.config = config
        divisor = config.channel_divisor
        self.periods = nn.ModuleList(PeriodDiscriminator(p, divisor) for p in config.periods)
        self.spectra = nn.ModuleList(BandDiscriminator(w, divisor) for w in config.windows)

    def forward(self, audio: Float[Tensor, "*batch samples"]) -> list[Maps]:
        """The feature maps of every discriminator."""
        rows = _leveled(audio.float().flatten(0, -2))
        return [discriminator(rows) for discriminator in (*self.periods, *self.spectra)]


def _leveled(rows: Float[Tensor, "rows samples"]) -> Float[Tensor, "rows samples"]:
    """Without a mean and at a common peak, so that the level does not matter."""
    rows = rows - rows.mean(-1, keepdim=True)
    return _PEAK * rows / (rows.abs().amax(-1, keepdim=True) + 1e-9)


class PeriodDiscriminator(nn.Module):
    """Convolutions along time over audio folded into rows of ``period`` samples."""

    def __init__(self, period: int, channel_divisor: int = 1) -> None:
        super().__init__()
        self.period = period
        widths = [1, *(max(1, width // channel_divisor) for width in _PERIOD_CHANNELS)]
        strides = [3] * (len(widths) - 2) + [1]
        self.layers = nn.ModuleList(
            weight_norm(nn.Conv2d(inputs, outputs, (5, 1), (stride, 1), (2, 0)))
            for (inputs, outputs), stride in zip(pairwise(widths), strides, strict=True)
        )
        self.judge = weight_norm(nn.Conv2d(widths[-1], 1, (3, 1), padding=(1, 0)))

    def forward(self, rows: Float[Tensor, "rows samples"]) -> Maps:
        """Feature maps of every layer, the logits last."""
        padded = F.pad(rows[:, None], (0, -rows.shape[1] % self.period), mode="reflect")
        maps = _through(self.layers, padded.unflatten(2, (-1, self.period)))
        return [*maps, self.judge(maps[-1])]


class BandDiscriminator(nn.Module):
    """Convolutions over bands of a complex spectrogram, each band with its own layers."""

    def __init__(self, window_length: int, channel_divisor: int = 1) -> None:
        super().__init__()
        self.window_length = window_length
        self.register_buffer("window", torch.hann_window(window_length), persistent=False)
        bins = window_length // 2 + 1
        self.edges = [int(share * bins) for share in _BANDS]
        width = max(1, _BAND_CHANNELS // channel_divisor)
        self.bands = nn.ModuleList(_band_layers(width) for _ in self.edges[1:])
        self.judge = weight_norm(nn.Conv2d(width, 1, (3, 3), padding=(1, 1)))

    def spectrogram(
        self, rows: Float[Tensor, "rows samples"]
    ) -> Float[Tensor, "rows 2 frames bins"]:
        """Real and imaginary parts, of as many frames as hops fit, evenly padded."""
        hop = self.window_length // 4
        missing = -rows.shape[1] % hop
        side = (self.window_length - hop) // 2
        rows = F.pad(rows[:, None], (side, side + missing), mode="reflect")[:, 0]
        spectrum = torch.stft(
            rows,
            self.window_length,
            hop,
            window=self.get_buffer("window"),
            center=False,
            return_complex=True,
        )
        return torch.view_as_real(spectrum).permute(0, 3, 2, 1)

    def forward(self, rows: Float[Tensor, "rows samples"]) -> Maps:
        """Maps of every layer of every band, then the judgement over all of them."""
        spectrum = self.spectrogram(rows)
        maps: Maps = []
        ends = []
        for layers, (low, high) in zip(self.bands, pairwise(self.edges), strict=True):
            of_band = _through(layers, spectrum[..., low:high])
            maps += of_band
            ends.append(of_band[-1])
        return [*maps, self.judge(torch.cat(ends, dim=-1))]


def _band_layers(width: int) -> nn.ModuleList:
    shapes = [(2, (3, 9), 1), (width, (3, 9), 2), (width, (3, 9), 2), (width, (3, 9), 2)]
    layers = [
        weight_norm(nn.Conv2d(inputs, width, kernel, (1, stride), padding=(1, 4)))
        for inputs, kernel, stride in shapes
    ]
    return nn.ModuleList([*layers, weight_norm(nn.Conv2d(width, width, (3, 3), padding=(1, 1)))])


def _through(layers: nn.Module, x: Tensor) -> Maps:
    maps: Maps = []
    for layer in layers.children():
        x = F.leaky_relu(layer(x), 0.1)
        maps.append(x)
    return maps


def save_discriminators(discriminators: Discriminators, path: Path) -> None:
    """Write them to a safetensors file, which says what they are built like.

    Raises:
        CheckpointError: the file cannot be written.
    """
    notes = {
        f"discriminator.{key}": repr(value) for key, value in asdict(discriminators.config).items()
    }
    with atomic_path(path, error=CheckpointError) as beside:
        save_file(_plain(discriminators), beside, notes)


def load_discriminators(path: Path) -> Discriminators:
    """Build discriminators from a file of `save_discriminators`.

    Raises:
        CheckpointError: the file is missing, damaged, or holds no discriminators.
    """
    require_file(path, error=CheckpointError)
    try:
        with safe_open(path, "pt") as file:
            notes = file.metadata() or {}
        config = override(DiscriminatorConfig(), _assignments(notes))
        discriminators = Discriminators(config)
        discriminators.load_state_dict(load_file(path))
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise CheckpointError(
            f"{str(path)!r} holds no discriminators ({one_line(error, 200)})"
        ) from error
    return discriminators


def _assignments(notes: dict[str, str]) -> Sequence[str]:
    prefix = "discriminator."
    found = [f"{k.removeprefix(prefix)}={v}" for k, v in notes.items() if k.startswith(prefix)]
    if not found:
        raise ValueError("its header does not say how they are built")
    return found


def _plain(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().contiguous() for name, tensor in module.state_dict().items()}
