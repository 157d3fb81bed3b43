"""`load_codec`: a model behind the Codec protocol, on the runtime that is installed."""

from typing import TYPE_CHECKING

from .errors import ConfigError, MissingDependencyError

if TYPE_CHECKING:
    from .hf.torch_codec import TorchCodec
    from .onnx.tokenizer import OnnxCodec


def load_codec(
    model: str = "bundled",
    device: str = "cpu",
    backend: str | None = None,
    *,
    parts: str = "all",
    num_threads: int | None = None,
    compute_dtype: str = "fp32",
    attention: str | None = None,
    deterministic: bool = False,
) -> "OnnxCodec | TorchCodec":
    """Load a model that turns NumPy arrays of audio into codes and back.

    Args:
        model: "bundled", a model folder, or a hub id.
        device: "cpu", "cuda", "cuda:1", or onnxruntime's "tensorrt".
        backend: "onnx" or "torch"; None takes ONNX for what was exported and runs on a CPU, else
            PyTorch.
        parts: "encoder", "decoder" or "all" for PyTorch to load; the quantizer comes with each.
        num_threads: threads to compute with on a CPU; None leaves it to the backend. PyTorch counts
            them by thread of the program: load on the one that will compute.
        compute_dtype: "fp32", "bf16" or "fp16"; ONNX graphs compute in what they were exported in.
        attention: "sdpa", "flash_attention_2" or "flex_attention" of PyTorch; None for what the
            model's config.json says.
        deterministic: whether PyTorch computes every clip by itself on a GPU too.

    Raises:
        CheckpointError: nothing usable is there.
        ConfigError: the device does not exist here, or the backend has no such dtype or attention.
        MissingDependencyError: the runtime is not installed.
    """
    from .onnx.folder import choose_backend

    chosen = backend or ("torch" if attention else choose_backend(model, device, compute_dtype))
    if chosen == "onnx":
        if attention or compute_dtype != "fp32":
            raise ConfigError(
                "ONNX graphs have no attention and no compute dtype to choose; leave them out, or "
                "take the backend torch"
            )
        from .onnx.tokenizer import OnnxCodec

        return OnnxCodec.from_pretrained(model, device, num_threads)
    try:
        from .hf.torch_codec import TorchCodec
        from .runtime.hardware import use_threads
    except ModuleNotFoundError as problem:
        raise MissingDependencyError(_needs(model, backend, problem.name or "torch")) from problem
    if num_threads is not None:
        use_threads(num_threads)
    return TorchCodec.from_pretrained(
        model, parts, device, compute_dtype, deterministic, attention=attention
    )


def _needs(model: str, backend: str | None, missing: str) -> str:
    """What PyTorch is needed for, and how to do without it where it was not asked for."""
    from .onnx.folder import is_exported

    purpose = f"running {model!r} in PyTorch"
    if backend is None and not is_exported(model):
        purpose = (
            f"{model!r} holds no exported graphs (onnx.json); make them with moss-audio export "
            "onnx (extra: export) and name that folder, for running it in PyTorch"
        )
    return (
        f"{purpose} needs {missing}, which is not installed; "
        "pip install 'moss-audio-tokenizer[torch]'"
    )
