"""Arrays that callers pass, checked and brought into shape: audio, padding masks, codes.

`ArrayInputs` makes NumPy arrays of them; `model.inputs` has its counterpart for PyTorch, which
differs only in what an array library calls things.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..config import CodecConfig
from ..errors import AudioError, CodesError, InputError
from .validation import check_num_quantizers

# More rows than this, of so few samples, are not a batch of clips.
_MOST_SHORT_ROWS = 64
_MOST_CHANNELS = 8
# Peaks above full scale happen; this far above it, the samples have the scale of integers.
_HIGHEST_PEAK = 100.0
# What integer samples are divided by, by the name of their type.
_INTEGER_SCALES = {"int16": 2.0**15, "int32": 2.0**31}


class ArrayInputs:
    """What callers pass, as NumPy arrays."""

    def as_waveform_rows(self, audio: Any, num_channels: int) -> Any:
        """Audio of any accepted shape as float32 (batch, channels, samples).

        (batch, channels, samples) for every model; (samples,) and (batch, samples) for mono;
        (channels, samples) for stereo. int16 and int32 samples are scaled to +-1.

        Raises:
            AudioError: the shape, the channel count or the type does not fit.
        """
        audio = self.as_array(audio, "audio", AudioError)
        kind, name = self._type_of(audio)
        scale = _INTEGER_SCALES.get(name)
        if scale is None and kind != "f":
            raise AudioError(
                f"audio is {audio.dtype}; expected floating point within +-1, int16 or int32: "
                "moss_audio_tokenizer.audio.as_float_audio converts other PCM"
            )
        floats = self._as_float32(audio)
        return _shaped_as_waveforms(floats if scale is None else floats / scale, num_channels)

    def as_waveform_chunk(self, chunk: Any, num_channels: int) -> Any:
        """The next samples (channels, samples) of one stream; there may be none.

        Raises:
            AudioError: not audio that the model takes, or a batch of several.
        """
        rows = self.as_waveform_rows(chunk, num_channels)
        row = only_row(rows, "a chunk is one stream's", AudioError)
        return row if row.shape[-1] == 0 else self.check_clip(row)

    def check_clip(self, clip: Any) -> Any:
        """Refuse a clip (channels, samples) that is empty, not finite, or of another scale."""
        if clip.shape[-1] == 0:
            raise AudioError("audio is empty; expected at least one sample")
        # One look at all samples, which NaN does not slip through: steps of many streams wait.
        lowest, highest = (float(value) for value in self._extremes(clip))
        if not (lowest >= -_HIGHEST_PEAK and highest <= _HIGHEST_PEAK):
            _refuse_samples(lowest, highest, ~self._finite(clip))
        return clip

    def lengths_of(self, mask: Any, batch: int, steps: int, unit: str) -> list[int]:
        """Valid lengths of padded rows, from a mask that is 1 (or True) on a prefix of each.

        Raises:
            InputError: the mask has another shape, other values, or a gap.
        """
        if mask is None:
            return [steps] * batch
        values = self._as_numpy(self.as_array(mask, "padding_mask", InputError))
        return _valid_lengths(values, batch, steps, unit)

    def as_code_rows(self, codes: Any, config: CodecConfig) -> Any:
        """Codes of shape (num_quantizers, batch, frames) or (num_quantizers, frames), as int64.

        Raises:
            CodesError: not integers, a wrong shape, too many codebooks, no frames, or out of range.
        """
        return self._checked_codes(self.as_array(codes, "audio_codes", CodesError), config)

    def _checked_codes(self, codes: Any, config: CodecConfig) -> Any:
        if self._type_of(codes)[0] not in "iu":
            raise CodesError(f"codes are {codes.dtype}; expected integers")
        codes = self._as_int64(_shaped_as_codes(codes, config))
        lowest, highest = (int(value) for value in self._extremes(codes))
        size = config.quantizer.codebook_size
        if lowest < 0 or highest >= size:
            raise CodesError(f"codes reach from {lowest} to {highest}; expected 0 to {size - 1}")
        return codes

    def as_code_chunk(self, codes: Any, config: CodecConfig) -> Any:
        """The next codes (num_quantizers, frames) of one stream; there may be no frames.

        Raises:
            CodesError: not the codes that `as_code_rows` takes, or a batch of several.
        """
        values = self.as_array(codes, "audio_codes", CodesError)
        if values.ndim == 2 and values.shape[0] > 0 and values.shape[1] == 0:
            check_num_quantizers(values.shape[0], config)
            return self._as_int64(values)
        rows = self._checked_codes(values, config).swapaxes(0, 1)
        return only_row(rows, "a chunk is one stream's", CodesError)

    # What differs between array libraries

    def as_array(self, values: Any, name: str, error: type[InputError]) -> Any:
        """An array of numbers or truth values.

        Raises:
            error: it is not one.
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

    def row_lengths(self, rows: Sequence[Any]) -> Any:
        """Lengths of the last axis of each row."""
        return np.array([row.shape[-1] for row in rows], np.int64)

    def pad_rows(self, rows: Sequence[Any]) -> Any:
        """Stack arrays of unequal lengths along a new first axis, zero at the end of the last."""
        if len(rows) == 1:
            return rows[0][None]
        longest = max(row.shape[-1] for row in rows)
        stacked = np.zeros((len(rows), *rows[0].shape[:-1], longest), rows[0].dtype)
        for target, row in zip(stacked, rows, strict=True):
            target[..., : row.shape[-1]] = row
        return stacked

    def _type_of(self, array: Any) -> tuple[str, str]:
        """NumPy's letter for the kind of an array's type, and the name of the type."""
        return array.dtype.kind, array.dtype.name

    def _as_float32(self, array: Any) -> Any:
        with np.errstate(over="ignore"):  # what float32 cannot hold is refused as infinite
            return array.astype(np.float32, copy=False)

    def _as_int64(self, array: Any) -> Any:
        return array.astype(np.int64)

    def _extremes(self, array: Any) -> tuple[Any, Any]:
        return array.min(), array.max()

    def _finite(self, array: Any) -> np.ndarray:
        return np.isfinite(array)

    def _as_numpy(self, array: Any) -> np.ndarray:
        return array


