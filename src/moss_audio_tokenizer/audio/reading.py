"""Reading sound files: what is in them, their samples, and their samples at a wanted rate.

It trusts libsndfile with the decoding, but not with the lengths: files are read forward to
their end, and one that holds less than it declares is refused. It does not know models.
"""

import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypeAlias

import numpy as np
import soundfile
from jaxtyping import Float

from ..errors import AudioError, AudioFileError
from ..files import require_file
from .integrity import find_damage, has_length_tag
from .resampling import check_sampling_rate, resample
from .samples import check_channels, check_finite, convert_channels

_BLOCK_VALUES = 1 << 20
UNKNOWN_LENGTH = 1 << 62


# A path, or a binary file object that can seek, such as io.BytesIO.
AudioSource: TypeAlias = str | os.PathLike[str] | BinaryIO


@dataclass(frozen=True)
class AudioInfo:
    """What a sound file holds.

    Attributes:
        num_samples: samples of each channel.
        sampling_rate: samples a second and channel.
        num_channels: channels.
    """

    num_samples: int
    sampling_rate: int
    num_channels: int

    @property
    def duration_seconds(self) -> float:
        """Length in seconds."""
        return self.num_samples / self.sampling_rate


class ForwardFile(soundfile.SoundFile):
    """A sound file read once from start to end.

    soundfile seeks after every read, which fails at the end of a FLAC file of unknown length,
    and clips reads to the declared length, which can be wrong; for streams it does neither.
    """

    def seekable(self) -> bool:
        """No, for soundfile's own bookkeeping; `seek` works all the same."""
        return False


def load_audio(
    path: AudioSource,
    sampling_rate: int | None = None,
    channels: int | None = None,
    *,
    max_seconds: float | None = None,
) -> Float[np.ndarray, "channels samples"]:
    """The samples of a wav, flac, ogg, opus or mp3 file, ready for a model.

    Args:
        path: the file, or a binary file object that can seek; its content decides the format,
            not its extension.
        sampling_rate: samples a second to resample to, 8,000 to 192,000; None keeps the file's.
        channels: 1 mixes to mono by the mean, 2 makes stereo of mono; None keeps the file's.
        max_seconds: refuse longer audio, without reading on; None takes any length.

    Returns:
        (channels, samples) float32, full scale at -1 and 1.

    Raises:
        AudioError: an impossible rate or channel conversion, or samples that are not finite,
            or more than ``max_seconds``.
        AudioFileError: a missing, empty, truncated or damaged file, or no sound file.
    """
    if sampling_rate is not None:
        check_sampling_rate(sampling_rate)
    if channels is not None:
        check_channels(channels)
    samples, own_rate = read_audio(path, max_seconds)
    if channels is not None:
        samples = convert_channels(samples, channels)
    if sampling_rate is None:
        return samples
    return resample(samples, own_rate, sampling_rate)


def read_audio(
    path: AudioSource, max_seconds: float | None = None
) -> tuple[Float[np.ndarray, "channels samples"], int]:
    """The samples of a file as they are, (channels, samples) float32, and their sampling rate.

    Opus has no rate of its own: one of 8, 12, 16, 24 and 48 kHz is used, which is 48 kHz
    unless the file says that it was made from another of these.

    Raises:
        AudioError: samples that are not finite, or more than ``max_seconds``.
        AudioFileError: a missing, empty, truncated or damaged file, or no sound file.
    """
    with open_audio(path) as file:
        blocks = [block.T for block in _bounded(_blocks(file), file.samplerate, max_seconds)]
        samples = np.concatenate(blocks, axis=1)
        _check_length(path, file, samples.shape[1])
        check_finite(samples, source=source_name(path))
        return samples, file.samplerate


def audio_info(path: AudioSource) -> AudioInfo:
    """Length, rate and channels of a file, from its header where the header knows them.

    Only a FLAC or MP3 file that does not state its length is decoded, to count.

    Raises:
        AudioFileError: a missing, empty, truncated or damaged file, or no sound file.
    """
    with open_audio(path) as file:
        num_samples = file.frames
        if num_samples >= UNKNOWN_LENGTH:
            num_samples = sum(len(block) for block in _blocks(file))
        return AudioInfo(num_samples, file.samplerate, file.channels)


