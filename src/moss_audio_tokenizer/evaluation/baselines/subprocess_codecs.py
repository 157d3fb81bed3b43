"""Classic codecs run as external programs: Opus, Speex, Codec2, MP3 and AAC, in mono.

Each clip is written as a WAV or raw file, encoded, decoded and read back. The counted bits are
those of the audio alone: Ogg pages, comment headers and ADTS headers are left out (an Ogg page
costs 27 bytes and more, a tenth of a short clip at 6 kbps); MP3 frames count in full, because
their headers hold what decoding needs.
"""

import shutil
import subprocess
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from jaxtyping import Float

from ...audio import load_audio, save_audio
from ...errors import EvaluationError, InputError, MissingDependencyError
from ..codecs import CodedClip

# Bits and milliseconds of a frame; the file rounds each frame up to whole bytes.
_CODEC2_MODES = {
    "3200": (64, 20),
    "2400": (48, 20),
    "1600": (64, 40),
    "1400": (56, 40),
    "1300": (52, 40),
    "1200": (48, 40),
    "700C": (28, 40),
    "450": (18, 40),
}
# Opus and Speex begin with a packet of setup and one of comments.
_OGG_HEADERS = 2


class _Classic(ABC):
    """A codec of two program runs between files."""

    num_channels = 1
    quantizer_counts: tuple[int | None, ...] = (None,)
    codebook_size = 0

    def __init__(self, name: str, kbps: float, sampling_rate: int, identity: str) -> None:
        self.name, self.nominal_kbps = name, kbps
        self.sampling_rate, self.identity = sampling_rate, identity

    def code(self, audio: Float[np.ndarray, "channels samples"]) -> Sequence[CodedClip]:
        """The clip through the encoder and the decoder program."""
        with tempfile.TemporaryDirectory(prefix="moss-audio-") as folder:
            decoded, num_bits = self._through_files(audio, Path(folder))
        return [CodedClip(None, self.nominal_kbps, num_bits, decoded)]

    @abstractmethod
    def _through_files(self, audio: np.ndarray, folder: Path) -> tuple[np.ndarray, int]:
        """Decoded audio, and the bits it was decoded from."""

    def _wav(self, audio: np.ndarray, folder: Path) -> str:
        path = folder / "original.wav"
        save_audio(path, audio, self.sampling_rate)
        return str(path)

    def _read(self, path: Path) -> np.ndarray:
        return load_audio(path, self.sampling_rate, 1)


def _ogg_bits(path: Path) -> int:
    return 8 * sum(ogg_packet_sizes(path.read_bytes())[_OGG_HEADERS:])


class OpusCodec(_Classic):
    """Opus by opusenc and opusdec, variable bitrate, which is their default.

    Decoded at 24 kHz below 16 kbps, where Opus keeps nothing above 12 kHz, else at 48 kHz.
    """

    def __init__(self, name: str, kbps: float) -> None:
        self._encoder = find_program("opusenc", "opus-tools")
        self._decoder = find_program("opusdec", "opus-tools")
        if not 6 <= kbps <= 256:
            raise InputError(f"--codec {name!r}: Opus takes 6 to 256 kbps for a channel")
        version = program_version(self._encoder, "--version")
        super().__init__(name, kbps, 24_000 if kbps < 16 else 48_000, version)

    def _through_files(self, audio: np.ndarray, folder: Path) -> tuple[np.ndarray, int]:
        coded, decoded = folder / "coded.opus", folder / "decoded.wav"
        bare = ["--quiet", "--discard-comments", "--discard-pictures", "--padding", "0"]
        rate = ["--bitrate", f"{self.nominal_kbps:g}"]
        run_program([self._encoder, *bare, *rate, self._wav(audio, folder), str(coded)])
        back = ["--quiet", "--rate", str(self.sampling_rate), "--force-wav"]
        run_program([self._decoder, *back, str(coded), str(decoded)])
        return self._read(decoded), _ogg_bits(coded)


