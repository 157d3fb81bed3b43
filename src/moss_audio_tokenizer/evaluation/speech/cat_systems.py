"""CAT-ASR and CAT-TTS as systems under evaluation: adapters to the protocols in `systems`.

Owns their identities, by which a resumed run knows whether a model has changed.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from jaxtyping import Integer

from ...asr import CatAsr, Transcriber
from ...codes import Codec
from ...model.inputs import require_device
from ...tts import SpeechRequest, SpeechSampling, Synthesizer
from ..pretrained import fingerprint
from .systems import SynthesizedSpeech, TtsRequest


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
        model: Any = CatAsr.from_pretrained(name)
        self.identity = fingerprint(model)
        self._transcriber = Transcriber(model.to(require_device(device)), codec)
        self.num_quantizers = int(model.config.num_quantizers)

    def transcribe_codes(
        self,
        clips: Sequence[Integer[np.ndarray, "num_quantizers _"]],
        num_quantizers: int,
        num_beams: int = 1,
    ) -> list[str]:
        """The transcripts of clips, from the codes of their first quantizers."""
        return self._transcriber.transcribe_codes(clips, num_quantizers, num_beams)


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
        self._sampling = SpeechSampling(**sampling)
        self._synthesizer = Synthesizer.from_pretrained(name, codec=codec, device=device)
        model: Any = self._synthesizer.model
        info = self._synthesizer.codec.info
        self.identity = f"{fingerprint(model)} {info.identity} {self._sampling}"
        self.num_quantizers = int(model.facts.num_quantizers)
        self.kbps_per_quantizer = info.bitrate(1) / 1000

    def synthesize(
        self, requests: Sequence[TtsRequest], num_quantizers: int, seed: int
    ) -> list[SynthesizedSpeech]:
        """Several texts; row i has the seed ``seed + i``."""
        prompted = [
            SpeechRequest(one.text, one.prompt_audio, one.prompt_text if one.prompt_audio else "")
            for one in requests
        ]
        settings = replace(self._sampling, num_quantizers=num_quantizers, seed=seed)
        return [
            SynthesizedSpeech(speech.samples, speech.sampling_rate, speech.finished)
            for speech in self._synthesizer.speak_many(prompted, settings)
        ]