ARRAYS = ArrayInputs()


def _shaped_as_waveforms(audio: Any, num_channels: int) -> Any:
    shape = list(audio.shape)
    _refuse_samples_first(shape, num_channels)
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


def _refuse_samples_first(shape: Sequence[int], num_channels: int) -> None:
    """Refuse audio of shape (samples, channels), as sound libraries return it."""
    *before, last = shape or (0,)
    many = len(shape) == 2 and before[0] > _MOST_SHORT_ROWS and last <= _MOST_CHANNELS
    stereo_last = num_channels > 1 and last == num_channels and num_channels not in before[-1:]
    if many or (stereo_last and len(shape) > 1):
        raise AudioError(
            f"audio has shape {list(shape)}, which looks like (samples, channels); transpose it to "
            "(channels, samples)"
        )


def only_row(rows: Any, what: str, error: type[InputError]) -> Any:
    """The only row of a batch of one.

    Raises:
        error: there are several; ``what`` is said to be one.
    """
    if len(rows) != 1:
        raise error(f"{what}; got a batch of {len(rows)}")
    return rows[0]


def _refuse_samples(lowest: float, highest: float, wrong: np.ndarray) -> None:
    """The error for samples (channels, samples), some of which are not finite or too large."""
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


def _valid_lengths(mask: np.ndarray, batch: int, steps: int, unit: str) -> list[int]:
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


def _shaped_as_codes(codes: Any, config: CodecConfig) -> Any:
    shape = list(codes.shape)
    codes = codes[:, None] if codes.ndim == 2 else codes
    if codes.ndim != 3 or 0 in codes.shape:
        raise CodesError(
            f"codes have shape {shape}; expected (num_quantizers, batch, frames) or "
            "(num_quantizers, frames), none of them 0"
        )
    _refuse_batch_first(shape, config)
    check_num_quantizers(codes.shape[0], config)
    return codes


def _refuse_batch_first(shape: Sequence[int], config: CodecConfig) -> None:
    """Refuse codes whose second axis, not the first, looks like the codebooks.

    A batch of one, batch first, is refused too where its second axis is exactly the model's
    num_quantizers: read as one codebook of many rows, it would decode to noise.
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
