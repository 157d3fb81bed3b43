"""Loading the codec that a command works with.

The one place of the command line that knows which runtime stands behind the Codec protocol;
tests put a toy codec here.
"""

from typing import TYPE_CHECKING, Any

from ..errors import CodesError
from .failures import needs_extra

if TYPE_CHECKING:
    from ..asr import Transcriber
    from ..codes.codec import Codec, CodecInfo
    from ..tts import Synthesizer


def load_codec(
    model: str,
    parts: str = "all",
    device: str = "cpu",
    deterministic: bool = False,
    backend: str | None = None,
    num_threads: int | None = None,
) -> "Codec":
    """Load a model folder, a hub id, or "bundled".

    Args:
        model: where it is.
        parts: "encoder", "decoder" or "all".
        device: where to compute.
        deterministic: of PyTorch on a GPU.
        backend: "onnx" or "torch"; None chooses, see `onnx.folder.choose_backend`.
        num_threads: to compute with on a CPU; None leaves it to the backend. PyTorch counts them
            by thread of the program: load on the one that will compute.

    Raises:
        CheckpointError: nothing usable is there.
        ConfigError: the device does not exist here.
        MissingDependencyError: the backend is not installed.
    """
    from ..onnx.folder import choose_backend

    if (backend or choose_backend(model, device)) == "onnx":
        from ..onnx.codec import OnnxCodec

        return OnnxCodec.from_pretrained(model, device, num_threads)
    with needs_extra("torch", _purpose(model, asked_for=backend is not None)):
        from ..model.numpy_codec import TorchCodec
        from ..runtime.hardware import use_threads
    if num_threads is not None:
        use_threads(num_threads)
    return TorchCodec.from_pretrained(
        model, parts=parts, device=device, deterministic=deterministic
    )


def load_speaker(
    folder: str,
    model: str,
    device: str = "cpu",
    backend: str | None = None,
    num_threads: int | None = None,
) -> "Synthesizer":
    """Load CAT-TTS with the half of its codec that speech needs; see `load_codec`.

    Args:
        folder: of CAT-TTS, or its hub id.
        model: of the codec.
        device: where to compute.
        backend: of the codec; CAT-TTS runs in PyTorch.
        num_threads: of each.

    Raises:
        CheckpointError, ConfigError, MissingDependencyError: see `load_codec`.
        ModelMismatchError: it was trained on another codec.
    """
    with needs_extra("torch", "speaking"):
        from ..runtime.hardware import use_threads
    from ..tts import Synthesizer

    if num_threads is not None:
        use_threads(num_threads)
    codec: Any = load_codec(model, "decoder", device, backend=backend, num_threads=num_threads)
    return Synthesizer.from_pretrained(folder, codec, device)


def load_transcriber(
    folder: str,
    model: str,
    device: str = "cpu",
    backend: str | None = None,
    num_threads: int | None = None,
) -> "Transcriber":
    """Load CAT-ASR with the encoder of its codec; the arguments are those of `load_speaker`.

    Raises:
        InputError, MissingDependencyError, CheckpointError: A model cannot be loaded.
        ModelMismatchError: It was trained on another codec.
    """
    with needs_extra("torch", "transcribing"):
        from ..asr import Transcriber
        from ..runtime.hardware import use_threads
    if num_threads is not None:
        use_threads(num_threads)
    codec: Any = load_codec(model, "encoder", device, backend=backend, num_threads=num_threads)
    return Transcriber.from_pretrained(folder, codec, device)


def _purpose(model: str, asked_for: bool) -> str:
    """What PyTorch is for, and how to do without it where nobody asked for it."""
    from ..onnx.folder import is_exported

    if asked_for or is_exported(model):
        return f"running {model!r} in PyTorch"
    return (
        f"{model!r} holds no exported graphs (onnx.json); make them with moss-audio export onnx "
        "(extra: export) and name that folder, for running it in PyTorch"
    )


def check_num_quantizers(count: int | None, info: "CodecInfo") -> None:
    """Refuse more layers than the model has, once and before any work.

    Raises:
        CodesError: see above.
    """
    if count is not None and not 1 <= count <= info.num_quantizers:
        raise CodesError(
            f"--num-quantizers is {count}; expected 1 to {info.num_quantizers} for this model"
        )
