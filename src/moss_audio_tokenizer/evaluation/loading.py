"""What the user names and this package does not have: functions, and models of transformers.

A function is MODULE:FUNCTION, or MODULE:FUNCTION@VALUE; importing it runs the user's own code, as
starting Python does. A model is a folder or a name on the hub; only safetensors are read.
"""

import hashlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError

from ..errors import CheckpointError, InputError, MissingDependencyError, one_line

if TYPE_CHECKING:
    import torch


def import_package(module: str, purpose: str, package: str = "", extra: str = "") -> Any:
    """A module of an optional package.

    Args:
        module: to import.
        purpose: what needs it, for the message.
        package: name of the package where it is not the module's.
        extra: extra that brings it; "" for a package that no extra brings.

    Raises:
        MissingDependencyError: it, or what it imports, is not installed.
    """
    try:
        return import_module(module)
    except ImportError as error:
        package = package or module.partition(".")[0]
        install = f"'moss-audio-tokenizer[{extra}]'" if extra else package
        raise MissingDependencyError(
            f"{purpose} needs {package} ({error}): pip install {install}"
        ) from error


def is_installed(module: str) -> bool:
    """Whether a package can be imported, without importing it."""
    try:
        return find_spec(module) is not None
    except ValueError:  # it is loaded, and stands in for the real one
        return True


def is_function_name(spec: str) -> bool:
    """Whether a text names a function and not a path."""
    module, colon, function = spec.partition("@")[0].partition(":")
    return bool(colon) and module.replace(".", "_").isidentifier() and function.isidentifier()


def call_function(spec: str, purpose: str) -> Any:
    """What the function of MODULE:FUNCTION returns, or MODULE:FUNCTION@VALUE given the value.

    Modules in the current folder are found too.

    Args:
        spec: the function.
        purpose: the option that it was given to, for messages.

    Raises:
        InputError: the module or function does not exist.
    """
    if not is_function_name(spec):
        raise InputError(f"{purpose}: got {spec!r}; expected MODULE:FUNCTION, as in scores:load")
    path, at, value = spec.partition("@")
    module, _, name = path.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
    try:
        function = getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise InputError(f"{purpose}: {spec!r} cannot be found ({error})") from error
    if not callable(function):
        raise InputError(f"{purpose}: {spec!r} is {type(function).__name__}; expected a function")
    return function(value) if at else function()


def load_pretrained(kind: str, path: str) -> Any:
    """A model of transformers by the name of its class, in evaluation mode, in float32.

    Raises:
        CheckpointError: nothing usable is at the path, or its weights are no safetensors file.
        MissingDependencyError: transformers is not installed, or too old for this model.
    """
    loader = transformers_class(kind)
    with _refusals(f"no {kind} with safetensors weights at {path!r}; expected a folder or hub id"):
        return loader.from_pretrained(path, use_safetensors=True).eval().float()


def load_feature_extractor(path: str) -> Any:
    """The preparation of samples that stands beside a model; raises as `load_pretrained`."""
    loader = transformers_class("AutoFeatureExtractor")
    with _refusals(f"no preprocessor_config.json at {path!r}, which says how to prepare samples"):
        return loader.from_pretrained(path)


@contextmanager
def _refusals(message: str) -> Iterator[None]:
    try:
        yield
    except ImportError as error:  # of torchaudio, which some models need
        raise MissingDependencyError(f"{message} ({one_line(error, 300)})") from error
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise CheckpointError(f"{message} ({one_line(error, 300)})") from error


def transformers_class(name: str) -> Any:
    """A class of transformers by name.

    Raises:
        MissingDependencyError: transformers is not installed, or has no such class.
    """
    module = import_package("transformers", name, extra="torch")
    # Workers share one terminal, which has a bar of its own.
    module.utils.logging.disable_progress_bar()
    if not hasattr(module, name):
        raise MissingDependencyError(
            f"{name} needs a later transformers: pip install -U transformers"
        )
    return getattr(module, name)


def fingerprint(model: "torch.nn.Module") -> str:
    """16 hexadecimal digits that tell one model's weights from another's."""
    import torch

    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]
