"""What callers pass, checked and brought into shape: audio, padding masks, codes, durations.

Owns every refusal of the model's public face; knows nothing of modules.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ..config import CodecConfig
from ..errors import AudioError, CodesError, InputError

_INTEGER_SCALES = {torch.int16: 2.0**15, torch.int32: 2.0**31}


def as_waveform_rows(audio: Tensor | np.ndarray, num_channels: int) -> Tensor:
    """Audio of any accepted shape as float32 (batch, channels, samples).

    (batch, channels, samples) for every model; (samples,) and (batch, samples) for mono;
    (channels, samples) for stereo. int16 and int32 samples are scaled to +-1.

    Raises:
        AudioError: the shape, the channel count or the type does not fit.
    """
    audio = _as_float(torch.as_tensor(audio))
    shape = list(audio.shape)
    if audio.ndim == 1 and num_channels == 1:
        audio = audio[None, None]
    elif audio.ndim == 2:
        audio = audio[:, None] if num_channels == 1 else audio[None]
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


def check_clip(clip: Tensor) -> Tensor:
    """Refuse a clip (channels, samples) that is empty or not finite."""
    if clip.shape[-1] == 0:
        raise AudioError("audio is empty; expected at least one sample")
    finite = torch.isfinite(clip)
    if not finite.all():
        first = int((~finite).any(0).nonzero()[0])
        raise AudioError(
            f"audio holds {int((~finite).sum())} NaN or infinite samples, the first at {first}; "
            "replace them before encoding"
        )
    return clip


def lengths_of(mask: Tensor | np.ndarray | None, batch: int, steps: int, unit: str) -> list[int]:
    """Valid lengths of padded rows, from a mask that is 1 (or True) on a prefix of each.

    Raises:
        InputError: the mask has another shape, or a gap.
    """
    if mask is None:
        return [steps] * batch
    rows = torch.as_tensor(mask).bool()
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
    codes = torch.as_tensor(codes)
    if codes.dtype.is_floating_point or codes.dtype.is_complex or codes.dtype == torch.bool:
        raise CodesError(f"codes are {codes.dtype}; expected integers")
    shape = list(codes.shape)
    codes = codes[:, None] if codes.ndim == 2 else codes
    if codes.ndim != 3 or 0 in codes.shape:
        raise CodesError(
            f"codes have shape {shape}; expected (num_quantizers, batch, frames) or "
            "(num_quantizers, frames), none of them 0"
        )
    check_num_quantizers(codes.shape[0], config)
    lowest, highest = int(codes.min()), int(codes.max())
    size = config.quantizer.codebook_size
    if lowest < 0 or highest >= size:
        raise CodesError(f"codes reach from {lowest} to {highest}; expected 0 to {size - 1}")
    return codes.long()


def check_num_quantizers(count: int | None, config: CodecConfig) -> int:
    """The number of layers to use; None means all.

    Raises:
        CodesError: fewer than 1, or more than the model has.
    """
    available = config.quantizer.num_quantizers
    if count is None:
        return available
    if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= available:
        raise CodesError(f"num_quantizers is {count!r}; expected 1 to {available} for this model")
    return count


def frames_of_duration(seconds: float | None, config: CodecConfig) -> int | None:
    """Whole frames in ``chunk_duration`` seconds; None stays None.

    Raises:
        InputError: the duration is no whole number of frames; names the nearest that are.
    """
    if seconds is None:
        return None
    frames = seconds * config.frame_rate
    nearest = round(frames)
    if nearest >= 1 and abs(frames - nearest) < 1e-6 * max(1.0, frames):
        return nearest
    below, above = max(1, int(frames)), max(1, int(frames)) + 1
    raise InputError(
        f"chunk_duration is {seconds} s; expected a multiple of {1 / config.frame_rate:g} s, such "
        f"as {below / config.frame_rate:g} or {above / config.frame_rate:g}"
    )


def pad_rows(rows: Sequence[Tensor]) -> Tensor:
    """Stack tensors of unequal last axes along a new first axis, zero at the end."""
    longest = max(row.shape[-1] for row in rows)
    return torch.stack([torch.nn.functional.pad(row, (0, longest - row.shape[-1])) for row in rows])
