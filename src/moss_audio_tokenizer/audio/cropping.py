"""Crops of sound files, decoded without the rest of the file.

Owns which samples of a file a crop needs, so that resampler and decoder are in the state that they
are in when the whole file is read. A crop equals the same samples of the whole file to within the
rounding of float32 (of Opus, whose decoder never forgets entirely, to within 1e-3 of full scale).
"""

import math

import numpy as np
from jaxtyping import Float

from .reading import load_audio, open_audio
from .samples import (
    check_channels,
    check_finite,
    check_sampling_rate,
    convert_channels,
    resample,
)
from .sndfile import UNKNOWN_LENGTH, AudioSource, ForwardFile, silenced, source_name

# Samples on either side that the resampler uses; measured, 256 are enough (at a ratio of 1).
_REACH_SAMPLES = 1024
# Where libsndfile's seeking lands on the very sample; in Vorbis it lands beside it.
_EXACT_FORMATS = ("WAV", "WAVEX", "RF64", "FLAC", "MP3")
_EXACT_SUBTYPES = ("OPUS",)
# Frames of MP3 take bits of earlier ones, up to 511 bytes back. The smallest frames hold 24 bytes,
# 11 of them side information: 40 frames of 1,152 samples reach back far enough.
_MP3_RUN_UP_SAMPLES = 40 * 1152
# What decoders of Opus should be given before a sample (RFC 7845, section 4.6), several times over.
_OPUS_RUN_UP_SECONDS = 0.4


def load_crop(
    path: AudioSource, position: float, num_samples: int, sampling_rate: int, channels: int
) -> Float[np.ndarray, "channels samples"]:
    """Some samples of what `load_audio` would give, at about the cost of decoding only these.

    Damage in other parts of a file may go unseen. Ogg Vorbis, and MP3 that does not state its
    length, are decoded whole.

    Args:
        path: the file, or a binary file object that can seek.
        position: where: 0 is the start of the file, 1 the latest crop that fits.
        num_samples: wanted, at ``sampling_rate``; a shorter file is given whole.
        sampling_rate: samples a second to resample to.
        channels: as for `load_audio`.

    Raises:
        AudioError: an impossible rate or channel conversion, or samples that are not finite.
        AudioFileError: a missing, empty, truncated or damaged file, or no sound file.
    """
    check_sampling_rate(sampling_rate)
    check_channels(channels)
    with open_audio(path) as file:
        exact = file.format in _EXACT_FORMATS or file.subtype in _EXACT_SUBTYPES
        if exact and file.frames < UNKNOWN_LENGTH and isinstance(file, ForwardFile):
            total = -(-file.frames * sampling_rate // file.samplerate)
            start = crop_start(total, num_samples, position)
            part = _read_part(path, file, start, num_samples, sampling_rate, channels)
            if part is not None:
                return part
    whole = load_audio(path, sampling_rate, channels)
    start = crop_start(whole.shape[1], num_samples, position)
    return whole[:, start : start + num_samples]


def crop_start(total: int, num_samples: int, position: float) -> int:
    """The first sample of a crop of ``num_samples`` at a position (0 to 1) in ``total`` samples."""
    latest = max(0, total - num_samples)
    return min(latest, int(position * (latest + 1)))


def _read_part(
    path: AudioSource,
    file: ForwardFile,
    start: int,
    num_samples: int,
    sampling_rate: int,
    channels: int,
) -> np.ndarray | None:
    """Samples from ``start`` on at ``sampling_rate``; None when the file holds less than it says.

    They begin where samples of both rates coincide, so that the resampler is in step.
    """
    rate = file.samplerate
    reach = _REACH_SAMPLES * max(1, math.ceil(rate / sampling_rate))
    step = rate // math.gcd(rate, sampling_rate)
    wanted = start * rate // sampling_rate - reach
    first = max(0, wanted - _run_up(file)) // step * step
    end = min(file.frames, math.ceil((start + num_samples) * rate / sampling_rate) + reach)
    with silenced():
        file.seek(first)
        samples = file.read(end - first, dtype="float32", always_2d=True).T
    if samples.shape[1] < end - first or not samples.shape[1]:
        return None
    check_finite(samples, source_name(path), first)
    skipped = start - first * sampling_rate // rate
    part = resample(convert_channels(samples, channels), rate, sampling_rate)
    return part[:, skipped : skipped + num_samples]


def _run_up(file: ForwardFile) -> int:
    """Samples before a crop that bring its decoder into the state of one that read them all."""
    if file.format == "MP3":
        return _MP3_RUN_UP_SAMPLES
    return round(_OPUS_RUN_UP_SECONDS * file.samplerate) if file.subtype in _EXACT_SUBTYPES else 0
