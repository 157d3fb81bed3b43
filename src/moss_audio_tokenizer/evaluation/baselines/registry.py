"""Opens the codec that `--codec` names.

Owns the names and their values. A codec that this package does not know comes in by
"python:MODULE:FUNCTION": a function of the user's, which returns a `Codec` (an ONNX session, a
client of a server) or an `EvaluatedCodec`.
"""

from collections.abc import Callable
from typing import Any

from ...errors import InputError
from ..codecs import EvaluatedCodec, LayeredCodec
from ..plugins import call_function
from .reference_codecs import LowPass, Original
from .subprocess_codecs import AacCodec, Codec2, Mp3Codec, OpusCodec, SpeexCodec


def _kbps(text: str, name: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.0 < value < 10_000.0:
        raise InputError(
            f"--codec {name!r}: got {text!r}; expected kilobits a second, as in opus:6"
        )
    return value


def _by_kbps(kind: Callable[[str, float], EvaluatedCodec]) -> Callable[[str, str], EvaluatedCodec]:
    return lambda name, value: kind(name, _kbps(value, name))


def _low_pass(name: str, value: str) -> EvaluatedCodec:
    if not value.isdigit() or not 100 <= int(value) <= 24_000:
        raise InputError(f"--codec {name!r}: expected a cut-off of 100 to 24000 Hz: lowpass:3500")
    return LowPass(name, int(value))


def _python(name: str, value: str) -> EvaluatedCodec:
    made: Any = call_function(value, f"--codec {name!r}")
    if all(hasattr(made, part) for part in ("info", "encode", "decode")):
        return LayeredCodec(made, name)
    if not hasattr(made, "code"):
        raise InputError(
            f"--codec {name!r} gave {type(made).__name__}; expected a Codec (info, encode, "
            "decode) or an EvaluatedCodec (code)"
        )
    codec: EvaluatedCodec = made
    return codec


def _neural(kind: str) -> Callable[[str, str], EvaluatedCodec]:
    def opened(name: str, value: str) -> EvaluatedCodec:
        from .neural_codecs import open_neural_codec

        path, _, setting = value.rpartition("@") if "@" in value else (value, "", "")
        return open_neural_codec(kind, name, path, setting)

    return opened


def _of_package(kind: str) -> Callable[[str, str], EvaluatedCodec]:
    def opened(name: str, value: str) -> EvaluatedCodec:
        from .package_codecs import open_package_codec

        path, _, setting = value.rpartition("@") if "@" in value else (value, "", "")
        return open_package_codec(kind, name, path, setting)

    return opened


_PACKAGES = ("speechtokenizer", "bigcodec", "xy-tokenizer", "stable-codec", "mimo", "qwen3-tts")

_OPENERS: dict[str, Callable[[str, str], EvaluatedCodec]] = {
    "opus": _by_kbps(OpusCodec),
    "speex": _by_kbps(SpeexCodec),
    "mp3": _by_kbps(Mp3Codec),
    "aac": _by_kbps(AacCodec),
    "codec2": Codec2,
    "original": Original,
    "lowpass": _low_pass,
    "encodec": _neural("encodec"),
    "dac": _neural("dac"),
    "mimi": _neural("mimi"),
    "xcodec2": _neural("xcodec2"),
    "higgs": _neural("higgs"),
    **{kind: _of_package(kind) for kind in _PACKAGES},
    "python": _python,
}

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


def open_baseline(name: str) -> EvaluatedCodec:
    """The codec that a name such as "opus:6" or "dac:folder@9" stands for, ready to run.

    Raises:
        InputError: the codec is unknown, or its value cannot be used.
        MissingDependencyError: its program or package is not installed.
    """
    kind, _, value = name.partition(":")
    if kind not in _OPENERS:
        raise InputError(f"--codec {name!r} is unknown; expected one of {', '.join(BASELINES)}")
    return _OPENERS[kind](name, value)
