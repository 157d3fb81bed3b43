"""From text to sound: a CAT-TTS model with the codec whose codes it speaks.

Owns prompts (a recording and what is said in it), whole and streamed speech; codes come from
`generation.py`, sound from any `Codec`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from jaxtyping import Float, Integer

from ..audio import check_audio, convert_channels, resample
from ..codes.codec import Codec
from ..errors import InputError, ModelMismatchError
from ..hf.torch_codec import TorchCodec
from ..llm import check_codes
from ..llm.folder import check_codec
from ..model.devices import require_device
from ..streaming import DecoderStream
from .generation import Prompt, frames, generate
from .model import CatTts
from .sampling import SpeechSampling, checked_depth


class SpeakingCodec(Codec, Protocol):
    """A codec that also decodes as a stream."""

    def decoder_stream(self, max_slots: int = 64, max_chunk_frames: int = 25) -> DecoderStream:
        """A session."""
        ...


@dataclass(frozen=True)
class SpeechRequest:
    """What to say, and in whose voice.

    Attributes:
        text: to say.
        prompt_audio: (samples, sampling rate) of a recording whose voice goes on; None for any.
        prompt_text: what is said in it.
        prompt_codes: its codes, where they are known already, in place of the recording.
    """

    text: str
    prompt_audio: tuple[np.ndarray, int] | None = None
    prompt_text: str = ""
    prompt_codes: Integer[np.ndarray, "num_quantizers frames"] | None = None

    @property
    def whole_text(self) -> str:
        """Of prompt and speech.

        Raises:
            InputError: nothing to say, or a prompt without its text, or a text without prompt.
        """
        if not self.text.strip():
            raise InputError("the text is empty; give something to say")
        prompted = self.prompt_audio is not None or self.prompt_codes is not None
        if prompted and not self.prompt_text.strip():
            raise InputError("a prompt recording needs its text: give what is said in it")
        if self.prompt_text and not prompted:
            raise InputError("a prompt text needs its recording: give both, or none")
        return f"{self.prompt_text.strip()} {self.text.strip()}".strip()


@dataclass(frozen=True)
class Speech:
    """What was said.

    Attributes:
        samples: mono.
        sampling_rate: a second.
        codes: without the prompt's.
        finished: whether it came to an end by itself, before the limit.
    """

    samples: Float[np.ndarray, " samples"]
    sampling_rate: int
    codes: Integer[np.ndarray, "num_quantizers frames"]
    finished: bool


class Synthesizer:
    """Speaks texts.

    Args:
        model: CAT-TTS.
        codec: the one it was trained on.

    Raises:
        ModelMismatchError: the model speaks the codes of another codec.
    """

    def __init__(self, model: CatTts, codec: SpeakingCodec) -> None:
        self.model, self.codec = model, codec
        check_codec(model.config, codec.info)
        spoken, there = model.config.num_quantizers, codec.info.num_quantizers
        if there < spoken:
            raise ModelMismatchError(
                f"the model speaks {spoken} layers of codes, and the codec has {there}; name the "
                "codec that it was trained on"
            )

    @classmethod
    def from_pretrained(
        cls, path: str | Path, codec: str | Path | SpeakingCodec = "bundled", device: str = "cpu"
    ) -> "Synthesizer":
        """Load a model folder, and a codec by folder, hub id or "bundled".

        Raises:
            CheckpointError: one of them is not there or damaged.
            ModelMismatchError: they do not belong together.
        """
        model: Any = CatTts.from_pretrained(path)
        if isinstance(codec, str | Path):
            codec = TorchCodec.from_pretrained(codec, device=device)
        return cls(model.to(require_device(device)), codec)

    def speak(self, text: str, **options: Any) -> Speech:
        """Say one text.

        Args:
            text: to say.
            options: the other fields of `SpeechRequest`, and those of `SpeechSampling`.

        Raises:
            InputError: see `SpeechRequest`, `SpeechSampling` and `generate`.
        """
        request, settings = _parted(text, options)
        return self.speak_many([request], settings)[0]

    def speak_many(
        self, requests: Sequence[SpeechRequest], sampling: SpeechSampling | None = None
    ) -> list[Speech]:
        """Say several texts as one batch; row i is seeded with ``sampling.seed + i``."""
        if not requests:
            return []
        settings, prompts = self._prepared(requests, sampling)
        texts = [request.whole_text for request in requests]
        given = [_prompt(*pair) for pair in zip(requests, prompts, strict=True)]
        spoken = generate(self.model, texts, given, settings)
        codes = spoken.audio_codes.cpu().numpy()
        return [
            self._speech(codes[:, row, :length], prompts[row], bool(spoken.finished[row]))
            for row, length in enumerate(spoken.audio_codes_lengths.tolist())
        ]

    def stream(self, text: str, **options: Any) -> Iterator[Float[np.ndarray, " samples"]]:
        """The sound of every frame as soon as there is one; codes are those of `speak`.

        Takes what `speak` takes.
        """
        request, sampling = _parted(text, options)
        settings, (prompt,) = self._prepared([request], sampling)
        given = _prompt(request, prompt)
        session = self.codec.decoder_stream(max_slots=1)
        slot = session.open()
        if prompt is not None:
            _feed(session, slot, prompt)
        for frame in frames(self.model, [request.whole_text], [given], settings):
            if not bool(frame.ended):
                yield _mono(session.step({slot: frame.codes.cpu().numpy()})[slot])

    def _prepared(
        self, requests: Sequence[SpeechRequest], sampling: SpeechSampling | None
    ) -> tuple[SpeechSampling, list[np.ndarray | None]]:
        """The settings with their depth, and each request's prompt at that depth."""
        settings = sampling or SpeechSampling()
        depth = checked_depth(settings.num_quantizers, self.model.config.num_quantizers)
        for request in requests:
            self.model.text.encode(request.whole_text)
        prompts = [self._prompt_codes(request, depth) for request in requests]
        return replace(settings, num_quantizers=depth), prompts

    def _prompt_codes(self, request: SpeechRequest, depth: int) -> np.ndarray | None:
        codes = request.prompt_codes
        if codes is None and request.prompt_audio is None:
            return None
        if codes is None and request.prompt_audio is not None:
            samples, rate = _recording(request.prompt_audio)
            info = self.codec.info
            audio = resample(check_audio(samples), rate, info.sampling_rate)
            fitting = convert_channels(audio, info.num_channels)
            codes = self.codec.encode(fitting, num_quantizers=depth)
        return check_codes(np.asarray(codes), self.model.config, depth)

    def _speech(self, codes: np.ndarray, prompt: np.ndarray | None, finished: bool) -> Speech:
        """Decoded behind its prompt, so that the codec hears the voice go on."""
        rate = self.codec.info.sampling_rate
        if not codes.shape[1]:
            return Speech(np.zeros(0, np.float32), rate, codes, finished)
        given = codes if prompt is None else np.concatenate((prompt, codes), 1)
        samples = _mono(self.codec.decode(given))
        length = codes.shape[1] * self.codec.info.downsample_rate
        return Speech(samples[-length:], rate, codes, finished)


