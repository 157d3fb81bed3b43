"""Functions of the user's, named as MODULE:FUNCTION, or MODULE:FUNCTION@VALUE.

Importing what the user names runs the user's own code, as starting Python does; nothing is
unpickled. It does not know what the functions are for.
"""

import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from ..errors import InputError


def is_function_name(spec: str) -> bool:
    """Whether a text names a function and not a path."""
    module, colon, function = spec.partition("@")[0].partition(":")
    return bool(colon) and module.replace(".", "_").isidentifier() and function.isidentifier()


def find_function(spec: str, purpose: str) -> Callable[..., Any]:
    """The function of MODULE:FUNCTION; modules in the current folder are found too.

    Raises:
        InputError: the module or function does not exist.
    """
    if not is_function_name(spec):
        raise InputError(f"{purpose}: got {spec!r}; expected MODULE:FUNCTION, as in scores:load")
    module, _, name = spec.partition("@")[0].partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
    try:
        function = getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise InputError(f"{purpose}: {spec!r} cannot be found ({error})") from error
    if not callable(function):
        raise InputError(f"{purpose}: {spec!r} is {type(function).__name__}; expected a function")
    found: Callable[..., Any] = function
    return found


def call_function(spec: str, purpose: str) -> Any:
    """What the function of MODULE:FUNCTION returns, or MODULE:FUNCTION@VALUE given the value.

    Raises:
        InputError: the function does not exist.
    """
    function = find_function(spec, purpose)
    _, at, value = spec.partition("@")
    return function(value) if at else function()
