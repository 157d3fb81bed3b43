"""Protocols of the ASR and TTS systems under evaluation, their requests and their speech.

It knows neither models nor scoring models.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from jaxtyping import Float, Integer

from ...errors import CodesError

Sound = tuple[Float[np.ndarray, "samples"], int]
"""Mono samples, in -1 .. 1, and their rate."""


class AsrSystem(Protocol):
    """An ASR system under evaluation: codes to texts.

    Attributes:
        identity: which version it is, so that results of another one are not taken for its own.
        num_quantizers: the most quantizers whose codes it reads.
    """

    identity: str
    num_quantizers: int

    def transcribe_codes(
        self,
        clips: Sequence[Integer[np.ndarray, "num_quantizers _"]],
        num_quantizers: int,
        num_beams: int = 1,
    ) -> list[str]:
        """The transcripts of clips, from the codes of their first quantizers."""
        ...


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
        sampling_rate: samples a second.
        finished: whether the system ended it, not the length limit.
    """

    samples: Float[np.ndarray, "samples"]
    sampling_rate: int
    finished: bool


class TtsSystem(Protocol):
    """A TTS system under evaluation.

    Attributes:
        identity: which version it is, so that results of another one are not taken for its own.
        num_quantizers: the most quantizers that it predicts.
        kbps_per_quantizer: bitrate of one quantizer's codes.
    """

    identity: str
    num_quantizers: int
    kbps_per_quantizer: float

    def synthesize(
        self, requests: Sequence[TtsRequest], num_quantizers: int, seed: int
    ) -> list[SynthesizedSpeech]:
        """Several texts at once; what row i says depends on ``seed + i`` and on itself alone."""
        ...


def chosen_quantizer_counts(wanted: Sequence[int], most: Mapping[str, int]) -> dict[str, list[int]]:
    """The numbers of quantizers of every system, from the lowest.

    Args:
        wanted: numbers that were asked for; empty for powers of two and all.
        most: the most quantizers of each system, by its label.

    Raises:
        CodesError: more quantizers than a system has, or none.
    """
    for label, limit in most.items():
        wrong = [count for count in wanted if not 1 <= count <= limit]
        if wrong:
            raise CodesError(f"num_quantizers is {wrong[0]}; expected 1 to {limit} for {label!r}")
    return {label: sorted(set(wanted) or _powers(limit)) for label, limit in most.items()}


def _powers(limit: int) -> set[int]:
    powers = {1 << power for power in range(limit.bit_length())}
    return {one for one in powers if one <= limit} | {limit}
