"""What turns texts into speech, behind a protocol, and what goes in and comes out.

Knows neither models nor judges.
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
    """What was said.

    Attributes:
        samples: mono, without the prompt.
        sampling_rate: a second.
        finished: whether it came to an end by itself.
    """

    samples: Float[np.ndarray, "samples"]
    sampling_rate: int
    finished: bool


class TtsSystem(Protocol):
    """What turns texts into speech.

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
