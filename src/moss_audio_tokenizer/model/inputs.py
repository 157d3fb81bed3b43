"""Arrays that callers pass, checked and brought into shape: audio, padding masks, codes.

Owns the refusals of the model's public face that depend on tensors (the others are those of
`config.arguments`); knows nothing of modules.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..config import CodecConfig
from ..config.arguments import check_num_quantizers, refuse_batch_first, refuse_samples_first
from ..errors import AudioError, CodesError, InputError

# Peaks above full scale happen; this far above it, the samples have the scale of integers.
_HIGHEST_PEAK = 100.0
_INTEGER_SCALES = {torch.int16: 2.0**15, torch.int32: 2.0**31}


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
    shape = list(audio.shape)
    refuse_samples_first(shape, num_channels)
    if audio.ndim == 1 and num_channels == 1:
        audio = audio[None, None]
    elif audio.ndim == 2:
        audio = audio[:, None] if num_channels == 1 else audio[None]
    if audio.ndim == 3 and len(audio) == 0:
        raise AudioError(f"audio has shape {shape}, a batch of no clips; expected at least one")
    if audio.ndim != 3 or audio.shape[1] != num_channels:
        raise AudioError(
            f"audio has shape {shape}; expected (batch, {num_channels}, samples) for this model of "
            f"{num_channels} channel(s); mix or repeat channels first (load_audio does it)"
        )
    return audio


def _as_float(audio: Tensor) -> Tensor:
    if audio.dtype in _INTEGER_SCALES:
        return audio.float() / _INTEGER_SCALES[audio.dtype]
    if not audio.dtype.is_floating_point:
        raise AudioError(
            f"audio is {audio.dtype}; expected floating point within +-1, int16 or int32"
        )
    return audio.float()


def as_waveform_chunk(chunk: Tensor | np.ndarray, num_channels: int) -> Tensor:
    """The next samples (channels, samples) of one stream; there may be none.

    Raises:
        AudioError: see `as_waveform_rows` and `check_clip`; or a batch of several.
    """
    rows = as_waveform_rows(chunk, num_channels)
    if len(rows) != 1:
        raise AudioError(f"a chunk is one stream's; got a batch of {len(rows)}")
    return rows[0] if rows.shape[-1] == 0 else check_clip(rows[0])


def check_clip(clip: Tensor) -> Tensor:
    """Refuse a clip (channels, samples) that is empty, not finite, or of another scale."""
    if clip.shape[-1] == 0:
        raise AudioError("audio is empty; expected at least one sample")
    # One look at all samples, which NaN does not slip through: steps of many streams wait for it.
    lowest, highest = (float(value) for value in torch.aminmax(clip.detach()))
    if lowest >= -_HIGHEST_PEAK and highest <= _HIGHEST_PEAK:
        return clip
    finite = torch.isfinite(clip)
    if not finite.all():
        first = int((~finite).any(0).nonzero()[0])
        raise AudioError(
            f"audio holds {int((~finite).sum())} NaN or infinite samples, the first at {first}; "
            "replace them before encoding"
        )
    raise AudioError(
        f"audio peaks at {max(-lowest, highest):g}; expected floating point within +-1: divide "
        "samples of 16-bit scale by 32768"
    )


def lengths_of(mask: Tensor | np.ndarray | None, batch: int, steps: int, unit: str) -> list[int]:
    """Valid lengths of padded rows, from a mask that is 1 (or True) on a prefix of each.

    Raises:
        InputError: the mask has another shape, or a gap.
    """
    if mask is None:
        return [steps] * batch
    values = _as_tensor(mask, "padding_mask", InputError)
    rows = values.bool()
    if not torch.equal(rows.to(values.dtype), values):
        raise InputError("padding_mask holds other values than 0 and 1")
    rows = rows[None] if rows.ndim == 1 else rows
    if list(rows.shape) != [batch, steps]:
        raise InputError(
            f"padding_mask has shape {list(rows.shape)}; expected ({batch}, {steps}), "
            f"1 for valid {unit} and 0 for padding"
        )
    lengths = rows.sum(1)
    if not torch.equal(rows, torch.arange(steps, device=rows.device) < lengths[:, None]):
        raise InputError("padding_mask has gaps; expected padding only at the end of each row")
    return [int(length) for length in lengths]


def as_code_rows(codes: Tensor | np.ndarray, config: CodecConfig) -> Tensor:
    """Codes of shape (num_quantizers, batch, frames) or (num_quantizers, frames), checked.

    Raises:
        CodesError: not integers, a wrong shape, too many layers, no frames, or out of range.
    """
    return _checked_codes(_as_tensor(codes, "audio_codes", CodesError), config)


def _checked_codes(codes: Tensor, config: CodecConfig) -> Tensor:
    """See `as_code_rows`."""
    if codes.dtype.is_floating_point or codes.dtype.is_complex or codes.dtype == torch.bool:
        raise CodesError(f"codes are {codes.dtype}; expected integers")
    shape = list(codes.shape)
    codes = codes[:, None] if codes.ndim == 2 else codes
    if codes.ndim != 3 or 0 in codes.shape:
        raise CodesError(
            f"codes have shape {shape}; expected (num_quantizers, batch, frames) or "
            "(num_quantizers, frames), none of them 0"
        )
    refuse_batch_first(shape, config)
    check_num_quantizers(codes.shape[0], config)
    if codes.dtype == torch.uint64:  # wraps to negative numbers only where it is out of range
        codes = codes.view(torch.int64)
    codes = codes.long()  # first: PyTorch cannot compare wide unsigned integers
    lowest, highest = (int(value) for value in torch.aminmax(codes))
    size = config.quantizer.codebook_size
    if lowest < 0 or highest >= size:
        raise CodesError(f"codes reach from {lowest} to {highest}; expected 0 to {size - 1}")
    return codes


def as_code_chunk(codes: Tensor | np.ndarray, config: CodecConfig) -> Tensor:
    """The next codes (layers, frames) of one stream; there may be no frames.

    Raises:
        CodesError: see `as_code_rows`; or a batch of several.
    """
    values = _as_tensor(codes, "audio_codes", CodesError)
    if values.ndim == 2 and values.shape[0] > 0 and values.shape[1] == 0:
        check_num_quantizers(values.shape[0], config)
        return values.long()
    rows = _checked_codes(values, config)
    if rows.shape[1] != 1:
        raise CodesError(f"a chunk is one stream's; got a batch of {rows.shape[1]}")
    return rows[:, 0]


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
