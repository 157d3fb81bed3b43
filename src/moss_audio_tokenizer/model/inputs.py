"""What callers pass, as tensors: audio, padding masks, codes, devices and precisions.

What arrays must look like is the same as for NumPy (`api.arrays`). Knows nothing of modules.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..api.arrays import ArrayInputs
from ..errors import ConfigError, InputError


class TensorInputs(ArrayInputs):
    """What callers pass, as PyTorch tensors on the device where it is."""

    def as_array(self, values: Any, name: str, error: type[InputError]) -> Tensor:
        """A dense tensor of a tensor, an array of any strides and byte order, or a list."""
        try:
            if isinstance(values, np.ndarray):
                # PyTorch takes no negative strides, foreign byte orders, or read-only arrays.
                values = np.array(values, dtype=values.dtype.newbyteorder("="))
            tensor = torch.as_tensor(values)
        except (TypeError, ValueError, RuntimeError) as problem:
            raise error(
                f"{name} is {type(values).__name__}, which is no array of numbers; "
                "expected a tensor, a NumPy array or rows of equal lengths"
            ) from problem
        plain = tensor.layout == torch.strided and not (tensor.is_quantized or tensor.is_nested)
        if tensor.is_meta or not plain:
            raise error(
                f"{name} is a {tensor.layout} tensor of {tensor.dtype} on {tensor.device}; "
                "expected a plain dense one with values: convert it first"
            )
        return tensor

    def row_lengths(self, rows: Sequence[Tensor]) -> Tensor:
        """Lengths of the last axis of each row."""
        return torch.tensor([row.shape[-1] for row in rows], device=rows[0].device)

    def pad_rows(self, rows: Sequence[Tensor]) -> Tensor:
        """Stack tensors of unequal lengths along a new first axis, zero at the end of the last."""
        longest = max(row.shape[-1] for row in rows)
        missing = [longest - row.shape[-1] for row in rows]
        return torch.stack(
            [F.pad(row, (0, n)) if n else row for row, n in zip(rows, missing, strict=True)]
        )

    def _type_of(self, array: Tensor) -> tuple[str, str]:
        dtype = array.dtype
        other = "b" if dtype == torch.bool else "i"
        kind = "f" if dtype.is_floating_point else "c" if dtype.is_complex else other
        return kind, str(dtype).removeprefix("torch.")

    def _as_float32(self, array: Tensor) -> Tensor:
        return array.float()

    def _as_int64(self, array: Tensor) -> Tensor:
        # PyTorch cannot compare wide unsigned integers; those out of range become negative.
        return array.view(torch.int64) if array.dtype == torch.uint64 else array.long()

    def _extremes(self, array: Tensor) -> tuple[Tensor, Tensor]:
        lowest, highest = torch.aminmax(array.detach())
        return lowest, highest

    def _finite(self, array: Tensor) -> np.ndarray:
        return torch.isfinite(array).cpu().numpy()

    def _as_numpy(self, array: Tensor) -> np.ndarray:
        values = array.detach().cpu()
        # NumPy does not know bfloat16.
        return (values.float() if values.dtype == torch.bfloat16 else values).numpy()


TENSORS = TensorInputs()


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
