"""CAT, the Causal Audio Tokenizer with Transformer: audio to discrete codes and back.

The public names are loaded on first use, so that importing the package is instant and
never brings in PyTorch; only touching a model does.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from .errors import MissingDependencyError
from .hf import register_lazily

if TYPE_CHECKING:
    from .audio import load_audio, save_audio
    from .codes import AudioCodes
    from .errors import MossAudioError
    from .hf.modeling import MossAudioTokenizerConfig, MossAudioTokenizerModel
    from .onnx.tokenizer import OnnxAudioTokenizer
    from .opening import load_codec

__version__ = "0.5.0"

__all__ = [
    "AudioCodes",
    "MossAudioError",
    "MossAudioTokenizerConfig",
    "MossAudioTokenizerModel",
    "OnnxAudioTokenizer",
    "load_audio",
    "load_codec",
    "save_audio",
]

_HOMES = {
    "AudioCodes": "codes",
    "MossAudioError": "errors",
    "MossAudioTokenizerConfig": "hf.modeling",
    "MossAudioTokenizerModel": "hf.modeling",
    "OnnxAudioTokenizer": "onnx.tokenizer",
    "load_audio": "audio",
    "load_codec": "opening",
    "save_audio": "audio",
}
# Without them the models in PyTorch cannot be imported.
_TORCH_EXTRA = ("torch", "transformers", "huggingface_hub")


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    except ModuleNotFoundError as problem:
        if problem.name not in _TORCH_EXTRA:
            raise
        raise MissingDependencyError(
            f"{name} needs PyTorch: pip install 'moss-audio-tokenizer[torch]'; without it "
            "OnnxAudioTokenizer and load_codec run exported models, such as the bundled one"
        ) from problem
    globals()[name] = value
    return value


register_lazily()


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
