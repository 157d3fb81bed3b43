"""CAT, the Causal Audio Tokenizer with Transformer: audio to discrete codes and back.

The public names are loaded on first use, so that importing the package is instant and
never brings in PyTorch; only touching a model does.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from .hf.registration import register_lazily

if TYPE_CHECKING:
    from .audio import load_audio, save_audio
    from .codes import AudioCodes
    from .errors import MossAudioError
    from .hf.modeling import MossAudioTokenizerConfig, MossAudioTokenizerModel

__version__ = "0.1.0"

__all__ = [
    "AudioCodes",
    "MossAudioError",
    "MossAudioTokenizerConfig",
    "MossAudioTokenizerModel",
    "load_audio",
    "save_audio",
]

_HOMES = {
    "AudioCodes": "codes",
    "MossAudioError": "errors",
    "MossAudioTokenizerConfig": "hf.modeling",
    "MossAudioTokenizerModel": "hf.modeling",
    "load_audio": "audio",
    "save_audio": "audio",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


register_lazily()


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
