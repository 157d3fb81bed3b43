"""Arrays of samples: type, shape, channels and sampling rate, and whether they are usable.

Rates are changed with soxr. It does not know where samples come from.
"""

import operator

import numpy as np
import soxr
from jaxtyping import Float
from numpy.typing import ArrayLike

from ..errors import AudioError

MIN_SAMPLING_RATE = 8_000
MAX_SAMPLING_RATE = 192_000
_BLOCK_SAMPLES = 1 << 18
# More than any layout of loudspeakers: an array with more is (samples, channels) by mistake.
_MAX_CHANNELS = 64

# Integer PCM: the value of silence, and the distance from it to full scale.
_PCM_SCALES = {"uint8": (128, 2.0**7), "int8": (0, 2.0**7), "int16": (0, 2.0**15)} | {
    "int32": (0, 2.0**31)
}

# Loudspeakers by their number, in the order of WAV files, and what the left channel of stereo takes
# of each; the right channel takes the same of its mirror image.
_TO_LEFT = {
    3: "FL FR FC",
    4: "FL FR BL BR",
    5: "FL FR FC BL BR",
    6: "FL FR FC LFE BL BR",
    7: "FL FR FC LFE BC SL SR",
    8: "FL FR FC LFE BL BR SL SR",
}
_MIRRORED = {"FL": "FR", "FR": "FL", "BL": "BR", "BR": "BL", "SL": "SR", "SR": "SL"}
_GAINS = {"FL": 1.0, "FC": 0.5**0.5, "BL": 0.5**0.5, "SL": 0.5**0.5, "BC": 0.5}
_GAINS |= {"FR": 0.0, "BR": 0.0, "SR": 0.0, "LFE": 0.0}


def as_float_audio(array: ArrayLike) -> Float[np.ndarray, "..."]:
    """Samples as float32, integer PCM divided by the full scale of its type.

    int16 / 2**15, int32 / 2**31, int8 / 2**7, (uint8 - 128) / 2**7; floats of any width are
    cast, without scaling. A float32 array is returned as it is, not copied.

    Raises:
        AudioError: bool, complex, text, objects, integers that are not PCM (such as int64), or
            tensors that NumPy cannot read.
    """
    try:
        samples = np.asarray(array)
    except ValueError as problem:  # a ragged list
        raise AudioError("audio must be one rectangular array; got rows of many sizes") from problem
    except (RuntimeError, TypeError) as problem:  # a tensor that only PyTorch can read
        raise AudioError(
            f"audio is a {type(array).__name__} that NumPy cannot read; pass a NumPy array, such "
            "as tensor.detach().float().cpu().numpy()"
        ) from problem
    if samples.dtype.kind == "f":
        with np.errstate(over="ignore"):  # float64 too large becomes inf, which check_audio names
            return samples.astype(np.float32, copy=False)
    scale = _PCM_SCALES.get(samples.dtype.name)
    if scale is None:
        raise AudioError(
            f"audio has type {samples.dtype.name}; expected floats in -1..1 or PCM of type "
            "uint8, int8, int16 or int32: cast it first"
        )
    return ((samples - np.float64(scale[0])) / scale[1]).astype(np.float32)


def check_audio(audio: ArrayLike) -> Float[np.ndarray, "channels samples"]:
    """Audio as (channels, samples) float32, or the reason why it cannot be used.

    Args:
        audio: (samples,) for mono or (channels, samples), floats or integer PCM.

    Raises:
        AudioError: wrong type or rank, no samples, or NaN or infinite samples (the message names
            the first one).
    """
    samples = check_shape(as_float_audio(audio))
    check_finite(samples)
    return samples


def check_shape(samples: np.ndarray) -> np.ndarray:
    """The same samples as (channels, samples), or an AudioError about rank or sizes."""
    if samples.ndim not in (1, 2):
        raise AudioError(
            f"audio has shape {samples.shape}; expected (samples,) or (channels, samples): "
            "pass one clip at a time"
        )
    samples = np.atleast_2d(samples)
    if samples.size == 0:
        raise AudioError(f"audio is empty: got shape {samples.shape}; expected at least one sample")
    found = samples.shape[0]
    if found > _MAX_CHANNELS:
        raise AudioError(
            f"audio of shape {samples.shape} has {found} channels; expected "
            f"(channels, samples) with at most {_MAX_CHANNELS}: transpose it"
        )
    return samples


def check_finite(
    samples: Float[np.ndarray, "channels samples"], source: str = "audio", first: int = 0
) -> None:
    """Raise an AudioError that names the earliest sample that is NaN or infinite.

    Args:
        samples: a clip, or a block of one.
        source: what messages call the clip.
        first: samples of the clip before this block.
    """
    finite = np.isfinite(samples)
    if finite.all():
        return
    index = int(np.argmin(finite.all(axis=0)))
    channel = int(np.argmin(finite[:, index]))
    raise AudioError(
        f"{source} is not finite: sample {first + index} of channel {channel} is "
        f"{samples[channel, index]}; expected finite numbers: repair or replace it"
    )


