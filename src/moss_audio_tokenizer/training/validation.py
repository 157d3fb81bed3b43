"""Validation during training: quality by depth on held-out clips, and use of the codebooks.

Owns what is measured; knows nothing of the loop or of logs. The measures are `metrics`'s.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ..metrics import mel_distance, stoi
from ..model.codec import Codec
from .data import Clip


@dataclass(frozen=True)
class ValidationResult:
    """Scalars by name, and one reconstruction to listen to."""

    scalars: dict[str, float]
    reference: np.ndarray
    estimate: np.ndarray


@torch.no_grad()
def validate(
    codec: Codec,
    clips: Sequence[Clip],
    num_quantizers: Sequence[int],
    max_seconds: float,
    quantize: bool = True,
) -> ValidationResult:
    """Reconstruct clips at several depths and measure them, in float32.

    Args:
        codec: what to measure; its training mode is restored.
        clips: held-out clips, at least one, cut to ``max_seconds``.
        num_quantizers: depths; those beyond the codec's are its full depth.
        max_seconds: length that is measured of each clip.
        quantize: False measures the autoencoder alone, under the depth 0.
    """
    was_training = codec.training
    codec.eval()
    layers = codec.quantizer.config.num_quantizers
    depths = sorted({min(depth, layers) for depth in num_quantizers}) if quantize else [0]
    rows: dict[str, list[float]] = {}
    used = []
    for clip in clips:
        audio = _whole_frames(codec, clip, max_seconds)
        hidden = codec.require_encoder()(audio)
        codes = codec.quantizer.encode(hidden)
        used.append(codes.flatten(1))
        reference = _mono(audio)
        for depth in depths:
            latent = codec.quantizer.decode(codes[:depth]) if depth else hidden
            estimate = _mono(codec.require_decoder()(latent))
            _measure(rows, codec, clip, reference, estimate, depth)
    scalars = _means(rows)
    if quantize:
        scalars |= _codebook_use(torch.cat(used, 1), codec.quantizer.config.codebook_size)
    codec.train(was_training)
    return ValidationResult(scalars, reference, estimate)


def _mono(audio: torch.Tensor) -> np.ndarray:
    """The first row, its channels mixed: the measures take mono."""
    mono: np.ndarray = audio[0].mean(0).numpy()
    return mono


def _means(rows: dict[str, list[float]]) -> dict[str, float]:
    """Means over the clips where a measure is defined; a measure without any is left out."""
    defined = {name: [v for v in values if np.isfinite(v)] for name, values in rows.items()}
    return {name: float(np.mean(values)) for name, values in defined.items() if values}


def _whole_frames(codec: Codec, clip: Clip, max_seconds: float) -> torch.Tensor:
    step = codec.config.downsample_rate
    frames = max(1, int(max_seconds * codec.config.sampling_rate) // step)
    length = min(frames, -(-clip.samples.shape[1] // step)) * step
    return torch.from_numpy(clip.cut(0, length))[None]


def _measure(
    rows: dict[str, list[float]],
    codec: Codec,
    clip: Clip,
    reference: np.ndarray,
    estimate: np.ndarray,
    depth: int,
) -> None:
    rate = codec.config.sampling_rate
    domain = clip.entry.domain
    values = {"mel_distance": mel_distance(reference, estimate, rate)}
    if domain == "speech":
        values["stoi"] = stoi(reference, estimate, rate)
    for name, value in values.items():
        rows.setdefault(f"{domain}/{name}/{depth}", []).append(value)


def _codebook_use(codes: torch.Tensor, codebook_size: int) -> dict[str, float]:
    """Perplexity of each layer's codes as a share of what the sample allows."""
    reachable = min(codebook_size, codes.shape[1])
    shares = []
    for layer in codes:
        counts = torch.bincount(layer, minlength=codebook_size).double()
        p = counts[counts > 0] / counts.sum()
        shares.append(float(torch.exp(-(p * p.log()).sum())) / reachable)
    thirds = {"first": shares[0], "middle": shares[len(shares) // 2], "last": shares[-1]}
    return {f"perplexity/{name}": value for name, value in thirds.items()} | {
        "perplexity/lowest": min(shares)
    }
