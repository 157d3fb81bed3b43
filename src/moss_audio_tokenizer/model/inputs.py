"""Arrays that callers pass, checked and brought into shape: audio, padding masks, codes.

Turns what callers pass into tensors; what those must look like is `api.validation`'s. Knows
nothing of modules.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..api import validation
from ..config import CodecConfig
from ..errors import AudioError, CodesError, ConfigError, InputError


def _as_tensor(values: Any, name: str, error: type[InputError]) -> Tensor:
    """A dense tensor of what may be a tensor, an array of any strides and byte order, or a list."""
    try:
        if isinstance(values, np.ndarray):
            # PyTorch takes neither negative strides nor foreign byte orders nor read-only arrays.
            values = np.array(values, dtype=values.dtype.newbyteorder("="))
        tensor = torch.as_tensor(values)
    except (TypeError, ValueError, RuntimeError) as problem:
        raise error(
            f"{name} is {type(values).__name__}, which is no array of numbers; "
            "expected a tensor, a NumPy array or rows of equal lengths"
        ) from problem
    if tensor.layout != torch.strided or tensor.is_meta or tensor.is_quantized or tensor.is_nested:
        raise error(
            f"{name} is a {tensor.layout} tensor of {tensor.dtype} on {tensor.device}; "
            "expected a plain dense one with values: convert it first"
        )
    return tensor


def as_waveform_rows(audio: Tensor | np.ndarray, num_channels: int) -> Tensor:
    """Audio of any accepted shape as float32 (batch, channels, samples).

    (batch, channels, samples) for every model; (samples,) and (batch, samples) for mono;
    (channels, samples) for stereo. int16 and int32 samples are scaled to +-1.

    Raises:
        AudioError: the shape, the channel count or the type does not fit.
    """
    audio = _as_float(_as_tensor(audio, "audio", AudioError))
    rows: Tensor = validation.shaped_as_waveforms(audio, num_channels)
    return rows


def _as_float(audio: Tensor) -> Tensor:
    scale = validation.INTEGER_SCALES.get(str(audio.dtype).removeprefix("torch."))
    if scale is not None:
        return audio.float() / scale
    if not audio.dtype.is_floating_point:
        raise validation.wrong_audio_type(audio.dtype)
    return audio.float()


def as_waveform_chunk(chunk: Tensor | np.ndarray, num_channels: int) -> Tensor:
    """The next samples (channels, samples) of one stream; there may be none.

    Raises:
        AudioError: not audio that the model takes, or a batch of several.
    """
    rows = as_waveform_rows(chunk, num_channels)
    row: Tensor = validation.only_row(rows, "a chunk is one stream's", AudioError)
    return row if row.shape[-1] == 0 else check_clip(row)


def check_clip(clip: Tensor) -> Tensor:
    """Refuse a clip (channels, samples) that is empty, not finite, or of another scale."""
    validation.refuse_empty(clip.shape[-1])
    # One look at all samples, which NaN does not slip through: steps of many streams wait for it.
    lowest, highest = (float(value) for value in torch.aminmax(clip.detach()))
    validation.check_range(lowest, highest, lambda: torch.isfinite(clip).cpu().numpy())
    return clip


def lengths_of(mask: Tensor | np.ndarray | None, batch: int, steps: int, unit: str) -> list[int]:
    """Valid lengths of padded rows, from a mask that is 1 (or True) on a prefix of each.

    Raises:
        InputError: the mask has another shape, other values, or a gap.
    """
    if mask is None:
        return [steps] * batch
    values = _as_tensor(mask, "padding_mask", InputError).detach().cpu()
    if values.dtype == torch.bfloat16:  # which NumPy does not know
        values = values.float()
    return validation.valid_lengths(values.numpy(), batch, steps, unit)


def as_code_rows(codes: Tensor | np.ndarray, config: CodecConfig) -> Tensor:
    """Codes of shape (num_quantizers, batch, frames) or (num_quantizers, frames), checked.

    Raises:
        CodesError: not integers, a wrong shape, too many layers, no frames, or out of range.
    """
    return _checked_codes(_as_tensor(codes, "audio_codes", CodesError), config)


def _checked_codes(codes: Tensor, config: CodecConfig) -> Tensor:
    """The checks of `as_code_rows`."""
    if codes.dtype.is_floating_point or codes.dtype.is_complex or codes.dtype == torch.bool:
        raise validation.wrong_codes_type(codes.dtype)
    codes = validation.shaped_as_codes(codes, config)
    if codes.dtype == torch.uint64:  # wraps to negative numbers only where it is out of range
        codes = codes.view(torch.int64)
    codes = codes.long()  # first: PyTorch cannot compare wide unsigned integers
    lowest, highest = (int(value) for value in torch.aminmax(codes))
    validation.check_codes_range(lowest, highest, config)
    return codes


def as_code_chunk(codes: Tensor | np.ndarray, config: CodecConfig) -> Tensor:
    """The next codes (num_quantizers, frames) of one stream; there may be no frames.

    Raises:
        CodesError: not the codes that `as_code_rows` takes, or a batch of several.
    """
    values = _as_tensor(codes, "audio_codes", CodesError)
    if validation.is_empty_chunk(values, config):
        return values.long()
    rows = _checked_codes(values, config).movedim(1, 0)
    row: Tensor = validation.only_row(rows, "a chunk is one stream's", CodesError)
    return row


def row_lengths(rows: Sequence[Tensor]) -> Tensor:
    """Lengths of the last axis of each row."""
    return torch.tensor([row.shape[-1] for row in rows], device=rows[0].device)


def pad_rows(rows: Sequence[Tensor], axis: int = -1) -> Tensor:
    """Stack tensors of unequal lengths along a new first axis, zero at the end of ``axis``."""
    longest = max(row.shape[axis] for row in rows)
    return torch.stack([_padded(row, longest, axis) for row in rows])


def _padded(row: Tensor, length: int, axis: int) -> Tensor:
    missing = length - row.shape[axis]
    if missing == 0:
        return row
    shape = list(row.shape)
    shape[axis] = missing
    return torch.cat((row, row.new_zeros(shape)), dim=axis)


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
