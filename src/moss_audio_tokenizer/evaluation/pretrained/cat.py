"""CAT-ASR and CAT-TTS as what an evaluation runs: readers of codes, recognisers, talkers.

Owns the way from this package's models to `evaluation.spoken`'s protocols.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from jaxtyping import Integer

from ...asr import CatAsr, Transcriber
from ...codes import Codec
from ...model.devices import require_device
from ...tts import SpeechRequest, SpeechSampling, Synthesizer
from ..spoken.talkers import Spoken, Wanted


class CatReader:
    """A CAT-ASR model: codes to texts. See `spoken.reading.CodeReader`.

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


def cat_recogniser(name: str, codec: str = "") -> Callable[[np.ndarray, int], str]:
    """A CAT-ASR model with a codec (by default the bundled one) before it: samples -> text.

    Models whose frames tell tokens themselves are read by these: no guesses from the words before.
    """
    transcriber = Transcriber.from_pretrained(name, codec or "bundled")
    layers = transcriber.model.facts.num_quantizers
    beams = 0 if transcriber.model.facts.has_frame_scores else 1

    def recognise(samples: np.ndarray, sampling_rate: int) -> str:
        clip = np.asarray(samples, np.float32), sampling_rate
        return transcriber.transcribe([clip], layers, beams)[0]

    return recognise


class CatTalker:
    """A CAT-TTS model with its codec. See `spoken.talkers.Talker`.

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
        self._speaker = Synthesizer.from_pretrained(name, codec=codec, device=device)
        self.num_quantizers = int(self._speaker.model.facts.num_quantizers)
        self.kbps_a_layer = self._speaker.codec.info.bitrate(1) / 1000

    def speak(self, wanted: Sequence[Wanted], num_quantizers: int, seed: int) -> list[Spoken]:
        """Several texts; row i has the seed ``seed + i``."""
        requests = [
            SpeechRequest(one.text, one.prompt_audio, one.prompt_text if one.prompt_audio else "")
            for one in wanted
        ]
        settings = replace(self._sampling, num_quantizers=num_quantizers, seed=seed)
        return [
            Spoken(speech.samples, speech.sampling_rate, speech.finished)
            for speech in self._speaker.speak_many(requests, settings)
        ]