def check_channels(channels: int) -> None:
    """Raise an AudioError unless this is an integer of at least 1."""
    if isinstance(channels, bool) or not isinstance(channels, int | np.integer) or channels < 1:
        raise AudioError(f"got channels={channels!r}; expected an integer of at least 1")


def convert_channels(
    audio: Float[np.ndarray, "channels samples"], channels: int
) -> Float[np.ndarray, "converted samples"]:
    """Audio with another channel count.

    Any to mono by the mean, mono to stereo by repeating, and layouts of 3 to 8 loudspeakers, in the
    order of WAV files, to stereo: center and surround channels 3 dB lower, no low-frequency
    channel, and all scaled so that nothing exceeds full scale that did not before.

    Raises:
        AudioError: any other conversion, or a channel count below 1.
    """
    check_channels(channels)
    found = audio.shape[0]
    if found == channels:
        return audio
    if channels == 1:
        # float64 so that the mean of many equal channels is that channel, bit for bit
        return audio.mean(axis=0, keepdims=True, dtype=np.float64).astype(np.float32)
    if found == 1 and channels == 2:
        return np.repeat(audio, 2, axis=0)
    if found in _TO_LEFT and channels == 2:
        left = np.array([_GAINS[name] for name in _TO_LEFT[found].split()])
        right = np.array([_GAINS[_MIRRORED.get(name, name)] for name in _TO_LEFT[found].split()])
        mixed = np.stack([left, right]) @ audio.astype(np.float64) / left.sum()
        return mixed.astype(np.float32)
    raise AudioError(
        f"cannot make {channels} channels from {found}; expected any to 1, or 1 to 8 to 2: "
        "mix them before"
    )


def resample(
    audio: ArrayLike, from_rate: int, to_rate: int
) -> Float[np.ndarray, "channels resampled"]:
    """Audio at another sampling rate: soxr, "HQ", linear phase, without delay.

    Args:
        audio: (samples,) or (channels, samples).
        from_rate: samples a second of ``audio``, 8,000 to 192,000.
        to_rate: samples a second wanted, 8,000 to 192,000.

    Returns:
        float32, ceil(samples * to_rate / from_rate) samples, so that nothing is cut off.

    Raises:
        AudioError: unusable audio (see check_audio) or rates, or samples so large that the result
            is not finite.
    """
    samples = check_audio(audio)
    resampler = StreamResampler(from_rate, to_rate, len(samples))
    if from_rate == to_rate:
        return samples
    starts = range(0, samples.shape[1], _BLOCK_SAMPLES)
    parts = [resampler.add(samples[:, start : start + _BLOCK_SAMPLES]) for start in starts]
    resampled = np.concatenate([*parts, resampler.finish()], axis=1)
    check_finite(resampled, source="resampled audio")
    return resampled


class StreamResampler:
    """Resamples audio that comes block by block, to the same samples as in one go.

    Args:
        from_rate: samples a second of the blocks.
        to_rate: samples a second wanted.
        num_channels: channels of the blocks.

    Raises:
        AudioError: a rate that is not an integer from 8,000 to 192,000.
    """

    def __init__(self, from_rate: int, to_rate: int, num_channels: int) -> None:
        self._from, self._to = check_sampling_rate(from_rate), check_sampling_rate(to_rate)
        self._channels = num_channels
        self._taken = self._given = 0
        self._soxr: soxr.ResampleStream | None = None
        if self._from != self._to:
            self._soxr = soxr.ResampleStream(
                self._from, self._to, num_channels, dtype="float32", quality="HQ"
            )

    def add(self, block: Float[np.ndarray, "channels samples"]) -> np.ndarray:
        """What is certain after another block: (channels, samples), perhaps none."""
        self._taken += block.shape[1]
        return block if self._soxr is None else self._resampled(self._soxr, block, last=False)

    def finish(self) -> Float[np.ndarray, "channels samples"]:
        """The rest, once all blocks are in."""
        if self._soxr is None:
            return np.zeros((self._channels, 0), np.float32)
        # soxr rounds the length, down to nothing for a few samples; silence behind makes up for it.
        silence = np.zeros((self._channels, self._from // self._to + 2), np.float32)
        wanted = -(-self._taken * self._to // self._from) - self._given
        return self._resampled(self._soxr, silence, last=True)[:, :wanted]

    def _resampled(self, stream: soxr.ResampleStream, block: np.ndarray, last: bool) -> np.ndarray:
        block = np.ascontiguousarray(block.T)
        resampled = stream.resample_chunk(block, last=last).reshape(-1, self._channels)
        self._given += len(resampled)
        return np.ascontiguousarray(resampled.T)


def check_sampling_rate(sampling_rate: int) -> int:
    """The rate as an int, or an AudioError when it is not an integer from 8,000 to 192,000."""
    try:
        rate = operator.index(sampling_rate)
    except TypeError:
        rate = None
    if rate is None or not MIN_SAMPLING_RATE <= rate <= MAX_SAMPLING_RATE:
        raise AudioError(
            f"got sampling rate {sampling_rate!r}; expected an integer from "
            f"{MIN_SAMPLING_RATE} to {MAX_SAMPLING_RATE} samples a second"
        )
    return rate
