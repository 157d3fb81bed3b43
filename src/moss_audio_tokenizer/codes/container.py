"""`AudioCodes`: the codes of one clip with all that is needed to turn them back into sound.

Owns what makes codes valid and which file format an extension stands for; the bytes of the formats
are moss_format.py's and array_formats.py's. Knows nothing of models.
"""

import operator
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Integer

from ..errors import CodesError, CodesFileError
from ..files import atomic_path, require_file
from . import moss_format
from .array_formats import (
    load_npz,
    load_safetensors,
    save_npz,
    save_safetensors,
    unreadable,
)
from .codec import CodecInfo
from .moss_format import StoredCodes

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
class AudioCodes:
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
            value = _require_integer(name, getattr(self, name), lowest, highest)
            object.__setattr__(self, name, value)
        _check_model(self.model)
        codes = _require_codes(self.codes)
        _check_frames(codes.shape[1], self.num_samples, self.downsample_rate)
        _check_range(codes, self.codebook_size)
        object.__setattr__(self, "codes", codes.astype(np.int64))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, AudioCodes):
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

    def first(self, num_quantizers: int) -> "AudioCodes":
        """The same clip at a lower bitrate: its first ``num_quantizers`` layers.

        Raises:
            CodesError: there are fewer.
        """
        count = _require_integer("num_quantizers", num_quantizers, 1, self.num_quantizers)
        return replace(self, codes=self.codes[:count])

    @classmethod
    def of_codec(cls, info: CodecInfo, codes: Any, num_samples: int) -> "AudioCodes":
        """Codes of one clip with all the facts of the codec that made them.

        Args:
            info: the codec's facts.
            codes: (num_quantizers, frames).
            num_samples: samples a channel of the original.

        Raises:
            CodesError: the parts do not fit together.
        """
        return cls(
            codes,
            info.sampling_rate,
            num_samples,
            downsample_rate=info.downsample_rate,
            num_channels=info.num_channels,
            codebook_size=info.codebook_size,
            model=info.identity,
        )

    @classmethod
    def from_batch_first(
        cls, codes: Any, sampling_rate: int, num_samples: int, **rest: Any
    ) -> "AudioCodes":
        """Codes of one clip in the axis order (1, num_quantizers, frames) of other programs.

        Args:
            codes: a batch of one, batch first, as transformers' own audio codecs return it.
            sampling_rate: samples a second and channel of the audio.
            num_samples: samples a channel of the original.
            **rest: the other attributes.

        Raises:
            CodesError: it is not a batch of one, or the parts do not fit together.
        """
        array = np.asarray(codes)
        if array.ndim != 3 or len(array) != 1:
            raise CodesError(
                f"codes have shape {list(array.shape)}; expected (1, num_quantizers, frames): pass "
                "each clip of a batch by itself, codes[i : i + 1]"
            )
        return cls(array[0], sampling_rate, num_samples, **rest)

    def to_bytes(self) -> bytes:
        """The contents of a .moss file."""
        return moss_format.pack(self.codes, self.metadata)

    @classmethod
    def from_bytes(cls, data: bytes, name: str = "data") -> "AudioCodes":
        """Read the contents of a .moss file, which messages call ``name``.

        Raises:
            CodesFileError: not .moss, another version, truncated, extended, or altered.
        """
        return cls._from_file(moss_format.unpack(data, name), name)

    def save(self, path: str | PathLike[str]) -> None:
        """Write to .moss, .safetensors or .npz, by the extension; whole or not at all.

        Raises:
            CodesError: the array was changed since and is no longer valid.
            CodesFileError: the extension is unknown, or the place cannot be written to.
        """
        write = _format_of(path).save
        valid = replace(self)  # the array inside can be changed at any time: check it once more
        with atomic_path(path, error=CodesFileError) as temporary:
            write(valid.codes, valid.metadata, temporary)

    @classmethod
    def load(cls, path: str | PathLike[str]) -> "AudioCodes":
        """Read .moss, .safetensors or .npz.

        Raises:
            CodesFileError: missing, truncated, altered, or of another format.
        """
        read = _format_of(path).load
        size = require_file(path, error=CodesFileError)
        try:
            stored = read(Path(path), size)
        except CodesFileError:
            raise
        except OSError as problem:
            reason = problem.strerror or problem
            raise CodesFileError(f"cannot read {str(path)!r}: {reason}") from problem
        built = cls._from_file(stored, repr(str(path)))
        # A missing value or a downsample_rate of 0 would have been filled in with a default.
        if built.metadata != stored.metadata:
            raise unreadable(path, f"its description must have {', '.join(built.metadata)}")
        expected = stored.checksum
        found = None if expected is None else moss_format.checksum_of(built.codes, built.metadata)
        if found != expected:
            raise unreadable(path, "its checksum does not match: it was altered")
        return built

    @classmethod
    def _from_file(cls, stored: StoredCodes, name: str) -> "AudioCodes":
        try:
            return cls(stored.codes, **stored.metadata)
        except CodesError as problem:
            raise CodesFileError(f"{name} holds no valid codes: {problem}") from problem
        except TypeError as problem:
            reason = f"no description of its codes: {problem}"
            raise CodesFileError(f"{name} cannot be read as codes ({reason})") from problem


class _Format(NamedTuple):
    save: Callable[[np.ndarray, dict[str, Any], Path], None]
    load: Callable[[Path, int], StoredCodes]


FORMATS = {
    ".moss": _Format(moss_format.save_moss, moss_format.load_moss),
    ".safetensors": _Format(save_safetensors, load_safetensors),
    ".npz": _Format(save_npz, load_npz),
}


def _format_of(path: str | PathLike[str]) -> _Format:
    suffix = Path(path).suffix.lower()
    if suffix not in FORMATS:
        raise CodesFileError(
            f"{str(path)!r} has the unknown extension {suffix!r}; "
            f"expected one of {', '.join(FORMATS)}"
        )
    return FORMATS[suffix]


def _default_step(sampling_rate: Any) -> int:
    """Samples a frame at 12.5 frames a second."""
    lowest, highest = _LIMITS["sampling_rate"]
    samples = 2 * _require_integer("sampling_rate", sampling_rate, lowest, highest)
    if samples % 25:
        raise CodesError(
            f"sampling_rate {sampling_rate} is not a multiple of 12.5 frames a second: "
            "pass downsample_rate"
        )
    return samples // 25


def _require_integer(name: str, value: Any, lowest: int, highest: int) -> int:
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
