"""Reading sound files: what is in them, their samples at a wanted rate, and crops of them.

It trusts decoders with the samples, but not with the lengths: files are read forward to their
end, and one that holds less than it declares is refused. Memory follows the result: blocks are
mixed and resampled as they come. A crop is decoded without the rest of the file, and equals the
same samples of the whole file to within the rounding of float32 (of Opus, whose decoder never
forgets entirely, to within 1e-3 of full scale). It does not know models.
"""

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO, TypeAlias

import numpy as np
import soundfile
from jaxtyping import Float

from ..errors import AudioError, AudioFileError
from .containers import Contents, Kind, examine, kind_of
from .ffmpeg import FFmpegSound, open_with_ffmpeg
from .samples import (
    StreamResampler,
    check_channels,
    check_finite,
    check_sampling_rate,
    convert_channels,
    resample,
)
from .sndfile import (
    UNKNOWN_LENGTH,
    AudioSource,
    ForwardFile,
    JoinedSound,
    bytes_of,
    open_link,
    silenced,
    source_name,
)

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


@dataclass(frozen=True)
class AudioInfo:
    """What a sound file holds.

    Attributes:
        num_samples: samples of each channel.
        sampling_rate: samples a second and channel.
        num_channels: channels.
        format: format of the file, such as "WAV" or "MP3".
    """

    num_samples: int
    sampling_rate: int
    num_channels: int
    format: str = ""

    @property
    def duration_seconds(self) -> float:
        """Length in seconds."""
        return self.num_samples / self.sampling_rate


# Sound that is read forward, whichever decoder stands behind it.
OpenedSound: TypeAlias = ForwardFile | JoinedSound | FFmpegSound


def load_audio(
    path: AudioSource,
    sampling_rate: int | None = None,
    channels: int | None = None,
    *,
    max_seconds: float | None = None,
) -> Float[np.ndarray, "channels samples"]:
    """The samples of a sound file, ready for a model.

    wav, flac, ogg, opus, mp3 and aiff; m4a, mp4, aac, webm, mka and wma where PyAV or the program
    ffmpeg is installed.

    Args:
        path: the file, or a binary file object that can seek; its content decides the format,
            not its extension.
        sampling_rate: samples a second to resample to, 8,000 to 192,000; None keeps the file's.
        channels: 1 mixes to mono by the mean, 2 makes stereo; None keeps the file's.
        max_seconds: refuse longer audio, without reading on; None takes any length.

    Returns:
        (channels, samples) float32, full scale at -1 and 1.

    Raises:
        AudioError: an impossible rate or channel conversion, or samples that are not finite,
            or more than ``max_seconds``.
        AudioFileError: a missing, empty, truncated or damaged file, or no sound file.
    """
    return load_with_info(path, sampling_rate, channels, max_seconds=max_seconds)[0]


def load_with_info(
    path: AudioSource,
    sampling_rate: int | None = None,
    channels: int | None = None,
    *,
    max_seconds: float | None = None,
) -> tuple[Float[np.ndarray, "channels samples"], AudioInfo]:
    """What `load_audio` gives, and what the file held before it was converted.

    Raises:
        AudioError, AudioFileError: as `load_audio`.
    """
    if sampling_rate is not None:
        check_sampling_rate(sampling_rate)
    if channels is not None:
        check_channels(channels)
    with open_audio(path) as sound:
        own_rate = sound.samplerate
        resampler = None
        parts, num_samples = [], 0
        for block in sound.blocks():
            samples = block.T
            check_finite(samples, source_name(path), num_samples)
            num_samples += samples.shape[1]
            _check_length(num_samples, own_rate, max_seconds)
            if channels is not None:
                samples = convert_channels(samples, channels)
            if sampling_rate is not None:
                resampler = resampler or StreamResampler(own_rate, sampling_rate, len(samples))
                samples = resampler.add(samples)
            parts.append(samples)
        if num_samples == 0:
            raise AudioFileError(f"{source_name(path)} holds no samples; expected at least one")
        info = AudioInfo(num_samples, own_rate, sound.channels, sound.format)
    if resampler is not None:
        parts.append(resampler.finish())
    audio = np.concatenate(parts, axis=1)
    if resampler is not None and own_rate != sampling_rate:
        check_finite(audio, f"{source_name(path)}, resampled,")
    return audio, info


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


