"""Sound of containers that libsndfile cannot open (m4a, webm, wma, ...), decoded by FFmpeg.

Through PyAV where that is installed (the extra ``formats``), else by the program ``ffmpeg``. Both
get the name of the container, so that no file is taken for a playlist of other files.
"""

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import soundfile
from jaxtyping import Float

from ..errors import AudioFileError, one_line
from .containers import Kind

# Containers state lengths in coarse units, and encoders pad: less may be missing than this.
_TOLERANCE_SECONDS = 0.5
_BLOCK_VALUES = 1 << 18
_MAX_COMPLAINTS = 1 << 20

_Blocks = Iterator[Float[np.ndarray, "samples channels"]]


class FFmpegSound:
    """Sound that is decoded forward, block by block.

    Attributes:
        samplerate: samples a second.
        channels: channels.
        frames: samples of each channel; not known before all are decoded.
        format: name of the container.
        subtype: empty; libsndfile's streams have one.
    """

    frames = 1 << 62
    subtype = ""

    def __init__(self, name: str, samplerate: int, blocks: _Blocks, kind: Kind) -> None:
        self._name, self._blocks = name, blocks
        first = next(blocks, None)
        if first is None:
            raise AudioFileError(f"{name} holds no sound that can be decoded")
        self._first = first
        self.samplerate, self.channels, self.format = samplerate, first.shape[1], kind.name

    def blocks(self) -> _Blocks:
        """All samples, once."""
        yield self._first
        yield from self._blocks


@contextmanager
def open_with_ffmpeg(file: BinaryIO, name: str, kind: Kind) -> Iterator[FFmpegSound]:
    """Sound of a container that libsndfile does not read.

    Args:
        file: the file, open for reading, which can seek.
        name: name of the file in messages.
        kind: its container.

    Raises:
        AudioFileError: it cannot be decoded, or neither PyAV nor ffmpeg is installed.
    """
    file.seek(0)
    program = shutil.which("ffmpeg")
    if find_spec("av"):
        import av

        with _opened_by_av(av, file, name, kind) as sound:
            yield sound
        return
    if program is None:
        raise AudioFileError(
            f"{name} is {kind.name}, which needs FFmpeg: pip install "
            f"'moss-audio-tokenizer[formats]', or convert it first: ffmpeg -i {name} "
            f"{_converted(name)}"
        )
    with _opened_by_program(program, file, name, kind) as sound:
        yield sound


def _converted(name: str) -> str:
    return repr(Path(name.strip("'\"")).with_suffix(".flac").name)


@contextmanager
def _opened_by_av(av: Any, file: BinaryIO, name: str, kind: Kind) -> Iterator[FFmpegSound]:
    try:
        with av.open(file, format=kind.demuxer, metadata_errors="ignore") as container:
            stream = next(iter(container.streams.audio), None)
            if stream is None:
                raise AudioFileError(f"{name} is {kind.name} without a sound track")
            frames = _packed_frames(av, container, stream, name)
            first = next(frames, None)
            if first is None:
                raise AudioFileError(f"{name} holds no samples; expected at least one")
            blocks = (_samples(frame) for frame in chain([first], frames))
            yield FFmpegSound(name, first.sample_rate, blocks, kind)
    # ValueError: PyAV's, where rate or channels change within a stream
    except (av.error.FFmpegError, ValueError) as problem:
        if isinstance(problem, AudioFileError):
            raise
        raise AudioFileError(
            f"{name} is damaged, or not {kind.name} ({one_line(problem)}); get a whole copy"
        ) from problem


def _packed_frames(av: Any, container: Any, stream: Any, name: str) -> Iterator[Any]:
    """The frames of a stream as interleaved floats; the last of them says whether it was whole."""
    to_float = av.AudioResampler(format="flt")
    num_samples = rate = 0
    for frame in container.decode(stream):
        for packed in to_float.resample(frame):
            num_samples, rate = num_samples + packed.samples, packed.sample_rate
            yield packed
    for packed in to_float.resample(None):
        num_samples += packed.samples
        yield packed
    if rate:
        _refuse_cut(name, num_samples / rate, _stated_seconds(container, stream))


