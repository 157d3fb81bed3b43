"""What callers pass to a codec: counts, durations, lists, and the shapes and values of arrays.

Owns every check that PyTorch and NumPy share, and what its error says. Of arrays it uses only what
both kinds have: shapes, indexing and comparisons; how a value becomes an array is the runtime's.
"""

import math
import operator
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from ..config import CodecConfig
from ..errors import AudioError, CodesError, ConfigError, InputError

LENGTHS = ("ceil", "floor")
# More rows than this, of so few samples, are not a batch of clips.
_MOST_SHORT_ROWS = 64
_MOST_CHANNELS = 8
# So many frames of streams fit into memory: an error about fewer has another cause.
_MANY_FRAMES = 1000
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
    return AudioError(
        f"audio is {dtype}; expected floating point within +-1, int16 or int32: "
        "moss_audio_tokenizer.audio.as_float_audio converts other PCM"
    )


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


def check_rate(sampling_rate: int | None, config: CodecConfig) -> None:
    """Refuse audio that its caller says to have another rate than the model; None says nothing.

    Raises:
        AudioError: the rates differ.
    """
    if sampling_rate is not None and sampling_rate != config.sampling_rate:
        raise AudioError(
            f"the audio has {sampling_rate} samples a second, but the model takes "
            f"{config.sampling_rate}: resample it first (load_audio does it)"
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


def check_num_quantizers(count: int | None, config: CodecConfig) -> int:
    """The number of layers to use; None means all.

    Raises:
        CodesError: fewer than 1, or more than the model has.
    """
    available = config.quantizer.num_quantizers
    if count is None:
        return available
    whole = as_integer(count)
    if whole is None or not 1 <= whole <= available:
        raise CodesError(f"num_quantizers is {count!r}; expected 1 to {available} for this model")
    return whole


def refuse_samples_first(shape: Sequence[int], num_channels: int) -> None:
    """Refuse audio of shape (samples, channels), as sound libraries return it.

    Raises:
        AudioError: so it looks, or the last axis alone has the model's channels.
    """
    *before, last = shape or (0,)
    many = len(shape) == 2 and before[0] > _MOST_SHORT_ROWS and last <= _MOST_CHANNELS
    stereo_last = num_channels > 1 and last == num_channels and num_channels not in before[-1:]
    if many or (stereo_last and len(shape) > 1):
        raise AudioError(
            f"audio has shape {list(shape)}, which looks like (samples, channels); transpose it to "
            "(channels, samples)"
        )


def refuse_batch_first(shape: Sequence[int], config: CodecConfig) -> None:
    """Refuse codes whose second axis, not the first, looks like the codebooks.

    A batch of one, batch first, is refused too where its second axis is exactly the model's
    num_quantizers: read as one codebook of many rows, it would decode to noise.

    Raises:
        CodesError: they look like (batch, num_quantizers, frames) or (frames, num_quantizers).
    """
    available = config.quantizer.num_quantizers
    if len(shape) == 3 and shape[0] == 1 and 1 < shape[1] == available:
        raise CodesError(
            f"codes have shape {list(shape)}, which looks like (1, num_quantizers, frames): pass "
            "codes.transpose(0, 1) (NumPy: codes.swapaxes(0, 1)), or, for so many rows of one "
            "codebook, a list of (1, frames) to batch_decode"
        )
    if shape[0] <= available or not 1 < shape[1] <= available:
        return
    remedy = "codes.T" if len(shape) == 2 else "codes.transpose(0, 1) (NumPy: codes.swapaxes(0, 1))"
    raise CodesError(
        f"num_quantizers is {shape[0]}; expected 1 to {available} for this model. Codes of shape "
        f"{list(shape)} may have their codebooks in another axis: pass {remedy}"
    )


def require_one_clip(shape: Sequence[int]) -> None:
    """Refuse codes of several clips where one is decoded: the others would be dropped.

    Raises:
        CodesError: the codes have another number of axes than two.
    """
    if len(shape) != 2:
        raise CodesError(
            f"codes have shape {list(shape)}; expected (num_quantizers, frames), the codes of one "
            "clip: decode the clips of a batch one by one, as codes[:, i], or codes[i] where the "
            "batch comes first"
        )


def require_lengths(name: object) -> str:
    """``name``, if it says how many frames a clip gives: "ceil" or "floor".

    Raises:
        ConfigError: it is neither.
    """
    if name not in LENGTHS:
        raise ConfigError(f"lengths is {name!r}; expected one of {', '.join(LENGTHS)}")
    return str(name)


def whole_samples(num_samples: int, downsample_rate: int, lengths: str) -> int:
    """Samples of a clip that are encoded: all, or with "floor" those of whole frames.

    Raises:
        AudioError: nothing would be left.
    """
    if lengths == "ceil" or num_samples == 0:
        return num_samples
    if num_samples < downsample_rate:
        raise AudioError(
            f"a clip has {num_samples} samples, less than a frame of {downsample_rate}, and "
            "lengths are 'floor'; set_lengths('ceil') encodes it"
        )
    return num_samples // downsample_rate * downsample_rate


def as_integer(value: Any) -> int | None:
    """An integer of Python or of an array library; None for anything else, truth values too."""
    if isinstance(value, bool) or "bool" in str(getattr(value, "dtype", "")):
        return None
    if getattr(value, "ndim", 0):
        return None
    try:
        return operator.index(value)
    except TypeError:
        return None


def frames_of_duration(seconds: float | None, config: CodecConfig) -> int | None:
    """Whole frames in ``chunk_duration`` seconds; None stays None.

    Raises:
        InputError: the duration is no whole number of frames; names the nearest that are.
    """
    if seconds is None:
        return None
    if isinstance(seconds, bool) or not _is_finite_number(seconds):
        raise InputError(
            f"chunk_duration is {seconds!r}; expected a multiple of {1 / config.frame_rate:g} s"
        )
    frames = float(seconds) * config.frame_rate
    nearest = round(frames)
    if nearest >= 1 and abs(frames - nearest) < 1e-6 * max(1.0, frames):
        return nearest
    below, above = max(1, int(frames)), max(1, int(frames)) + 1
    raise InputError(
        f"chunk_duration is {seconds} s; expected a multiple of {1 / config.frame_rate:g} s, such "
        f"as {below / config.frame_rate:g} or {above / config.frame_rate:g}"
    )


def _is_finite_number(value: Any) -> bool:
    try:
        return not isinstance(value, str | bytes) and math.isfinite(float(value) * 1e9)
    except (TypeError, ValueError, OverflowError, RuntimeError):
        return False


def require_count(value: Any, name: str) -> int:
    """``value`` as a whole number of at least 1.

    Raises:
        InputError: it is none.
    """
    whole = as_integer(value)
    if whole is None or whole < 1:
        raise InputError(f"{name} is {value!r}; expected a whole number of at least 1")
    return whole


@contextmanager
def memory_of_streams(num_slots: int, max_chunk_frames: int) -> Iterator[None]:
    """Allocate the memory of streams in the body.

    Raises:
        InputError: it cannot be allocated, or its size is no number that a computer can have.
    """
    try:
        yield
    except (MemoryError, OverflowError, RuntimeError, TypeError, ValueError) as problem:
        sizes = num_slots * max_chunk_frames
        if isinstance(problem, InputError) or sizes < _MANY_FRAMES:
            raise
        raise InputError(
            f"max_slots is {num_slots} and max_chunk_frames is {max_chunk_frames}, and there is "
            "not enough memory for them; set them lower"
        ) from problem


def require_indices(values: Any, name: str) -> list[int]:
    """``values`` as a list of whole numbers; None is an empty one.

    Raises:
        InputError: it is none.
    """
    if values is None:
        return []
    try:
        indices = [as_integer(value) for value in values]
    except TypeError:
        indices = [None]
    found = [index for index in indices if index is not None]
    if len(found) < len(indices):
        raise InputError(f"{name} is {values!r}; expected a list of whole numbers")
    return found


def require_list(items: Any, what: str, instead: str) -> list[Any]:
    """The items of a list of clips; a single tensor or array is another method's.

    Raises:
        InputError: no list, or an empty one.
    """
    if isinstance(items, str | bytes | dict) or hasattr(items, "ndim"):
        raise InputError(
            f"got one {type(items).__name__}; expected a list of {what}: use {instead} for a batch"
        )
    try:
        found = list(items)
    except TypeError as error:
        raise InputError(f"got {type(items).__name__}; expected a list of {what}") from error
    if not found:
        raise InputError(f"got no {what}; expected a list of at least one")
    return found
