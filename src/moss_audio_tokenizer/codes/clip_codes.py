"""The codes of one clip with all that is needed to turn them back into sound, checked.

Owns what makes codes valid; knows nothing of files or models.
"""

import operator
from dataclasses import KW_ONLY, dataclass
from typing import Any

import numpy as np
from jaxtyping import Integer

from ..errors import CodesError

# What the .moss header has room for; codebooks of more rows than this are not in use.
_LIMITS = {
    "sampling_rate": (1, 2**32 - 1),
    "num_samples": (1, 2**48),
    "downsample_rate": (1, 2**32 - 1),
    "num_channels": (1, 2**16 - 1),
    "codebook_size": (2, 2**16),
}
_MAX_QUANTIZERS = 2**16 - 1
_MAX_MODEL_LENGTH = 16


@dataclass(frozen=True, eq=False, repr=False)
class ClipCodes:
    """Codes of one clip.

    Attributes:
        codes: (num_quantizers, frames), 0 .. codebook_size - 1; kept as an int64 copy.
        sampling_rate: samples a second and channel of the audio.
        num_samples: samples a channel of the original, which the last frame may exceed.
        downsample_rate: samples a frame and channel; 0 stands for 12.5 frames a second, the
            rate of all released models, where that is a whole number of samples.
        num_channels: channels of the audio.
        codebook_size: entries of each codebook, 2 to 65,536.
        model: identity of the model that made them (`CodecInfo.identity`), or "".

    Raises:
        CodesError: the parts do not fit together.
    """

    codes: Integer[np.ndarray, "num_quantizers frames"]
    sampling_rate: int
    num_samples: int
    _: KW_ONLY
    downsample_rate: int = 0
    num_channels: int = 1
    codebook_size: int = 1024
    model: str = ""

    def __post_init__(self) -> None:
        if self.downsample_rate == 0:
            object.__setattr__(self, "downsample_rate", _default_step(self.sampling_rate))
        for name, (lowest, highest) in _LIMITS.items():
            value = require_integer(name, getattr(self, name), lowest, highest)
            object.__setattr__(self, name, value)
        _check_model(self.model)
        codes = _require_codes(self.codes)
        _check_frames(codes.shape[1], self.num_samples, self.downsample_rate)
        _check_range(codes, self.codebook_size)
        object.__setattr__(self, "codes", codes.astype(np.int64))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ClipCodes):
            return NotImplemented
        return self.metadata == other.metadata and np.array_equal(self.codes, other.codes)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={value!r}" for name, value in self.metadata.items())
        return f"{type(self).__name__}({self.num_quantizers} x {self.num_frames} codes, {shown})"

    @property
    def num_quantizers(self) -> int:
        """Layers of codes."""
        return int(self.codes.shape[0])

    @property
    def num_frames(self) -> int:
        """Frames."""
        return int(self.codes.shape[1])

    @property
    def frame_rate(self) -> float:
        """Frames a second."""
        return self.sampling_rate / self.downsample_rate

    @property
    def duration_seconds(self) -> float:
        """Duration of the original."""
        return self.num_samples / self.sampling_rate

    @property
    def bits_per_code(self) -> int:
        """Bits that a code takes: ceil(log2(codebook_size))."""
        return (self.codebook_size - 1).bit_length()

    @property
    def bitrate(self) -> float:
        """Nominal bits a second."""
        return self.num_quantizers * self.bits_per_code * self.frame_rate

    @property
    def metadata(self) -> dict[str, Any]:
        """Everything but the codes, as plain values."""
        return {
            "sampling_rate": self.sampling_rate,
            "num_samples": self.num_samples,
            "downsample_rate": self.downsample_rate,
            "num_channels": self.num_channels,
            "codebook_size": self.codebook_size,
            "model": self.model,
        }


def _default_step(sampling_rate: Any) -> int:
    """Samples a frame at 12.5 frames a second."""
    lowest, highest = _LIMITS["sampling_rate"]
    samples = 2 * require_integer("sampling_rate", sampling_rate, lowest, highest)
    if samples % 25:
        raise CodesError(
            f"sampling_rate {sampling_rate} is not a multiple of 12.5 frames a second: "
            "pass downsample_rate"
        )
    return samples // 25


def require_integer(name: str, value: Any, lowest: int, highest: int) -> int:
    """The value as a plain integer between the limits, or a CodesError that names it."""
    if isinstance(value, bool | np.bool_) or not hasattr(value, "__index__"):
        raise CodesError(f"{name} is {value!r}; expected an integer: convert it with int()")
    if not lowest <= value <= highest:
        raise CodesError(f"{name} is {value}; expected {lowest} to {highest}: check its source")
    return operator.index(value)


def _check_model(model: Any) -> None:
    is_text = isinstance(model, str) and model.isascii() and (model.isprintable() or not model)
    if not is_text or len(model) > _MAX_MODEL_LENGTH:
        raise CodesError(
            f"model is {model!r}; expected at most {_MAX_MODEL_LENGTH} ASCII characters: "
            "pass CodecInfo.identity"
        )


def _require_codes(codes: Any) -> np.ndarray:
    """The array, once its type and shape are those of codes."""
    try:
        array = np.asarray(codes)
    except ValueError as problem:  # a ragged list
        raise CodesError("codes have rows of many lengths; expected one rectangle") from problem
    if array.ndim != 2 or 0 in array.shape:
        remedy = ": pass one clip, codes[:, row]" if array.ndim == 3 else ", neither of them 0"
        raise CodesError(
            f"codes have shape {array.shape}; expected (num_quantizers, frames){remedy}"
        )
    if array.dtype.kind not in "iu":
        raise CodesError(f"codes are {array.dtype}; expected integers: they are never rounded")
    if len(array) > _MAX_QUANTIZERS:
        raise CodesError(
            f"codes of shape {array.shape} have {len(array)} layers; expected at most "
            f"{_MAX_QUANTIZERS}: transpose them to (num_quantizers, frames)"
        )
    return array


def _check_frames(num_frames: int, num_samples: int, downsample_rate: int) -> None:
    expected = -(-num_samples // downsample_rate)
    if num_frames != expected:
        raise CodesError(
            f"codes have {num_frames} frames; expected {expected} for {num_samples} samples at "
            f"{downsample_rate} a frame: correct num_samples or downsample_rate"
        )


def _check_range(codes: np.ndarray, codebook_size: int) -> None:
    lowest, highest = int(codes.min()), int(codes.max())
    if lowest < 0 or highest >= codebook_size:
        raise CodesError(
            f"codes reach from {lowest} to {highest}; expected 0 to {codebook_size - 1}: "
            "is codebook_size that of the model?"
        )
