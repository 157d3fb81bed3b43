"""The codec without PyTorch: exported graphs, NumPy arrays, and onnxruntime.

The verbs are those of `MossAudioTokenizerModel`. Knows nothing of how graphs are made (`export`).
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .tokenizer import OnnxAudioTokenizer

__all__ = ["OnnxAudioTokenizer"]


def __getattr__(name: str) -> object:
    # Late, so that `onnx.folder` can be read where onnxruntime is not installed.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from .tokenizer import OnnxAudioTokenizer

    return OnnxAudioTokenizer
