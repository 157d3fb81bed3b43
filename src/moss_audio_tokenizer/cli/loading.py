"""Loading the codec that a command works with.

The one place of the command line that knows which runtime stands behind the Codec protocol;
tests put a toy codec here.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..errors import CodesError, InputError
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
        from ..hf.torch_codec import TorchCodec
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


def num_quantizers_of(count: int | None, kbps: float | None, info: "CodecInfo") -> int | None:
    """Layers of codes that the user asked for, by number or by bitrate; None for all.

    Raises:
        InputError: both were given.
        CodesError: the model has fewer layers, or the bitrate is impossible.
    """
    (found,) = several_num_quantizers([] if count is None else [count], _listed(kbps), info) or (
        None,
    )
    return found


def several_num_quantizers(
    counts: Sequence[int], kbps: Sequence[float], info: "CodecInfo"
) -> list[int]:
    """Different numbers of layers that the user asked for, ascending; empty for all.

    Raises:
        InputError: numbers and bitrates were given.
        CodesError: the model has fewer layers, or a bitrate is impossible.
    """
    if counts and kbps:
        raise InputError("got --num-quantizers and --kbps; give one of them")
    for count in counts:
        check_num_quantizers(count, info)
    return sorted({*counts, *(_layers_in(rate, info) for rate in kbps)})


def _listed(kbps: float | None) -> list[float]:
    return [] if kbps is None else [kbps]


def _layers_in(kbps: float, info: "CodecInfo") -> int:
    """As many layers as fit into a bitrate."""
    step = info.bitrate(1) / 1000
    if not step <= kbps + 1e-9 <= info.num_quantizers * step + 2e-9:  # NaN neither
        raise CodesError(
            f"--kbps is {kbps:g}; expected {step:g} (1 layer) to {info.num_quantizers * step:g} "
            f"({info.num_quantizers} layers) for this model"
        )
    return int(kbps / step + 1e-6)


def check_num_quantizers(count: int | None, info: "CodecInfo") -> None:
    """Refuse more layers than the model has, once and before any work.

    Raises:
        CodesError: see above.
    """
    if count is not None and not 1 <= count <= info.num_quantizers:
        raise CodesError(
            f"--num-quantizers is {count}; expected 1 to {info.num_quantizers} for this model"
        )
