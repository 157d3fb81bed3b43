"""From text to sound: a CAT-TTS model with the codec whose codes it predicts.

Owns prompts (a recording and its transcript, or a built-in voice), texts of any length, and
complete and streamed speech. Codes come from `tts_generation`, sound from any `Codec`.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Float, Integer

from ..codes import StreamingCodec
from ..errors import InputError, ModelMismatchError
from ..streaming import DecoderStream
from .built_in_voices import BuiltInVoices
from .model_facts import check_codec, check_codes, encode_recording
from .onnx_speech import OnnxTts
from .sampling import SpeechSampling, checked_num_quantizers
from .text_preparation import prepare_text
from .tts_generation import Prompt, TtsModel, frames, generate

_Item = TypeVar("_Item")


@dataclass(frozen=True)
class SpeechRequest:
    """A text, and the voice to say it in.

    Attributes:
        text: what to say.
        prompt_audio: samples and sampling rate of a recording of the voice.
        prompt_text: transcript of the recording.
        prompt_codes: codes of the recording, in place of its samples.
        voice: name of a built-in voice, in place of a recording. Without either, the model's
            default voice speaks; a model without voices makes up one.
    """

    text: str
    prompt_audio: tuple[np.ndarray, int] | None = None
    prompt_text: str = ""
    prompt_codes: Integer[np.ndarray, "num_quantizers frames"] | None = None
    voice: str = ""

    def check(self) -> None:
        """Check what needs no model.

        Raises:
            InputError: the text is empty, a prompt lacks its transcript or its recording, or there
                is a voice beside it.
        """
        if not self.text.strip():
            raise InputError("the text is empty; give something to say")
        prompted = self.is_prompted
        if self.voice and (prompted or self.prompt_text):
            raise InputError(
                f"got the voice {self.voice[:60]!r} and a prompt; give one of them, or none"
            )
        if prompted and not self.prompt_text.strip():
            raise InputError("a prompt recording needs its text: give what is said in it")
        if self.prompt_text and not prompted:
            raise InputError("a prompt text needs its recording: give both, or none")

    @property
    def is_prompted(self) -> bool:
        """Whether there is a prompt recording."""
        return self.prompt_audio is not None or self.prompt_codes is not None


@dataclass(frozen=True)
class Speech:
    """Generated speech.

    Attributes:
        samples: mono samples.
        sampling_rate: samples a second.
        codes: codes without those of the prompt.
        finished: whether every part of the text ended before the limit.
    """

    samples: Float[np.ndarray, " samples"]
    sampling_rate: int
    codes: Integer[np.ndarray, "num_quantizers frames"]
    finished: bool


class SpeechStream:
    """Speech as an iterator over the samples of its frames.

    Attributes:
        finished: whether every part of the text so far ended before the limit.
    """

    def __init__(self, parts: Iterator[tuple[np.ndarray | None, bool]]) -> None:
        self._parts = parts
        self.finished = True

    def __iter__(self) -> Iterator[Float[np.ndarray, " samples"]]:
        return self

    def __next__(self) -> Float[np.ndarray, " samples"]:
        for samples, finished in self._parts:
            self.finished = self.finished and finished
            if samples is not None:
                return samples
        raise StopIteration


@dataclass(frozen=True)
class _Voice:
    """The prompt of a row: codes, if any, and their transcript."""

    codes: np.ndarray | None
    text: str

    def prompt(self) -> Prompt | None:
        return None if self.codes is None else Prompt(self.codes, self.text)

    def whole(self, text: str) -> str:
        """The text behind that of the prompt."""
        return f"{self.text} {text}".strip()


class Synthesizer:
    """Says texts.

    Args:
        model: a CAT-TTS model, of PyTorch or onnxruntime.
        codec: the codec that it was trained on.
        voices: folder of the model, if it may hold built-in voices.

    Raises:
        CheckpointError: a built-in voice has no usable name.
        ModelMismatchError: the model was trained on another codec.
    """

    def __init__(
        self, model: TtsModel, codec: StreamingCodec, voices: str | Path | None = None
    ) -> None:
        self.model, self.codec = model, codec
        self._voices = BuiltInVoices(voices)
        facts = model.facts
        check_codec(facts, codec.info)
        if codec.info.num_quantizers < facts.num_quantizers:
            raise ModelMismatchError(
                f"the model predicts {facts.num_quantizers} codebooks, and the codec has "
                f"{codec.info.num_quantizers}; name the codec that it was trained on"
            )

    @property
    def voices(self) -> tuple[str, ...]:
        """Names of the built-in voices; the first is the default."""
        return self._voices.names

    def speak(self, text: str, **options: Any) -> Speech:
        """Say a text; long ones sentence by sentence, in one voice.

        Args:
            text: what to say.
            options: the other fields of `SpeechRequest`, and those of `SpeechSampling`.

        Raises:
            InputError: the text is empty or has unknown characters, or an option is wrong.
        """
        request, settings = _parted(text, options)
        return self.speak_many([request], settings)[0]

    def speak_many(
        self, requests: Sequence[SpeechRequest], sampling: SpeechSampling | None = None
    ) -> list[Speech]:
        """Say several texts as one batch; row i is seeded with ``sampling.seed + i``."""
        if not requests:
            return []
        settings = self._settings(sampling)
        requests = [self._prompted(request) for request in requests]
        chunks = [self._chunks(request) for request in requests]
        voices = [self._voice(request, settings.num_quantizers) for request in requests]
        texts = [voice.whole(own[0]) for voice, own in zip(voices, chunks, strict=True)]
        spoken = generate(self.model, texts, [voice.prompt() for voice in voices], settings)
        speeches = []
        for row, length in enumerate(spoken.audio_codes_lengths.tolist()):
            codes, finished = [spoken.audio_codes[:, row, :length]], bool(spoken.finished[row])
            own = replace(settings, seed=settings.seed + row)
            for frame, ended in self._later_frames(voices[row], chunks[row], codes[0], own):
                finished = finished and ended
                codes += [] if frame is None else [frame[:, None]]
            speeches.append(self._speech(np.concatenate(codes, 1), voices[row].codes, finished))
        return speeches

    def stream(self, text: str, **options: Any) -> SpeechStream:
        """The samples of every frame as soon as it is generated; codes are those of `speak`.

        Takes what `speak` takes.
        """
        request, sampling = _parted(text, options)
        settings = self._settings(sampling)
        request = self._prompted(request)
        chunks = self._chunks(request)
        voice = self._voice(request, settings.num_quantizers)
        return SpeechStream(self._decoded(voice, chunks, settings))

    def _decoded(
        self, voice: _Voice, chunks: list[str], settings: SpeechSampling
    ) -> Iterator[tuple[np.ndarray | None, bool]]:
        """Samples of each frame, and whether its chunk is within its limit.

        While a frame is decoded, a model of onnxruntime generates the next one.
        """
        session = self.codec.decoder_stream(max_slots=1)
        slot = session.open()
        frames = self._frames(voice, chunks, settings)
        with ThreadPoolExecutor(1) as work:
            if isinstance(self.model, OnnxTts):
                frames = _one_ahead(frames, work)
            if voice.codes is not None:
                _feed(session, slot, voice.codes)
            for frame, finished in frames:
                decoded = None if frame is None else session.step({slot: frame[:, None]})
                yield None if decoded is None else _mono(decoded[slot]), finished

    def _frames(
        self, voice: _Voice, chunks: list[str], settings: SpeechSampling
    ) -> Iterator[tuple[np.ndarray | None, bool]]:
        """Codes of each frame; None at the end of a chunk, with whether it ended by itself."""
        first: list[np.ndarray] = []
        for frame, finished in self._chunk_frames(voice, chunks[0], settings):
            first += [] if frame is None else [frame]
            yield frame, finished
        codes = np.stack(first, -1) if first else np.zeros((settings.num_quantizers, 0), np.int64)
        yield from self._later_frames(voice, chunks, codes, settings)

    def _later_frames(
        self, voice: _Voice, chunks: list[str], first: np.ndarray, settings: SpeechSampling
    ) -> Iterator[tuple[np.ndarray | None, bool]]:
        """Frames of the chunks behind the first, in the voice of the prompt or of the first."""
        if voice.codes is None and first.shape[1]:
            voice = _Voice(first, chunks[0])
        for chunk in chunks[1:]:
            yield from self._chunk_frames(voice, chunk, settings)

    def _chunk_frames(
        self, voice: _Voice, chunk: str, settings: SpeechSampling
    ) -> Iterator[tuple[np.ndarray | None, bool]]:
        ended = False
        for frame in frames(self.model, [voice.whole(chunk)], [voice.prompt()], settings):
            ended = bool(frame.ended[0])
            if not ended:
                yield frame.codes[:, 0], True
        yield None, ended

    def _settings(self, sampling: SpeechSampling | None) -> SpeechSampling:
        settings = sampling or SpeechSampling()
        most = self.model.facts.num_quantizers
        return replace(
            settings, num_quantizers=checked_num_quantizers(settings.num_quantizers, most)
        )

    def _prompted(self, request: SpeechRequest) -> SpeechRequest:
        """The same request, checked, with the prompt of its built-in voice."""
        request.check()
        if request.is_prompted:
            return request
        voice = self._voices.find(request.voice, self.codec.info)
        if voice is None:
            return request
        return replace(request, voice="", prompt_codes=voice.codes, prompt_text=voice.text)

    def _chunks(self, request: SpeechRequest) -> list[str]:
        """The text in chunks that are said one after another."""
        chunks = prepare_text(request.text, self.model.text).chunks
        for chunk in (*chunks, self._transcript(request)):
            self.model.text.encode(chunk)
        return chunks

    def _transcript(self, request: SpeechRequest) -> str:
        if not request.prompt_text.strip():
            return ""
        return prepare_text(request.prompt_text, self.model.text).whole

    def _voice(self, request: SpeechRequest, num_quantizers: int) -> _Voice:
        codes = request.prompt_codes
        if codes is None and request.prompt_audio is None:
            return _Voice(None, "")
        if codes is None:
            codes = encode_recording(self.codec, *_recording(request.prompt_audio), num_quantizers)
        checked = check_codes(np.asarray(codes), self.model.facts, num_quantizers)
        return _Voice(checked, self._transcript(request))

    def _speech(self, codes: np.ndarray, prompt: np.ndarray | None, finished: bool) -> Speech:
        """Decode codes behind those of their prompt, so that the sound continues it."""
        rate = self.codec.info.sampling_rate
        if not codes.shape[1]:
            return Speech(np.zeros(0, np.float32), rate, codes, finished)
        given = codes if prompt is None else np.concatenate((prompt, codes), 1)
        samples = _mono(self.codec.decode(given))
        length = codes.shape[1] * self.codec.info.downsample_rate
        return Speech(samples[-length:], rate, codes, finished)


def _recording(given: Any) -> tuple[np.ndarray, int]:
    """Samples and sampling rate of a prompt.

    Raises:
        InputError: it is not such a pair.
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


def _parted(text: str, options: dict[str, Any]) -> tuple[SpeechRequest, SpeechSampling]:
    """Options of the request, and those of sampling."""
    own = [key for key in options if key == "voice" or key.startswith("prompt_")]
    of_request = {key: options.pop(key) for key in own}
    try:
        return SpeechRequest(text, **of_request), SpeechSampling(**options)
    except TypeError as error:
        raise InputError(
            f"unknown option ({error}); see SpeechRequest and SpeechSampling"
        ) from error


def _mono(audio: np.ndarray) -> np.ndarray:
    return audio.mean(0).astype(np.float32)


def _one_ahead(items: Iterator[_Item], work: Executor) -> Iterator[_Item]:
    """The same items; each is computed while the one before is used."""
    first = work.submit(next, items, None)

    def following(upcoming: "Future[_Item | None]") -> Iterator[_Item]:
        while (item := upcoming.result()) is not None:
            upcoming = work.submit(next, items, None)
            yield item

    return following(first)


def _feed(session: DecoderStream, slot: Any, codes: np.ndarray, chunk: int = 25) -> None:
    """Decode a prompt, whose sound is dropped."""
    for first in range(0, codes.shape[1], chunk):
        session.step({slot: codes[:, first : first + chunk]})
