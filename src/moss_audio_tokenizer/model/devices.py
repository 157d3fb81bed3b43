"""Devices and precisions that a user names, and autocast kept out."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from ..errors import ConfigError

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def require_device(name: object) -> torch.device:
    """The device called ``name``, if tensors can be made on it here.

    Raises:
        ConfigError: there is no such device, or it holds no values.
    """
    try:
        device = torch.device(name)  # type: ignore[call-overload]
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, TypeError, ValueError, NotImplementedError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:80]
        raise ConfigError(f"device {name!r} cannot be used here ({reason}); try 'cpu'") from error
    if device.type == "meta":
        raise ConfigError("device 'meta' holds no values; expected one such as 'cpu' or 'cuda'")
    return device


def require_dtype(name: object) -> torch.dtype:
    """The precision called ``name``.

    Raises:
        ConfigError: there is none of that name.
    """
    if not isinstance(name, str) or name not in DTYPES:
        raise ConfigError(f"dtype is {name!r}; expected one of {', '.join(DTYPES)}")
    return DTYPES[name]


def without_autocast(tensor: Tensor) -> AbstractContextManager[object]:
    """What is computed within keeps the precision of its tensors, on the device of ``tensor``."""
    # The meta device, on which shapes are tried out, knows no autocast.
    return nullcontext() if tensor.is_meta else torch.autocast(tensor.device.type, enabled=False)