class SpeexCodec(_Classic):
    """Speex wide-band (16 kHz) by speexenc and speexdec: the mode at or below a bitrate."""

    def __init__(self, name: str, kbps: float) -> None:
        self._encoder = find_program("speexenc", "speex")
        self._decoder = find_program("speexdec", "speex")
        if not 4 <= kbps <= 42.2:
            raise InputError(f"--codec {name!r}: wide-band Speex takes 4 to 42.2 kbps")
        super().__init__(name, kbps, 16_000, program_version(self._encoder, "--version"))

    def _through_files(self, audio: np.ndarray, folder: Path) -> tuple[np.ndarray, int]:
        coded, decoded = folder / "coded.spx", folder / "decoded.wav"
        rate = ["--wideband", "--bitrate", str(round(1000 * self.nominal_kbps))]
        run_program([self._encoder, *rate, self._wav(audio, folder), str(coded)])
        run_program([self._decoder, str(coded), str(decoded)])
        return self._read(decoded), _ogg_bits(coded)


class Codec2(_Classic):
    """Codec2 by c2enc and c2dec: speech at 8 kHz, raw frames without a header."""

    def __init__(self, name: str, mode: str) -> None:
        self._encoder = find_program("c2enc", "codec2")
        self._decoder = find_program("c2dec", "codec2")
        if mode not in _CODEC2_MODES:
            raise InputError(
                f"--codec {name!r}: got mode {mode!r}; expected one of {', '.join(_CODEC2_MODES)}"
            )
        self._mode, (self._frame_bits, milliseconds) = mode, _CODEC2_MODES[mode]
        self._frame_samples = 8 * milliseconds
        super().__init__(name, self._frame_bits / milliseconds, 8_000, f"codec2 {mode}")

    def _through_files(self, audio: np.ndarray, folder: Path) -> tuple[np.ndarray, int]:
        source, coded, decoded = (folder / name for name in ("source", "coded", "decoded"))
        # Zeros behind, for an incomplete last frame would be dropped.
        num_frames = -(-audio.shape[1] // self._frame_samples)
        padded = np.pad(audio[0], (0, num_frames * self._frame_samples - audio.shape[1]))
        source.write_bytes(np.clip(np.rint(padded * 32768), -32768, 32767).astype("<i2").tobytes())
        run_program([self._encoder, self._mode, str(source), str(coded)])
        run_program([self._decoder, self._mode, str(coded), str(decoded)])
        samples = np.frombuffer(decoded.read_bytes(), "<i2").astype(np.float32) / 32768
        return samples[None], num_frames * self._frame_bits


class _ThroughFfmpeg(_Classic):
    """A codec of ffmpeg's, at a sampling rate that suits its bitrate."""

    suffix = ""
    encoder = ""

    def __init__(self, name: str, kbps: float) -> None:
        self._program = find_program("ffmpeg", "ffmpeg")
        if not 8 <= kbps <= 320:
            raise InputError(f"--codec {name!r}: {self.encoder} takes 8 to 320 kbps")
        rate = 16_000 if kbps <= 24 else 24_000 if kbps <= 48 else 44_100
        version = program_version(self._program, "-version").split(" Copyright")[0]
        super().__init__(name, kbps, rate, f"{version}, {self.encoder}")

    def _through_files(self, audio: np.ndarray, folder: Path) -> tuple[np.ndarray, int]:
        coded, decoded = folder / f"coded.{self.suffix}", folder / "decoded.wav"
        quiet = ["-hide_banner", "-loglevel", "error", "-nostdin", "-y"]
        rate = ["-c:a", self.encoder, "-b:a", f"{round(1000 * self.nominal_kbps)}"]
        bare = ["-map_metadata", "-1", "-write_xing", "0", "-id3v2_version", "0"]
        bare = bare if self.suffix == "mp3" else bare[:2]
        source = self._wav(audio, folder)
        run_program([self._program, *quiet, "-i", source, *rate, *bare, str(coded)])
        # Named, because a single frame is too little for ffmpeg to guess the format from.
        back = ["-f", self.suffix, "-i", str(coded), "-c:a", "pcm_f32le", str(decoded)]
        run_program([self._program, *quiet, *back])
        return self._read(decoded), 8 * self._num_bytes(coded.read_bytes())

    @abstractmethod
    def _num_bytes(self, content: bytes) -> int:
        """Bytes that count."""


class Mp3Codec(_ThroughFfmpeg):
    """MP3 by LAME, constant bitrate."""

    suffix, encoder = "mp3", "libmp3lame"

    def _num_bytes(self, content: bytes) -> int:
        return len(content)


class AacCodec(_ThroughFfmpeg):
    """AAC-LC by ffmpeg's own encoder."""

    suffix, encoder = "aac", "aac"

    def _num_bytes(self, content: bytes) -> int:
        return adts_payload_bytes(content)


_SECONDS = 600
_VERSION_SECONDS = 20
_LINES = 2


def find_program(name: str, package: str) -> str:
    """The path of a program.

    Raises:
        MissingDependencyError: it is not installed; the message names its Debian package.
    """
    path = shutil.which(name)
    if path is None:
        raise MissingDependencyError(
            f"the program {name} is not installed (on Debian and Ubuntu: apt install {package})"
        )
    return path


def run_program(arguments: Sequence[str]) -> None:
    """Run a program to its end.

    Raises:
        EvaluationError: it failed, or took longer than ten minutes.
    """
    try:
        # The arguments are this package's own, never a shell's line.
        done = subprocess.run(  # noqa: S603
            arguments, capture_output=True, timeout=_SECONDS, stdin=subprocess.DEVNULL
        )
    except subprocess.TimeoutExpired as error:
        raise EvaluationError(f"{arguments[0]} took over {_SECONDS} s and was stopped") from error
    if done.returncode != 0:
        said = (done.stderr or done.stdout).decode("utf-8", "replace").strip().splitlines()
        reason = "; ".join(said[-_LINES:]) or "no message"
        raise EvaluationError(f"{arguments[0]} ended with status {done.returncode}: {reason}")


@lru_cache(maxsize=16)
def program_version(path: str, option: str) -> str:
    """The first line that a program says about itself; "" where it says nothing.

    Raises:
        MissingDependencyError: it does not end.
    """
    try:
        done = subprocess.run(  # noqa: S603
            [path, option],
            capture_output=True,
            timeout=_VERSION_SECONDS,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired as error:
        raise MissingDependencyError(
            f"{path} {option} took over {_VERSION_SECONDS} s and was stopped; reinstall it"
        ) from error
    lines = (done.stdout or done.stderr).decode("utf-8", "replace").strip().splitlines()
    return " ".join(lines[0].split()) if lines else ""


_PAGE_HEADER = 27
_ADTS_SYNC = 0xFFF0


def ogg_packet_sizes(content: bytes) -> list[int]:
    """Sizes in bytes of the packets of an Ogg file with one stream, headers included.

    Source: RFC 3533, section 6.

    Raises:
        EvaluationError: the content is not an Ogg file, or it is truncated.
    """
    sizes, pending = [], 0
    for lacing in _lacing_values(content):
        pending += lacing
        if lacing < 255:
            sizes.append(pending)
            pending = 0
    return sizes


def _lacing_values(content: bytes) -> Iterator[int]:
    position = 0
    while position < len(content):
        header = content[position : position + _PAGE_HEADER]
        if len(header) < _PAGE_HEADER or header[:4] != b"OggS":
            raise EvaluationError(f"byte {position} of an encoder's output begins no Ogg page")
        table = content[position + _PAGE_HEADER :][: header[26]]
        yield from table
        position += _PAGE_HEADER + len(table) + sum(table)


def adts_payload_bytes(content: bytes) -> int:
    """Bytes of the AAC frames in an ADTS stream, without the header of each.

    Source: ISO/IEC 13818-7, 6.2.

    Raises:
        EvaluationError: the content is not an ADTS stream, or it is truncated.
    """
    total, position = 0, 0
    while position < len(content):
        head = content[position : position + 7]
        if len(head) < 7 or (head[0] << 8 | head[1]) & _ADTS_SYNC != _ADTS_SYNC:
            raise EvaluationError(f"byte {position} of an encoder's output begins no ADTS frame")
        length = (head[3] & 3) << 11 | head[4] << 3 | head[5] >> 5
        header = 7 if head[1] & 1 else 9
        if length <= header:
            raise EvaluationError(f"the ADTS frame at byte {position} is {length} bytes long")
        total += length - header
        position += length
    return total
