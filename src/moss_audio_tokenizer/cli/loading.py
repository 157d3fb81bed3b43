"""Loading the codec that a command works with.

The one place of the command line that knows which runtime stands behind the Codec protocol;
tests put a toy codec here.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import CheckpointError, CodesError, InputError
from .failures import needs_extra

if TYPE_CHECKING:
    from ..codes.codec import Codec, CodecInfo
    from ..speech.synthesizer import Synthesizer
    from ..speech.transcriber import Transcriber


def load_codec(
    model: str, parts: str = "all", device: str = "cpu", backend: str | None = None, **more: Any
) -> "Codec":
    """Load a codec; arguments and errors are those of `opening.load_codec`."""
    from ..opening import load_codec

    return load_codec(model, device, backend, parts=parts, **more)


def load_speaker(
    folder: str,
    model: str,
    device: str = "cpu",
    backend: str | None = None,
    num_threads: int | None = None,
) -> "Synthesizer":
    """Load CAT-TTS with the decoder and encoder of its codec.

    Args:
        folder: folder or hub id of CAT-TTS, or "bundled".
        model: folder or hub id of the codec, or "bundled".
        device: where to compute.
        backend: "onnx" or "torch"; None takes ONNX graphs where there are some.
        num_threads: threads of each model.

    Raises:
        CheckpointError, ConfigError, MissingDependencyError: a model cannot be loaded.
        ModelMismatchError: CAT-TTS was trained on another codec.
    """
    from ..speech.model_facts import find_speech_model
    from ..speech.synthesizer import Synthesizer

    found = find_speech_model("tts", folder)
    speech = _load_speech("tts", found, device, backend, num_threads)
    codec: Any = load_codec(model, "all", device, backend=backend, num_threads=num_threads)
    return Synthesizer(speech, codec, found)


def load_transcriber(
    folder: str,
    model: str,
    device: str = "cpu",
    backend: str | None = None,
    num_threads: int | None = None,
) -> "Transcriber":
    """Load CAT-ASR with the encoder of its codec; arguments and errors are as `load_speaker`'s."""
    from ..speech.model_facts import find_speech_model
    from ..speech.transcriber import Transcriber

    found = find_speech_model("asr", folder)
    speech = _load_speech("asr", found, device, backend, num_threads)
    codec: Any = load_codec(model, "encoder", device, backend=backend, num_threads=num_threads)
    return Transcriber(speech, codec)


def _load_speech(
    kind: str, found: Path, device: str, backend: str | None, num_threads: int | None
) -> Any:
    """CAT-TTS or CAT-ASR; by its ONNX graphs where there are some and no backend was asked for."""
    from ..speech.model_facts import is_exported_speech
    from ..speech.onnx_speech import OnnxAsr, OnnxTts

    if backend == "onnx" or (backend is None and device == "cpu" and is_exported_speech(found)):
        from ..onnx.runtime import Runtime

        if kind == "tts":  # its steps have too few rows for more threads
            return OnnxTts(found, Runtime(device, num_threads or 1))
        return OnnxAsr(found, Runtime(device, num_threads))
    with needs_extra("torch", "speaking" if kind == "tts" else "transcribing"):
        from ..asr import CatAsr
        from ..model.inputs import require_device
        from ..runtime.hardware import use_threads
        from ..tts import CatTts
    model = CatTts if kind == "tts" else CatAsr
    speech = model.from_pretrained(found).to(require_device(device))
    if num_threads is not None:
        use_threads(num_threads)
    return speech


def check_speech_model(model: str, recipe: str) -> None:
    """Refuse a speech model that is not there, before PyTorch is imported for it.

    Args:
        model: folder, id of the Hugging Face hub, which has one slash, or "bundled".
        recipe: recipe that trains such a model.

    Raises:
        CheckpointError: there is no such folder, or no model in it.
    """
    from ..speech.model_facts import find_speech_model

    if model == "bundled":
        find_speech_model(recipe.partition("_")[0], model)
        return
    folder = Path(model)
    if folder.is_dir() and (folder / "config.json").is_file():
        return
    is_id = model.count("/") == 1 and not folder.exists() and model[0] not in "./~"
    if not is_id:
        fault = "holds no config.json" if folder.is_dir() else "is not a folder that exists"
        raise CheckpointError(
            f"{model!r} {fault}; no speech model ships with this package: train one with "
            f"moss-audio train {recipe} (docs/speech.md), and name its folder"
        )


def num_quantizers_of(count: int | None, kbps: float | None, info: "CodecInfo") -> int | None:
    """Layers of codes that the user asked for, by number or by bitrate; None for all."""
    counts, rates = [] if count is None else [count], [] if kbps is None else [kbps]
    found = several_num_quantizers(counts, rates, info)
    return found[0] if found else None


def several_num_quantizers(
    counts: Sequence[int], kbps: Sequence[float], info: "CodecInfo"
) -> list[int]:
    """Different numbers of layers that the user asked for, ascending; empty for all."""
    if counts and kbps:
        raise InputError("got --num-quantizers and --kbps; give one of them")
    for count in counts:
        if not 1 <= count <= info.num_quantizers:
            raise CodesError(
                f"--num-quantizers is {count}; expected 1 to {info.num_quantizers} for this model"
            )
    return sorted({*counts, *(_layers_in(rate, info) for rate in kbps)})


def _layers_in(kbps: float, info: "CodecInfo") -> int:
    """As many layers as fit into a bitrate."""
    step = info.bitrate(1) / 1000
    if not step <= kbps + 1e-9 <= info.num_quantizers * step + 2e-9:  # NaN neither
        raise CodesError(
            f"--kbps is {kbps:g}; expected {step:g} (1 layer) to {info.num_quantizers * step:g} "
            f"({info.num_quantizers} layers) for this model"
        )
    return int(kbps / step + 1e-6)
