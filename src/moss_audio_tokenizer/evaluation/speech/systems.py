"""The ASR and TTS systems under evaluation: two protocols, and CAT-ASR and CAT-TTS behind them.

PyTorch is loaded when one of the CAT systems is made. Knows no scoring models.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
from jaxtyping import Integer

from ...codes import Codec
from ...errors import CodesError
from ...speech.sampling import SpeechSampling
from ...speech.synthesizer import Speech, SpeechRequest
from ..loading import fingerprint


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
        self, requests: Sequence[SpeechRequest], num_quantizers: int, seed: int
    ) -> list[Speech]:
        """Several texts at once; what row i says depends on ``seed + i`` and on itself alone."""
        ...


class CatAsrSystem:
    """A CAT-ASR model as an `AsrSystem`.

    Args:
        name: folder of the model, or its id on the hub.
        codec: codec whose codes the model reads.
        device: where to compute.

    Raises:
        CheckpointError: there is no such model.
        ModelMismatchError: it was trained on codes of another codec.
    """

    def __init__(self, name: str, codec: Codec, device: str = "cpu") -> None:
        from ...asr import CatAsr, Transcriber
        from ...model.inputs import require_device

        model: Any = CatAsr.from_pretrained(name)
        self.identity = fingerprint(model)
        self.num_quantizers = int(model.config.num_quantizers)
        self.transcribe_codes = Transcriber(
            model.to(require_device(device)), codec
        ).transcribe_codes


class CatTtsSystem:
    """A CAT-TTS model with its codec as a `TtsSystem`.

    Args:
        name: folder of the model, or its id on the hub.
        codec: folder, hub id or "bundled".
        device: where to compute.
        sampling: fields of `SpeechSampling`.

    Raises:
        CheckpointError: the model or the codec cannot be loaded.
        ModelMismatchError: the model was trained on codes of another codec.
        InputError: a sampling setting is out of range.
    """

    def __init__(self, name: str, codec: str, device: str, **sampling: Any) -> None:
        from ...tts import Synthesizer

        self._sampling = SpeechSampling(**sampling)
        self._synthesizer = Synthesizer.from_pretrained(name, codec=codec, device=device)
        model: Any = self._synthesizer.model
        info = self._synthesizer.codec.info
        self.identity = f"{fingerprint(model)} {info.identity} {self._sampling}"
        self.num_quantizers = int(model.facts.num_quantizers)
        self.kbps_per_quantizer = info.bitrate(1) / 1000

    def synthesize(
        self, requests: Sequence[SpeechRequest], num_quantizers: int, seed: int
    ) -> list[Speech]:
        """Several texts; row i has the seed ``seed + i``."""
        settings = replace(self._sampling, num_quantizers=num_quantizers, seed=seed)
        return self._synthesizer.speak_many(requests, settings)


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
    return {
        label: sorted(set(wanted) or {limit, *(1 << power for power in range(limit.bit_length()))})
        for label, limit in most.items()
    }
