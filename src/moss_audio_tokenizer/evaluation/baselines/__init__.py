"""Opens the codec that `--codec` names.

Owns the names and their values, and the two codecs that mark the ends of a scale: the clip itself,
and the clip without its top. A codec that this package does not know comes in by
"python:MODULE:FUNCTION": a function of the user's, which returns a `Codec` (an ONNX session, a
client of a server) or an `EvaluatedCodec`.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from ...errors import InputError
from ..codecs import CodedClip, EvaluatedCodec, LayeredCodec
from ..loading import call_function
from .subprocess_codecs import open_aac, open_codec2, open_mp3, open_opus, open_speex

BASELINES = {
    "opus:KBPS": "Opus (opus-tools)",
    "codec2:MODE": "Codec2: 3200, 2400, 1600, 1400, 1300, 1200, 700C or 450 (codec2)",
    "speex:KBPS": "Speex wide-band (speex)",
    "mp3:KBPS": "MP3 by LAME (ffmpeg)",
    "aac:KBPS": "AAC-LC (ffmpeg)",
    "encodec:PATH@KBPS": "EnCodec, from a folder or the hub (torch extra)",
    "dac:PATH@LAYERS": "DAC",
    "mimi:PATH@LAYERS": "Mimi",
    "xcodec2:PATH": "X-Codec 2",
    "higgs:PATH@KBPS": "Higgs-Audio-Tokenizer v2",
    "speechtokenizer:FOLDER@LAYERS": "SpeechTokenizer (package speechtokenizer)",
    "stable-codec:FOLDER": "Stable Codec (package stable-codec)",
    "qwen3-tts:PATH": "Qwen3-TTS-Tokenizer (package qwen-tts)",
    "bigcodec:MODULE:FUNCTION": "BigCodec, through a plug-in of yours",
    "xy-tokenizer:MODULE:FUNCTION@LAYERS": "XY-Tokenizer, likewise",
    "mimo:MODULE:FUNCTION@LAYERS": "MiMo-Audio-Tokenizer, likewise",
    "original": "the clip itself: the best there is",
    "lowpass:HZ": "the clip without what lies above: an anchor",
    "python:MODULE:FUNCTION": "a codec of yours",
}
"""What can stand after `--codec`, for people."""

_BITS = 16


def open_baseline(name: str) -> EvaluatedCodec:
    """The codec that a name such as "opus:6" or "dac:folder@9" stands for, ready to run.

    Raises:
        InputError: the codec is unknown, or its value cannot be used.
        MissingDependencyError: its program or package is not installed.
    """
    kind, _, value = name.partition(":")
    if kind not in {known.partition(":")[0] for known in BASELINES}:
        raise InputError(f"--codec {name!r} is unknown; expected one of {', '.join(BASELINES)}")
    if kind in _OPENERS:
        return _OPENERS[kind](name, value)
    from .neural_codecs import open_neural_codec

    path, _, setting = value.rpartition("@") if "@" in value else (value, "", "")
    return open_neural_codec(kind, name, path, setting)


class Original:
    """The clip as metrics measure it, at 16 kHz: every metric's best value, and what PCM costs."""

    num_channels = 1
    quantizer_counts: tuple[int | None, ...] = (None,)
    codebook_size = 0

    def __init__(self, name: str, sampling_rate: int = 16_000, hertz: int = 0) -> None:
        self.name, self.sampling_rate, self._hertz = name, sampling_rate, hertz
        self.identity = f"lowpass {hertz}" if hertz else "original at 16 kHz"

    def code(self, audio: Float[np.ndarray, "channels samples"]) -> Sequence[CodedClip]:
        """The clip, or what lies below the cut-off, at the bitrate of 16-bit samples."""
        kept = low_pass(audio, self.sampling_rate, self._hertz) if self._hertz else audio
        return [CodedClip(None, self.sampling_rate * _BITS / 1000, audio.size * _BITS, kept)]


def low_pass(
    audio: Float[np.ndarray, "channels samples"], sampling_rate: int, hertz: float
) -> Float[np.ndarray, "channels samples"]:
    """Everything above a frequency taken away, without delay; a raised cosine 10% wide."""
    frequencies = np.fft.rfftfreq(2 * audio.shape[1], 1 / sampling_rate)
    # Twice the length, so that the end does not wrap around into the start.
    spectrum = np.fft.rfft(audio, 2 * audio.shape[1])
    fall = np.clip((frequencies / hertz - 1.0) / 0.1 + 0.5, 0.0, 1.0)
    shape = 0.5 + 0.5 * np.cos(np.pi * fall)
    passed: np.ndarray = np.fft.irfft(spectrum * shape)[:, : audio.shape[1]]
    return passed.astype(np.float32)


def _original(name: str, value: str) -> EvaluatedCodec:
    if value:
        raise InputError(f"--codec {name!r}: got {value!r}; 'original' takes no value")
    return Original(name)


def _low_pass(name: str, value: str) -> EvaluatedCodec:
    if not value.isdigit() or not 100 <= int(value) <= 24_000:
        raise InputError(f"--codec {name!r}: expected a cut-off of 100 to 24000 Hz: lowpass:3500")
    return Original(name, 48_000, int(value))


def _python(name: str, value: str) -> EvaluatedCodec:
    made: Any = call_function(value, f"--codec {name!r}")
    if all(hasattr(made, part) for part in ("info", "encode", "decode")):
        return LayeredCodec(made, name)
    if not hasattr(made, "code"):
        raise InputError(
            f"--codec {name!r} gave {type(made).__name__}; expected a Codec (info, encode, "
            "decode) or an EvaluatedCodec (code)"
        )
    return made


_OPENERS: dict[str, Callable[[str, str], EvaluatedCodec]] = {
    "opus": open_opus,
    "speex": open_speex,
    "mp3": open_mp3,
    "aac": open_aac,
    "codec2": open_codec2,
    "original": _original,
    "lowpass": _low_pass,
    "python": _python,
}
