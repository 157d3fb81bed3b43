"""Arrays that callers pass, checked and brought into shape, for a runtime of NumPy.

What they must look like is `api.validation`'s, as for PyTorch; tensors are taken as the arrays
that they are.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from ..api import validation
from ..config import CodecConfig
from ..errors import AudioError, CodesError, InputError


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
            f"{name} is {type(values).__name__}, from which NumPy gets no array of numbers; "
            "expected a NumPy array, such as tensor.detach().float().cpu().numpy(), or rows of "
            "equal lengths"
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
    rows: np.ndarray = validation.shaped_as_waveforms(audio, num_channels)
    return rows


def _as_float(audio: np.ndarray) -> np.ndarray:
    scale = validation.INTEGER_SCALES.get(audio.dtype.name)
    if scale is None and audio.dtype.kind != "f":
        raise validation.wrong_audio_type(audio.dtype)
    with np.errstate(over="ignore"):  # what float32 cannot hold is refused as infinite
        audio = audio.astype(np.float32, copy=False)
    return audio if scale is None else audio / np.float32(scale)


def as_waveform_chunk(chunk: Any, num_channels: int) -> Float[np.ndarray, "channels samples"]:
    """The next samples of one stream; there may be none.

    Raises:
        AudioError: not audio that the model takes, or a batch of several.
    """
    rows = as_waveform_rows(chunk, num_channels)
    row: np.ndarray = validation.only_row(rows, "a chunk is one stream's", AudioError)
    return row if row.shape[-1] == 0 else check_clip(row)


def check_clip(
    clip: Float[np.ndarray, "channels samples"],
) -> Float[np.ndarray, "channels samples"]:
    """Refuse a clip that is empty, not finite, or of another scale."""
    validation.refuse_empty(clip.shape[-1])
    lowest, highest = float(clip.min()), float(clip.max())
    validation.check_range(lowest, highest, lambda: np.isfinite(clip))
    return clip


def lengths_of(mask: Any, batch: int, steps: int, unit: str) -> list[int]:
    """Valid lengths of padded rows, from a mask that is 1 (or True) on a prefix of each.

    Raises:
        InputError: the mask has another shape, other values, or a gap.
    """
    values = None if mask is None else as_array(mask, "padding_mask", InputError)
    return validation.valid_lengths(values, batch, steps, unit)


def as_code_rows(codes: Any, config: CodecConfig) -> Int[np.ndarray, "num_quantizers batch frames"]:
    """Codes of shape (num_quantizers, batch, frames) or (num_quantizers, frames), checked.

    Raises:
        CodesError: not integers, a wrong shape, too many layers, no frames, or out of range.
    """
    codes = as_array(codes, "audio_codes", CodesError)
    if codes.dtype.kind not in "iu":
        raise validation.wrong_codes_type(codes.dtype)
    codes = validation.shaped_as_codes(codes, config)
    validation.check_codes_range(int(codes.min()), int(codes.max()), config)
    return codes.astype(np.int64)


def as_code_chunk(codes: Any, config: CodecConfig) -> Int[np.ndarray, "num_quantizers frames"]:
    """The next codes of one stream; there may be no frames.

    Raises:
        CodesError: not the codes that `as_code_rows` takes, or a batch of several.
    """
    values = as_array(codes, "audio_codes", CodesError)
    if validation.is_empty_chunk(values, config):
        return values.astype(np.int64)
    rows = as_code_rows(values, config).swapaxes(0, 1)
    row: np.ndarray = validation.only_row(rows, "a chunk is one stream's", CodesError)
    return row


def row_lengths(rows: Sequence[np.ndarray]) -> Int[np.ndarray, "rows"]:
    """Lengths of the last axis of each row."""
    return np.array([row.shape[-1] for row in rows], np.int64)


def pad_rows(rows: Sequence[np.ndarray]) -> np.ndarray:
    """Stack arrays of unequal lengths along a new first axis, zero at the end of the last axis."""
    if len(rows) == 1:
        return rows[0][None]
    longest = max(row.shape[-1] for row in rows)
    stacked = np.zeros((len(rows), *rows[0].shape[:-1], longest), rows[0].dtype)
    for target, row in zip(stacked, rows, strict=True):
        target[..., : row.shape[-1]] = row
    return stacked