def read_audio(path: AudioSource) -> tuple[Float[np.ndarray, "channels samples"], int]:
    """The samples of a file as they are, (channels, samples) float32, and their sampling rate.

    Opus has no rate of its own: one of 8, 12, 16, 24 and 48 kHz is used, which is 48 kHz
    unless the file says that it was made from another of these.

    Raises:
        AudioError: samples that are not finite.
        AudioFileError: a missing, empty, truncated or damaged file, or no sound file.
    """
    samples, info = load_with_info(path)
    return samples, info.sampling_rate


def audio_info(path: AudioSource) -> AudioInfo:
    """Length, rate and channels of a file, from its header where the header knows them.

    Only a file that does not state its length, or holds several joined streams, is decoded.

    Raises:
        AudioFileError: a missing, empty, truncated or damaged file, or no sound file.
    """
    with open_audio(path) as sound:
        num_samples = sound.frames
        if num_samples >= UNKNOWN_LENGTH:
            num_samples = sum(len(block) for block in sound.blocks())
        return AudioInfo(num_samples, sound.samplerate, sound.channels, sound.format)


@contextmanager
def open_audio(source: AudioSource) -> Iterator[OpenedSound]:
    """The file, after a look for damage; every complaint of a decoder as an AudioFileError.

    Raises:
        AudioError: the source is neither a path nor a file object that can seek.
        AudioFileError: a missing, empty, truncated or damaged file, or no sound file.
    """
    _check_source(source)
    name = source_name(source)
    try:
        with bytes_of(source) as (file, size):
            kind = _known_kind(file, name)
            contents = examine(file, size)
        if contents.damage:
            raise AudioFileError(
                f"{name} is {contents.damage}; get a whole copy, or encode it again"
            )
        with _decoder(source, name, kind, contents) as sound:
            yield sound
    except AudioFileError as problem:
        if not str(problem).startswith("it "):
            raise
        raise AudioFileError(f"{name} {str(problem)[3:]}") from problem
    # TypeError: soundfile asks for the rate of headerless files (.raw)
    except (soundfile.SoundFileError, OSError, TypeError) as problem:
        reason = " ".join(str(problem).rsplit(": ", 1)[-1].split())
        raise AudioFileError(
            f"{name} cannot be read ({reason}); get a whole copy, or encode it again"
        ) from problem


def _check_source(source: AudioSource) -> None:
    if isinstance(source, str | os.PathLike) or hasattr(source, "seek"):
        return
    raise AudioError(
        f"got {type(source).__name__}; expected a path, or a binary file object that can seek: "
        "put bytes into io.BytesIO"
    )


def _known_kind(file: BinaryIO, name: str) -> Kind:
    kind = kind_of(file)
    if kind is None:
        raise AudioFileError(
            f"{name} is not a wav, flac, ogg, opus or mp3 file, nor another kind of sound that can "
            f"be read; if it is sound, convert it first: ffmpeg -i {name} out.flac"
        )
    return kind


@contextmanager
def _decoder(
    source: AudioSource, name: str, kind: Kind, contents: Contents
) -> Iterator[OpenedSound]:
    if contents.num_parallel > 1:
        kind = Kind(f"Ogg with {contents.num_parallel} streams at once", "ogg")
    if kind.demuxer:
        with bytes_of(source) as (file, _), open_with_ffmpeg(file, name, kind) as sound:
            yield sound
        return
    if len(contents.links) == 1:
        with open_link(source, *contents.links[0]) as sound:
            yield sound
        return
    yield JoinedSound(lambda first, size: open_link(source, first, size), contents.links)


def _check_length(num_samples: int, rate: int, max_seconds: float | None) -> None:
    """Refuse audio that is too long, while it is read: a small file can hold days of silence."""
    if max_seconds is not None and num_samples > max_seconds * rate:
        raise AudioError(f"audio is longer than {max_seconds:g} s; cut it, or send it in parts")
