"""Numbers and lists that callers of a codec pass: counts, layers, durations, rows.

The same refusals for every runtime; standard library only. Knows nothing of audio or codes.
"""

import math
import operator
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from ..errors import AudioError, CodesError, ConfigError, InputError
from .codec import CodecConfig

LENGTHS = ("ceil", "floor")
# More rows than this, of so few samples, are not a batch of clips.
_MOST_SHORT_ROWS = 64
_MOST_CHANNELS = 8
# So many frames of streams fit into memory: an error about fewer has another cause.
_MANY_FRAMES = 1000


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
    """Refuse codes whose first axis cannot be layers, while the next one can.

    Raises:
        CodesError: they look like (batch, num_quantizers, frames) or (frames, num_quantizers).
    """
    layers = config.quantizer.num_quantizers
    if shape[0] <= layers or not 1 < shape[1] <= layers:
        return
    remedy = "codes.T" if len(shape) == 2 else "codes.transpose(0, 1) (NumPy: codes.swapaxes(0, 1))"
    raise CodesError(
        f"num_quantizers is {shape[0]}; expected 1 to {layers} for this model. Codes of shape "
        f"{list(shape)} may have their layers in another axis: pass {remedy}"
    )


def require_one_clip(shape: Sequence[int]) -> None:
    """Refuse codes of several clips where one is decoded: the others would be dropped.

    Raises:
        CodesError: the codes have another number of axes than two.
    """
    if len(shape) != 2:
        raise CodesError(
            f"codes have shape {list(shape)}; expected (num_quantizers, frames), the codes of one "
            "clip: decode the clips of a batch one by one, as codes[:, i]"
        )


def require_lengths(name: object) -> str:
    """``name``, if it says how many frames a clip gives: "ceil" or "floor".

    Raises:
        ConfigError: it is neither.
    """
    if name not in LENGTHS:
        raise ConfigError(f"lengths is {name!r}; expected one of {', '.join(LENGTHS)}")
    return str(name)


def kept_samples(num_samples: int, downsample_rate: int, lengths: str) -> int:
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