def _recording(given: Any) -> tuple[np.ndarray, int]:
    """Samples and rate of a prompt.

    Raises:
        InputError: it is not a pair of these.
    """
    if not isinstance(given, tuple | list) or len(given) != 2:
        raise InputError(
            f"prompt_audio is a {type(given).__name__}; expected a pair: samples, sampling rate"
        )
    samples, rate = given
    if not isinstance(rate, int) or rate < 1:
        raise InputError(
            f"the sampling rate of prompt_audio is {rate!r}; expected a whole number of hertz"
        )
    return np.asarray(samples), rate


def _prompt(request: SpeechRequest, codes: np.ndarray | None) -> Prompt | None:
    """A request's prompt as generation wants it."""
    if codes is None:
        return None
    return Prompt(torch.from_numpy(codes), request.prompt_text.strip())


def _parted(text: str, options: dict[str, Any]) -> tuple[SpeechRequest, SpeechSampling]:
    """Options of the request, and those of sampling."""
    of_request = {key: options.pop(key) for key in list(options) if key.startswith("prompt_")}
    try:
        return SpeechRequest(text, **of_request), SpeechSampling(**options)
    except TypeError as error:
        raise InputError(
            f"unknown option ({error}); see SpeechRequest and SpeechSampling"
        ) from error


def _mono(audio: np.ndarray) -> np.ndarray:
    mono: np.ndarray = audio.mean(0).astype(np.float32)
    return mono


def _feed(session: DecoderStream, slot: Any, codes: np.ndarray, chunk: int = 25) -> None:
    """Let a stream hear a prompt, whose sound nobody wants."""
    for first in range(0, codes.shape[1], chunk):
        session.step({slot: codes[:, first : first + chunk]})
