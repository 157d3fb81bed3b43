"""What callers pass to a codec besides arrays: counts, durations, lists."""

import math
import operator
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..config import CodecConfig
from ..errors import AudioError, CodesError, ConfigError, InputError

LENGTHS = ("ceil", "floor")
# So many frames of streams fit into memory: an error about fewer has another cause.
_MANY_FRAMES = 1000


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
