"""How far an export is from its model: codes that change, and the distance of the audio.

Knows two codecs and clips, not how either computes. Owns the refusal of an export that does not
compute what PyTorch does.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ..config import CodecConfig
from ..errors import CheckpointError

# Beyond rounding, what differs is a mistake.
_LARGEST_AUDIO_ERROR = 1e-4
_MOST_ROUNDED_CODES = 0.002
_PROBE_SECONDS = 6.0


class Verbs(Protocol):
    """What is compared."""

    def encode(self, audio: np.ndarray) -> np.ndarray:
        """Codes (layers, frames) of a clip."""
        ...

    def decode(self, codes: np.ndarray) -> np.ndarray:
        """Audio (channels, samples) of codes."""
        ...


@dataclass(frozen=True)
class Distance:
    """One codec's results against another's.

    Attributes:
        codes: compared.
        codes_changed: share that differs.
        first_layer_changed: the same, of the first layer.
        audio_error: largest difference of the audio of the same codes, over its RMS.
        audio_snr_db: of that audio; the least of all clips, None if they are equal.
    """

    codes: int
    codes_changed: float
    first_layer_changed: float
    audio_error: float
    audio_snr_db: float | None

    def as_json(self) -> dict[str, float | int | None]:
        """Plain values."""
        return asdict(self)


def compare(reference: Verbs, other: Verbs, clips: Sequence[np.ndarray]) -> Distance:
    """Encode clips with both, and decode the reference's codes with both."""
    changes, errors, ratios = [], [], []
    for clip in clips:
        codes = reference.encode(clip)
        changes.append(other.encode(clip) != codes)
        expected = reference.decode(codes).astype(np.float64)
        noise = other.decode(codes) - expected
        power = float(np.square(expected).mean())
        errors.append(float(np.abs(noise).max()) / max(power**0.5, 1e-12))
        if noise.any():
            ratios.append(10 * np.log10(max(power, 1e-20) / float(np.square(noise).mean())))
    changed = np.concatenate(changes, axis=1)
    return Distance(
        codes=changed.size,
        codes_changed=float(changed.mean()),
        first_layer_changed=float(changed[0].mean()),
        audio_error=max(errors),
        audio_snr_db=round(float(min(ratios)), 1) if ratios else None,
    )


def require_pytorch_results(
    model: Path, export: Verbs, clips: Sequence[np.ndarray]
) -> dict[str, Any] | None:
    """The distance of an export from PyTorch; None where that is not installed.

    Raises:
        CheckpointError: the distance is more than rounding.
    """
    try:
        from ..hf.torch_codec import TorchCodec
    except ImportError:
        return None
    distance = compare(TorchCodec.from_pretrained(model), export, clips)
    if distance.audio_error > _LARGEST_AUDIO_ERROR or distance.codes_changed > _MOST_ROUNDED_CODES:
        raise CheckpointError(
            f"the graphs do not compute what PyTorch does ({distance}); this is a mistake of the "
            "export, please report it with the model's config.json"
        )
    return distance.as_json()


def probe(config: CodecConfig) -> np.ndarray:
    """A clip (channels, samples) to compare on where there is none: glides, noise and pauses."""
    rate = config.sampling_rate
    time = np.arange(round(_PROBE_SECONDS * rate)) / rate
    random = np.random.default_rng(0)
    pitch = 120 + 60 * np.sin(2 * np.pi * 0.7 * time)
    phase = 2 * np.pi * np.cumsum(pitch) / rate
    voice = sum(np.sin(k * phase) / k for k in range(1, 20))
    noise = random.standard_normal(time.size)
    mixed = 0.15 * voice * (np.sin(2 * np.pi * 1.9 * time) > -0.5)
    mixed += 0.05 * noise * (np.sin(2 * np.pi * 1.3 * time) > 0.4)
    clip = np.repeat(mixed[None], config.number_channels, axis=0)
    return (clip + 0.003 * random.standard_normal(clip.shape)).astype(np.float32)
