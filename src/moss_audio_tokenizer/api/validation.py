"""What audio, padding masks and codes must look like, for arrays of PyTorch and NumPy alike.

Owns the refusals that depend on shapes and values. Uses only what both kinds of arrays have:
shapes, indexing and comparisons; turning a caller's value into an array is each runtime's.
"""

from typing import Any

import numpy as np

from ..config import CodecConfig
from ..config.arguments import check_num_quantizers, refuse_batch_first, refuse_samples_first
from ..errors import AudioError, CodesError, InputError

# Peaks above full scale happen; this far above it, the samples have the scale of integers.
HIGHEST_PEAK = 100.0
# What integer samples are divided by, by the name of their type.
INTEGER_SCALES = {"int16": 2.0**15, "int32": 2.0**31}


def shaped_as_waveforms(audio: Any, num_channels: int) -> Any:
    """An array of any accepted shape as (batch, channels, samples).

    (batch, channels, samples) for every model; (samples,) and (batch, samples) for mono;
    (channels, samples) for stereo.

    Raises:
        AudioError: the shape or the channel count does not fit.
    """
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


def only_row(rows: Any, what: str, error: type[InputError]) -> Any:
    """The only row of a batch of one.

    Raises:
        error: there are several; ``what`` is said to be one.
    """
    if len(rows) != 1:
        raise error(f"{what}; got a batch of {len(rows)}")
    return rows[0]


def wrong_audio_type(dtype: object) -> AudioError:
    """The error for samples of a type that audio does not have."""
    return AudioError(f"audio is {dtype}; expected floating point within +-1, int16 or int32")


def check_range(lowest: float, highest: float, finite: Any) -> None:
    """Refuse samples that are not finite, or of another scale.

    Args:
        lowest: smallest sample.
        highest: largest sample; NaN among the samples makes one of the two NaN.
        finite: gives which samples (channels, samples) are finite; called only if need be.

    Raises:
        AudioError: they are one of the two.
    """
    if lowest >= -HIGHEST_PEAK and highest <= HIGHEST_PEAK:
        return
    wrong = ~np.asarray(finite())
    if wrong.any():
        first = int(wrong.any(0).argmax())
        raise AudioError(
            f"audio holds {int(wrong.sum())} NaN or infinite samples, the first at {first}; "
            "replace them before encoding"
        )
    raise AudioError(
        f"audio peaks at {max(-lowest, highest):g}; expected floating point within +-1: divide "
        "samples of 16-bit scale by 32768"
    )


def refuse_empty(samples: int) -> None:
    """Refuse a clip without samples."""
    if samples == 0:
        raise AudioError("audio is empty; expected at least one sample")


def valid_lengths(mask: np.ndarray | None, batch: int, steps: int, unit: str) -> list[int]:
    """Valid lengths of padded rows, from a mask that is 1 (or True) on a prefix of each.

    Raises:
        InputError: the mask has another shape, other values, or a gap.
    """
    if mask is None:
        return [steps] * batch
    rows = mask.astype(bool)
    if not np.array_equal(rows, mask):
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


def shaped_as_codes(codes: Any, config: CodecConfig) -> Any:
    """Integers of an accepted shape as (num_quantizers, batch, frames).

    Raises:
        CodesError: a wrong shape, too many layers, or no frames.
    """
    shape = list(codes.shape)
    codes = codes[:, None] if codes.ndim == 2 else codes
    if codes.ndim != 3 or 0 in codes.shape:
        raise CodesError(
            f"codes have shape {shape}; expected (num_quantizers, batch, frames) or "
            "(num_quantizers, frames), none of them 0"
        )
    refuse_batch_first(shape, config)
    check_num_quantizers(codes.shape[0], config)
    return codes


def wrong_codes_type(dtype: object) -> CodesError:
    """The error for codes that are not integers."""
    return CodesError(f"codes are {dtype}; expected integers")


def check_codes_range(lowest: int, highest: int, config: CodecConfig) -> None:
    """Refuse codes that no codebook entry has.

    Raises:
        CodesError: they are negative or too large.
    """
    size = config.quantizer.codebook_size
    if lowest < 0 or highest >= size:
        raise CodesError(f"codes reach from {lowest} to {highest}; expected 0 to {size - 1}")


def is_empty_chunk(codes: Any, config: CodecConfig) -> bool:
    """Whether codes (num_quantizers, 0) are a chunk without frames.

    Raises:
        CodesError: they are, but of more layers than the model has.
    """
    empty = codes.ndim == 2 and codes.shape[0] > 0 and codes.shape[1] == 0
    if empty:
        check_num_quantizers(codes.shape[0], config)
    return empty


def require_equal_layers(rows: list[Any], num_quantizers: int | None) -> None:
    """Refuse rows of codes with different numbers of layers, unless one number is asked for."""
    counts = sorted({len(row) for row in rows})
    if num_quantizers is None and len(counts) > 1:
        raise CodesError(
            f"rows have {counts} layers; pass num_quantizers={counts[0]}, or rows with the same "
            "number of layers"
        )


def first_layers(rows: list[Any], num_quantizers: int | None, config: CodecConfig) -> list[Any]:
    """The first ``num_quantizers`` layers of each row of codes (default: all).

    Raises:
        CodesError: a row has fewer, or the model has.
    """
    layers = check_num_quantizers(num_quantizers, config)
    fewest = min(len(row) for row in rows)
    if num_quantizers is not None and layers > fewest:
        raise CodesError(f"num_quantizers is {layers}, but the codes have {fewest} layers")
    return [row[:layers] for row in rows]
