"""`load_codec`: a model behind the Codec protocol, on the runtime that is installed."""

from typing import TYPE_CHECKING

from .errors import MissingDependencyError

if TYPE_CHECKING:
    from .hf.torch_codec import TorchCodec
    from .onnx.tokenizer import OnnxCodec


def load_codec(
    model: str = "bundled", device: str = "cpu", backend: str | None = None
) -> "OnnxCodec | TorchCodec":
    """Load a model that turns NumPy arrays of audio into codes and back.

    Args:
        model: "bundled", a model folder, or a hub id.
        device: "cpu", "cuda", "cuda:1", or onnxruntime's "tensorrt".
        backend: "onnx" or "torch"; None takes ONNX for what was exported and runs on a CPU, else
            PyTorch.

    Raises:
        CheckpointError: nothing usable is there.
        ConfigError: the device does not exist here.
        MissingDependencyError: the runtime is not installed.
    """
    from .onnx.folder import choose_backend

    if (backend or choose_backend(model, device)) == "onnx":
        from .onnx.tokenizer import OnnxCodec

        return OnnxCodec.from_pretrained(model, device)
    try:
        from .hf.torch_codec import TorchCodec
    except ImportError as problem:
        raise MissingDependencyError(
            f"running {model!r} on {device} needs PyTorch: pip install "
            "'moss-audio-tokenizer[torch]'; exported models run without it: moss-audio export onnx"
        ) from problem
    return TorchCodec.from_pretrained(model, device=device)
