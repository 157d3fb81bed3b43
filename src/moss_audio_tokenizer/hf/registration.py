"""Telling transformers' Auto classes about our model without importing either ahead of time.

`AutoModel` is loaded lazily by transformers. If it is there when this package is imported, we
register at once; if not, a finder waits for its module and registers right after it loads.
Standard library only, so that importing the package stays light.
"""

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

_AUTO_MODULE = "transformers.models.auto.modeling_auto"


def register_lazily() -> None:
    """Register with `AutoConfig` and `AutoModel`, now or as soon as they are loaded."""
    if _AUTO_MODULE in sys.modules:
        _register()
    elif not any(isinstance(finder, _AutoModelFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _AutoModelFinder())


def _register() -> None:
    from transformers import AutoConfig, AutoModel

    from .configuration import MossAudioTokenizerConfig
    from .modeling import MossAudioTokenizerModel

    AutoConfig.register(
        MossAudioTokenizerConfig.model_type, MossAudioTokenizerConfig, exist_ok=True
    )
    AutoModel.register(MossAudioTokenizerConfig, MossAudioTokenizerModel, exist_ok=True)


class _AutoModelFinder(MetaPathFinder):
    """Finds one module as usual, and has us registered once it has been executed."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != _AUTO_MODULE:
            return None
        sys.meta_path.remove(self)
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_and_register(module: ModuleType) -> None:
                execute(module)
                _register()

            spec.loader.exec_module = execute_and_register  # type: ignore[method-assign]
        return spec
