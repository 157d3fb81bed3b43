"""Protocol of a TTS system under evaluation, its requests and its speech.

It knows neither models nor scoring models.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from jaxtyping import Float

Sound = tuple[Float[np.ndarray, "samples"], int]
"""Mono samples, in -1 .. 1, and their rate."""


@dataclass(frozen=True)
class TtsRequest:
    """A text, and the sound and text of its prompt, if it has one."""

    text: str
    prompt_audio: Sound | None = None
    prompt_text: str = ""


@dataclass(frozen=True)
class SynthesizedSpeech:
    """Synthesized speech.

    Attributes:
        samples: mono, without the prompt.
        sampling_rate: a second.
        finished: whether the system ended it, not the length limit.
    """

    samples: Float[np.ndarray, "samples"]
    sampling_rate: int
    finished: bool


class TtsSystem(Protocol):
    """A TTS system under evaluation.

    Attributes:
        num_quantizers: layers that it has.
        kbps_per_quantizer: bitrate of one layer of its codes.
    """

    num_quantizers: int
    kbps_per_quantizer: float

    def speak(
        self, wanted: Sequence[TtsRequest], num_quantizers: int, seed: int
    ) -> list[SynthesizedSpeech]:
        """Several texts at once; what row i says depends on ``seed + i`` and on itself alone."""
        ...
