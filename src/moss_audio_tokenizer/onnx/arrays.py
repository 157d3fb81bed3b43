"""Arrays that callers pass, checked and brought into shape, for a runtime of NumPy.

The same refusals as `model.inputs`, without PyTorch; tensors are taken as the arrays that they
are.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from ..config import CodecConfig
from ..config.arguments import check_num_quantizers, refuse_batch_first, refuse_samples_first
from ..errors import AudioError, CodesError, InputError

# Peaks above full scale happen; this far above it, the samples have the scale of integers.
_HIGHEST_PEAK = 100.0
_INTEGER_SCALES = {"int16": 2.0**15, "int32": 2.0**31}


def as_array(values: Any, name: str, error: type[InputError]) -> np.ndarray:
    """An array of numbers or truth values.

    Raises:
        error: it is none.
    """
    try:
        array = np.asarray(values)
    except (TypeError, ValueError, RuntimeError):
        array = np.empty(0, object)
    if array.dtype.kind not in "fiubc":
        raise error(
            f"{name} is {type(values).__name__}, which is no array of numbers; "
            "expected a NumPy array or rows of equal lengths"
        )
    return array


def as_waveform_rows(audio: Any, num_channels: int) -> Float[np.ndarray, "batch channels samples"]:
    """Audio of any accepted shape as float32 (batch, channels, samples).

    (batch, channels, samples) for every model; (samples,) and (batch, samples) for mono;
    (channels, samples) for stereo. int16 and int32 samples are scaled to +-1.

    Raises:
        AudioError: the shape, the channel count or the type does not fit.
    """
    audio = _as_float(as_array(audio, "audio", AudioError))
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


def _as_float(audio: np.ndarray) -> np.ndarray:
    scale = _INTEGER_SCALES.get(audio.dtype.name)
    if scale is None and audio.dtype.kind != "f":
        raise AudioError(
            f"audio is {audio.dtype}; expected floating point within +-1, int16 or int32"
        )
    with np.errstate(over="ignore"):  # what float32 cannot hold is refused as infinite
        audio = audio.astype(np.float32, copy=False)
    return audio if scale is None else audio / np.float32(scale)


def as_waveform_chunk(chunk: Any, num_channels: int) -> Float[np.ndarray, "channels samples"]:
    """The next samples of one stream; there may be none.

    Raises:
        AudioError: see `as_waveform_rows` and `check_clip`; or a batch of several.
    """
    rows = as_waveform_rows(chunk, num_channels)
    if len(rows) != 1:
        raise AudioError(f"a chunk is one stream's; got a batch of {len(rows)}")
    return rows[0] if rows.shape[-1] == 0 else check_clip(rows[0])


def check_clip(
    clip: Float[np.ndarray, "channels samples"],
) -> Float[np.ndarray, "channels samples"]:
    """Refuse a clip that is empty, not finite, or of another scale."""
    if clip.shape[-1] == 0:
        raise AudioError("audio is empty; expected at least one sample")
    finite = np.isfinite(clip)
    if not finite.all():
        first = int((~finite).any(0).argmax())
        raise AudioError(
            f"audio holds {int((~finite).sum())} NaN or infinite samples, the first at {first}; "
            "replace them before encoding"
        )
    peak = float(np.abs(clip).max())
    if peak > _HIGHEST_PEAK:
        raise AudioError(
            f"audio peaks at {peak:g}; expected floating point within +-1: divide samples of "
            "16-bit scale by 32768"
        )
    return clip


def lengths_of(mask: Any, batch: int, steps: int, unit: str) -> list[int]:
    """Valid lengths of padded rows, from a mask that is 1 (or True) on a prefix of each.

    Raises:
        InputError: the mask has another shape, other values, or a gap.
    """
    if mask is None:
        return [steps] * batch
    values = as_array(mask, "padding_mask", InputError)
    rows: Bool[np.ndarray, "*shape"] = values.astype(bool)
    if not np.array_equal(rows, values):
        raise InputError("padding_mask holds other values than 0 and 1")
    rows = rows[None] if rows.ndim == 1 else rows
    if list(rows.shape) != [batch, steps]:
        raise InputError(
            f"padding_mask has shape {list(rows.shape)}; expected ({batch}, {steps}), "
            f"1 for valid {unit} and 0 for padding"
        )
    lengths = rows.sum(1)
    if not np.array_equal(rows, np.arange(steps) < lengths[:, None]):
        raise InputError("padding_mask has gaps; expected padding only at the end of each row")
    return [int(length) for length in lengths]


def as_code_rows(codes: Any, config: CodecConfig) -> Int[np.ndarray, "num_quantizers batch frames"]:
    """Codes of shape (num_quantizers, batch, frames) or (num_quantizers, frames), checked.

    Raises:
        CodesError: not integers, a wrong shape, too many layers, no frames, or out of range.
    """
    codes = as_array(codes, "audio_codes", CodesError)
    if codes.dtype.kind not in "iu":
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
    lowest, highest = int(codes.min()), int(codes.max())
    size = config.quantizer.codebook_size
    if lowest < 0 or highest >= size:
        raise CodesError(f"codes reach from {lowest} to {highest}; expected 0 to {size - 1}")
    return codes.astype(np.int64)


def as_code_chunk(codes: Any, config: CodecConfig) -> Int[np.ndarray, "num_quantizers frames"]:
    """The next codes of one stream; there may be no frames.

    Raises:
        CodesError: see `as_code_rows`; or a batch of several.
    """
    values = as_array(codes, "audio_codes", CodesError)
    if values.ndim == 2 and values.shape[0] > 0 and values.shape[1] == 0:
        check_num_quantizers(values.shape[0], config)
        return values.astype(np.int64)
    rows = as_code_rows(values, config)
    if rows.shape[1] != 1:
        raise CodesError(f"a chunk is one stream's; got a batch of {rows.shape[1]}")
    return rows[:, 0]


def pad_rows(rows: Sequence[np.ndarray]) -> np.ndarray:
    """Stack arrays of unequal lengths along a new first axis, zero at the end of the last axis."""
    if len(rows) == 1:
        return rows[0][None]
    longest = max(row.shape[-1] for row in rows)
    stacked = np.zeros((len(rows), *rows[0].shape[:-1], longest), rows[0].dtype)
    for target, row in zip(stacked, rows, strict=True):
        target[..., : row.shape[-1]] = row
    return stacked
