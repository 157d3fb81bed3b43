"""The codec in the manner of transformers: `MossAudioTokenizerModel` and its companions.

Owns telling transformers' Auto classes about our classes without importing either ahead of time.

transformers loads its Auto classes lazily. If they are there when this package is imported, we
register at once; if not, a finder waits for their modules and registers right after each loads.
Standard library only, so that importing this package stays light.
"""

import sys
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType


def register_lazily() -> None:
    """Register with transformers' Auto classes, now or as soon as they are loaded.

    Config and model register together. transformers may get a class of the same name for models
    of type "moss_audio_tokenizer"; ours are of type "moss-audio-tokenizer", and the two stay apart.
    """
    waiting = {}
    for module, register in _REGISTRATIONS.items():
        if module in sys.modules:
            register()
        else:
            waiting[module] = register
    if waiting and not any(isinstance(finder, _AutoClassFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _AutoClassFinder(waiting))


def _register_models() -> None:
    import transformers

    from .configuration import MossAudioTokenizerConfig
    from .modeling import MossAudioTokenizerModel

    transformers.AutoConfig.register(
        MossAudioTokenizerConfig.model_type, MossAudioTokenizerConfig, exist_ok=True
    )
    for name in ("AutoModel", "AutoModelForAudioTokenization"):
        auto_class = getattr(transformers, name, None)  # older releases lack the second
        if auto_class is not None:
            auto_class.register(MossAudioTokenizerConfig, MossAudioTokenizerModel, exist_ok=True)


def _register_feature_extractor() -> None:
    from transformers import AutoFeatureExtractor

    from .configuration import MossAudioTokenizerConfig
    from .feature_extraction import MossAudioTokenizerFeatureExtractor

    AutoFeatureExtractor.register(
        MossAudioTokenizerConfig, MossAudioTokenizerFeatureExtractor, exist_ok=True
    )


_REGISTRATIONS: dict[str, Callable[[], None]] = {
    "transformers.models.auto.modeling_auto": _register_models,
    "transformers.models.auto.feature_extraction_auto": _register_feature_extractor,
}


class _AutoClassFinder(MetaPathFinder):
    """Finds some modules as usual, and registers with each once it has been executed."""

    def __init__(self, waiting: dict[str, Callable[[], None]]) -> None:
        self._waiting = waiting

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        register = self._waiting.pop(fullname, None)
        if register is None:
            return None
        if not self._waiting:
            sys.meta_path.remove(self)
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_and_register(module: ModuleType) -> None:
                execute(module)
                register()

            spec.loader.exec_module = execute_and_register  # type: ignore[method-assign]
        return spec