def source_name(source: AudioSource) -> str:
    """What messages call a file."""
    if isinstance(source, str | os.PathLike):
        return repr(os.fspath(source))
    return repr(getattr(source, "name", None) or "audio in memory")


@contextmanager
def open_audio(source: AudioSource) -> Iterator[ForwardFile]:
    """The file, after a look for damage; every complaint of libsndfile as an AudioFileError."""
    name = source_name(source)
    try:
        with _bytes_of(source) as (stream, size):
            if damage := find_damage(stream, size):
                raise AudioFileError(f"{name} is {damage}; get a whole copy, or encode it again")
        with _sound_file(source) as file:
            yield file
    except AudioFileError:
        raise
    # TypeError: soundfile wants to be told the rate of headerless files (.raw)
    except (soundfile.SoundFileError, OSError, TypeError) as problem:
        reason = " ".join(str(problem).rsplit(": ", 1)[-1].split())
        raise AudioFileError(
            f"{name} is damaged or not a wav, flac, ogg, opus or mp3 file ({reason})"
        ) from problem


@contextmanager
def _bytes_of(source: AudioSource) -> Iterator[tuple[BinaryIO, int]]:
    """A file's bytes from the start on, and their number; a file object keeps its position."""
    if isinstance(source, str | os.PathLike):
        size = require_file(source, error=AudioFileError)
        with Path(source).open("rb") as file:
            yield file, size
        return
    place = source.tell()
    size = source.seek(0, os.SEEK_END)
    if size == 0:
        raise AudioFileError(f"{source_name(source)} is empty (0 bytes); it must be written again")
    source.seek(0)
    yield source, size
    source.seek(place)


@contextmanager
def _sound_file(source: AudioSource) -> Iterator[ForwardFile]:
    if not isinstance(source, str | os.PathLike):
        source.seek(0)
    with ForwardFile(source) as file:
        if file.format != "MP3" or _is_tagged(source):
            yield file
            return
    # Without a tag the length is guessed from the first frame, and reading stops there. From
    # a pipe there is nothing to guess from, so the decoder goes on to the end.
    with _poured(source) as descriptor, ForwardFile(descriptor, closefd=False) as file:
        yield file


def _is_tagged(source: AudioSource) -> bool:
    with _bytes_of(source) as (stream, _):
        return has_length_tag(stream)


@contextmanager
def _poured(source: AudioSource) -> Iterator[int]:
    """The read end of a pipe that a thread fills with the bytes of a file."""
    reader, writer = os.pipe()

    problems: list[OSError] = []

    def pour() -> None:
        try:
            # The pipe comes first, so that it is closed when the file does not open.
            with os.fdopen(writer, "wb") as sink, _bytes_of(source) as (stream, _):
                shutil.copyfileobj(stream, sink)
        except BrokenPipeError:
            pass  # the reader has had enough
        except OSError as problem:
            problems.append(problem)

    thread = threading.Thread(target=pour, daemon=True)
    thread.start()
    try:
        yield reader
    finally:
        os.close(reader)
        thread.join()
    if problems:
        raise problems[0]


def _blocks(file: ForwardFile) -> Iterator[Float[np.ndarray, "samples channels"]]:
    """The rest of the file, piece by piece: declared lengths are not worth an allocation."""
    length = max(1, _BLOCK_VALUES // file.channels)
    while True:
        block = file.read(length, dtype="float32", always_2d=True)
        yield block
        if len(block) < length:
            return


def _bounded(
    blocks: Iterator[Float[np.ndarray, "samples channels"]], rate: int, max_seconds: float | None
) -> Iterator[Float[np.ndarray, "samples channels"]]:
    """The same blocks, as long as they are not too many: a small file can hold days of silence."""
    num_samples = 0
    for block in blocks:
        num_samples += len(block)
        if max_seconds is not None and num_samples > max_seconds * rate:
            raise AudioError(f"audio is longer than {max_seconds:g} s; cut it, or send it in parts")
        yield block


def _check_length(source: AudioSource, file: ForwardFile, num_samples: int) -> None:
    name = source_name(source)
    if num_samples < file.frames < UNKNOWN_LENGTH:
        raise AudioFileError(
            f"{name} is damaged: {num_samples} of its {file.frames} samples can be decoded; "
            "get a whole copy, or encode it again"
        )
    if num_samples == 0:
        raise AudioFileError(f"{name} holds no samples; expected at least one")
