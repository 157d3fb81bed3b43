"""What speech models are: their folders and sizes, and the codec and codes that fit them."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int64, Integer

from ..audio import check_audio, convert_channels, resample
from ..checkpoint.stored_weights import (
    CONFIG_NAME,
    WEIGHTS_NAME,
    find_checkpoint,
    read_header,
    with_scales,
)
from ..codes import Codec, CodecInfo
from ..errors import CheckpointError, CodesError, ModelMismatchError
from .built_in_voices import BuiltInVoices
from .phonemes import LEXICON_NAME, TICKS
from .sampling import CODE_CHOICES

# Folders "tts" and "asr" in it, each with exported graphs, where a release ships them.
BUNDLED_SPEECH = Path(__file__).parent.parent / "bundled_speech"
_KINDS = {"tts": "text to speech", "asr": "speech to text"}
_MODEL_TYPES = ("cat-tts", "cat-asr")
_FACTS = ("num_quantizers", "codebook_size", "code_rank")


def is_installed(kind: str) -> bool:
    """Whether a model of a kind, "tts" or "asr", is installed with the package."""
    return (BUNDLED_SPEECH / kind / "config.json").is_file()


def find_speech_model(kind: str, name: str) -> Path:
    """The folder of a speech model.

    Args:
        kind: "tts" or "asr".
        name: folder, hub id, or "bundled" for the installed one.

    Raises:
        CheckpointError: there is no such model.
        MissingDependencyError: the hub's library is not installed.
    """
    if name != "bundled":
        return find_checkpoint(name, {})
    if not is_installed(kind):
        raise CheckpointError(
            f"no model for {_KINDS[kind]} is installed; train one with moss-audio train "
            f"{kind}_tiny (docs/speech.md) and name its folder with --model"
        )
    return BUNDLED_SPEECH / kind


def find_lexicon(name: str) -> Path:
    """The file of pronunciations that a name stands for: "bundled", or a path."""
    return BUNDLED_SPEECH / "tts" / LEXICON_NAME if name == "bundled" else Path(name)


def is_speech_model(folder: str | Path) -> bool:
    """Whether a folder holds CAT-TTS or CAT-ASR."""
    try:
        values = json.loads((Path(folder) / CONFIG_NAME).read_text(encoding="utf-8"))
        return isinstance(values, dict) and values.get("model_type") in _MODEL_TYPES
    except (OSError, ValueError, RecursionError):
        return False


def is_exported_speech(folder: str | Path) -> bool:
    """Whether a folder holds a speech model with its graphs."""
    if not is_speech_model(folder):
        return False
    config = json.loads((Path(folder) / CONFIG_NAME).read_text(encoding="utf-8"))
    return all((Path(folder) / name).is_file() for name in graphs_of(config))


def graphs_of(config: Mapping[str, Any]) -> tuple[str, ...]:
    """The file names of the graphs of an export, by its config.json."""
    if config["model_type"] == "cat-tts":
        spoken = ("text.onnx",) if config.get("text_encoder_layers") else ()
        return ("temporal.onnx", "depth.onnx", *spoken)
    return ("frames.onnx",) if config.get("encoder_layers") else ("temporal.onnx",)


def describe_speech_model(folder: Path) -> dict[str, Any]:
    """Facts of a folder of CAT-ASR or CAT-TTS as plain values; weights are counted, not read.

    Raises:
        CheckpointError: its weights cannot be read.
    """
    values = json.loads((folder / CONFIG_NAME).read_text(encoding="utf-8"))
    parts: dict[str, int] = {}
    for name, tensor in with_scales(read_header(folder / WEIGHTS_NAME)).items():
        part = name.split(".")[0]
        parts[part] = parts.get(part, 0) + prod(tensor.shape)
    kind = values["model_type"].removeprefix("cat-")
    voices = {"voices": list(BuiltInVoices(folder).names)} if kind == "tts" else {}
    return {
        "model": str(folder),
        "kind": _KINDS[kind],
        "parameters": {"total": sum(parts.values())} | parts,
        "language_model": (values.get("text_config") or {}).get("model_type"),
        **{name: values.get(name) for name in _FACTS},
        "codec_identity": values.get("codec") or None,
        **voices,
    }


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """Sizes of a speech model.

    Attributes:
        num_quantizers: number of codebooks that it can read or predict.
        codebook_size: number of entries of each.
        codec: identity of its codec; empty if unknown.
        max_steps: most steps of its decoder-only model.
        has_language_model: whether a CAT-ASR has a decoder-only model; else an encoder.
        steps_per_frame: number of CTC steps of a frame.
        has_frame_scores: whether a CAT-ASR has a CTC head.
        has_text_encoder: whether a CAT-TTS reads phonemes and decides durations before it speaks.
        guidance: default classifier-free guidance scale of a CAT-TTS.
        temperature: default temperature of the codes of a CAT-TTS.
        code_choice: how a CAT-TTS chooses codes by default (`SpeechSampling`).
    """

    num_quantizers: int
    codebook_size: int
    codec: str = ""
    max_steps: int = 1 << 30
    has_language_model: bool = True
    steps_per_frame: int = 1
    has_frame_scores: bool = False
    has_text_encoder: bool = False
    guidance: float = 1.0
    temperature: float = 1.0
    code_choice: str = "sample"

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> "ModelFacts":
        """The sizes in a config.json."""
        encodes = bool(config.get("encoder_layers"))
        code_choice = config.get("code_choice", "sample")
        if code_choice not in CODE_CHOICES:
            raise ValueError(f"code_choice is {code_choice!r}")
        language: Mapping[str, Any] = {} if encodes else config["text_config"]
        return cls(
            num_quantizers=config["num_quantizers"],
            codebook_size=config["codebook_size"],
            codec=config.get("codec", ""),
            max_steps=int(language.get("max_position_embeddings", 1 << 30)),
            has_language_model=not encodes,
            steps_per_frame=TICKS if encodes else 1,
            has_frame_scores=encodes or bool(config.get("frame_scores")),
            has_text_encoder=bool(config.get("text_encoder_layers")),
            guidance=float(config.get("guidance", 1.0)),
            temperature=float(config.get("code_temperature", 1.0)),
            code_choice=code_choice,
        )


def check_codec(model: ModelFacts, codec: CodecInfo) -> None:
    """Check that a model was trained on the codes of a codec.

    Raises:
        ModelMismatchError: it was trained on another codec.
    """
    remedy = "name the codec that it was trained on"
    if model.codec and model.codec != codec.identity:
        raise ModelMismatchError(
            f"the model knows codes of the codec {model.codec}, and this one is "
            f"{codec.identity}; {remedy}"
        )
    if model.codebook_size != codec.codebook_size:
        raise ModelMismatchError(
            f"the model knows codebooks of {model.codebook_size} entries, and the codec has "
            f"{codec.codebook_size}; {remedy}"
        )


def encode_recording(
    codec: Codec, samples: Float[np.ndarray, "..."], sampling_rate: int, num_quantizers: int | None
) -> Integer[np.ndarray, "num_quantizers frames"]:
    """Codes of one recording, of any rate and channels.

    Raises:
        AudioError: samples that cannot be encoded.
    """
    audio = resample(check_audio(samples), sampling_rate, codec.info.sampling_rate)
    fitting = convert_channels(audio, codec.info.num_channels)
    return codec.encode(fitting, num_quantizers=num_quantizers)


def check_codes(
    clip: Integer[np.ndarray, "layers frames"], model: ModelFacts, num_quantizers: int | None = None
) -> Int64[np.ndarray, "num_quantizers frames"]:
    """The first codebooks of a clip's codes, checked.

    Args:
        clip: its codes.
        model: sizes of the model that reads them.
        num_quantizers: number of codebooks to keep (default: all that clip and model have).

    Raises:
        CodesError: there are no frames, or codebooks or codes that the model does not have.
    """
    codes = np.asarray(clip)
    if codes.ndim != 2 or not codes.size or not np.issubdtype(codes.dtype, np.integer):
        raise CodesError(
            f"got codes of shape {codes.shape} and type {codes.dtype}; expected whole numbers "
            "(num_quantizers, frames), at least one frame"
        )
    most = min(len(codes), model.num_quantizers)
    layers = most if num_quantizers is None else num_quantizers
    if not 1 <= layers <= most:
        raise CodesError(
            f"num_quantizers is {layers}; expected 1 to {most}, the codebooks that both the "
            "codes and the model have"
        )
    if codes.min() < 0 or codes.max() >= model.codebook_size:
        raise CodesError(
            f"codes lie in {codes.min()} .. {codes.max()}; expected 0 .. {model.codebook_size - 1}"
        )
    return codes[:layers].astype(np.int64)