def _refuse_cut(name: str, seconds: float, stated: float) -> None:
    if seconds < stated - _TOLERANCE_SECONDS:
        raise AudioFileError(
            f"{name} is cut short: it has {seconds:.2f} of {stated:.2f} s; get a whole copy"
        )


def _stated_seconds(container: Any, stream: Any) -> float:
    """The length that a file states; 0 if it states none of its sound alone."""
    if stream.duration is not None and stream.time_base is not None:
        return float(stream.duration * stream.time_base)
    if container.duration is not None and len(container.streams) == 1:
        return float(container.duration / 1e6)
    return 0.0


def _samples(frame: Any) -> Float[np.ndarray, "samples channels"]:
    return np.asarray(frame.to_ndarray(), np.float32).reshape(-1, frame.layout.nb_channels)


@contextmanager
def _opened_by_program(
    program: str, file: BinaryIO, name: str, kind: Kind
) -> Iterator[FFmpegSound]:
    with _file_on_disk(file) as path, tempfile.TemporaryFile() as complaints:
        command: list[str | bytes] = [program, "-nostdin", "-hide_banner", "-nostats", "-xerror"]
        command += ["-v", "level+info"]
        command += ["-protocol_whitelist", "file,pipe", "-f", kind.demuxer, "-i", b"file:" + path]
        # AU has no limit of length; that of WAV is 4 GiB.
        command += ["-map", "0:a:0", "-c:a", "pcm_f32be", "-f", "au", "pipe:1"]
        process = subprocess.Popen(  # noqa: S603 - the program that the user installed
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=complaints
        )
        output: Any = process.stdout
        with process, output:
            try:
                sound = soundfile.SoundFile(output.fileno(), closefd=False)
                blocks = _blocks_of(sound, process, complaints, name)
                yield FFmpegSound(name, sound.samplerate, blocks, kind)
            except soundfile.SoundFileError as problem:
                process.wait()
                raise _failure(complaints, name) from problem
            finally:
                process.kill()


def _blocks_of(
    sound: soundfile.SoundFile, process: "subprocess.Popen[bytes]", complaints: Any, name: str
) -> _Blocks:
    size, num_samples = max(1, _BLOCK_VALUES // sound.channels), 0
    while len(block := sound.read(size, dtype="float32", always_2d=True)):
        num_samples += len(block)
        yield block
    if process.wait():
        raise _failure(complaints, name)
    _refuse_cut(name, num_samples / sound.samplerate, _printed_seconds(_lines(complaints)))


def _lines(complaints: Any) -> list[str]:
    complaints.seek(0)
    return complaints.read(_MAX_COMPLAINTS).decode(errors="replace").splitlines()


def _failure(complaints: Any, name: str) -> AudioFileError:
    lines = [line for line in _lines(complaints) if line.strip()]
    errors = [line for line in lines if "[error]" in line or "[fatal]" in line] or lines
    reason = errors[-1].strip() if errors else "it has no sound"
    return AudioFileError(f"{name} cannot be decoded by ffmpeg ({reason}); get a whole copy")


def _printed_seconds(lines: list[str]) -> float:
    """The length that ffmpeg prints of its input; 0 if it has none, or other streams than sound."""
    seconds, num_streams = 0.0, 0
    for line in lines:
        if "Output #0" in line:
            break
        num_streams += "Stream #0:" in line and " -> " not in line
        found = re.search(r"Duration: (\d+):(\d\d):(\d\d\.\d+)", line)
        if found:
            seconds = int(found[1]) * 3600 + int(found[2]) * 60 + float(found[3])
    return seconds if num_streams == 1 else 0.0


@contextmanager
def _file_on_disk(file: BinaryIO) -> Iterator[bytes]:
    """The path of a file, or of a temporary copy of one that is in memory."""
    path = getattr(file, "name", None)
    if isinstance(path, str | bytes) and os.path.isfile(path):  # noqa: PTH113 - it may be bytes
        yield os.fsencode(os.path.abspath(path))  # noqa: PTH100 - the same
        return
    with tempfile.NamedTemporaryFile(prefix="moss-audio-") as copy:
        shutil.copyfileobj(file, copy)
        copy.flush()
        yield os.fsencode(copy.name)
