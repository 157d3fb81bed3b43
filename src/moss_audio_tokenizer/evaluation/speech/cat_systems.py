"""CAT-ASR and CAT-TTS behind the protocols of a speech evaluation.

Owns the way from this package's models to `evaluation.speech`'s protocols.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from jaxtyping import Integer

from ...asr import CatAsr, Transcriber
from ...codes import Codec
from ...model.devices import require_device
from ...tts import SpeechRequest, SpeechSampling, Synthesizer
from .systems import SynthesizedSpeech, TtsRequest


class CatAsrSystem:
    """A CAT-ASR model: codes to texts. See `asr_eval.AsrSystem`.

    Raises:
        CheckpointError: there is none.
        ModelMismatchError: it was trained on codes of another codec.
    """

    def __init__(self, name: str, codec: Codec, device: str = "cpu") -> None:
        model: Any = CatAsr.from_pretrained(name)
        self._transcriber = Transcriber(model.to(require_device(device)), codec)
        self.num_quantizers = int(model.config.num_quantizers)

    def transcribe_codes(
        self,
        clips: Sequence[Integer[np.ndarray, "num_quantizers _"]],
        num_quantizers: int,
        num_beams: int = 1,
    ) -> list[str]:
        """What is said in clips, by their first layers."""
        return self._transcriber.transcribe_codes(clips, num_quantizers, num_beams)


class CatTtsSystem:
    """A CAT-TTS model with its codec. See `speech.systems.TtsSystem`.

    Args:
        name: folder of the model.
        codec: folder, hub id or "bundled".
        device: where to compute.
        sampling: fields of `SpeechSampling`.

    Raises:
        CheckpointError, ModelMismatchError: see `Synthesizer.from_pretrained`.
        InputError: see `SpeechSampling`.
    """

    def __init__(self, name: str, codec: str, device: str, **sampling: Any) -> None:
        self._sampling = SpeechSampling(**sampling)
        self._synthesizer = Synthesizer.from_pretrained(name, codec=codec, device=device)
        self.num_quantizers = int(self._synthesizer.model.facts.num_quantizers)
        self.kbps_per_quantizer = self._synthesizer.codec.info.bitrate(1) / 1000

    def speak(
        self, wanted: Sequence[TtsRequest], num_quantizers: int, seed: int
    ) -> list[SynthesizedSpeech]:
        """Several texts; row i has the seed ``seed + i``."""
        requests = [
            SpeechRequest(one.text, one.prompt_audio, one.prompt_text if one.prompt_audio else "")
            for one in wanted
        ]
        settings = replace(self._sampling, num_quantizers=num_quantizers, seed=seed)
        return [
            SynthesizedSpeech(speech.samples, speech.sampling_rate, speech.finished)
            for speech in self._synthesizer.speak_many(requests, settings)
        ]
