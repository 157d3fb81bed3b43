"""Classic codecs run as external programs: Opus, Speex, Codec2, MP3 and AAC, in mono.

Each clip is written as a WAV or raw file, encoded, decoded and read back. The counted bits are
those of the audio alone: Ogg pages, comment headers and ADTS headers are left out (an Ogg page
costs 27 bytes and more, a tenth of a short clip at 6 kbps); MP3 frames count in full, because
their headers hold what decoding needs.
"""

import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from jaxtyping import Float

from ...audio import load_audio, save_audio
from ...errors import EvaluationError, InputError, MissingDependencyError
from ..codecs import CodedClip, EvaluatedCodec

# Bits and milliseconds of a frame; the file rounds each frame up to whole bytes.
_CODEC2_MODES = {"3200": (64, 20), "2400": (48, 20), "1600": (64, 40), "1400": (56, 40)}
_CODEC2_MODES |= {"1300": (52, 40), "1200": (48, 40), "700C": (28, 40), "450": (18, 40)}
# Opus and Speex begin with a packet of setup and one of comments.
_OGG_HEADERS = 2
_PAGE_HEADER = 27
_ADTS_SYNC = 0xFFF0

_SECONDS = 600
_VERSION_SECONDS = 20
_LINES = 2

Run = Callable[[np.ndarray, Path], tuple[np.ndarray, int]]
"""(audio, empty folder) -> decoded audio, and the bits that it was decoded from."""


@dataclass
class SubprocessCodec:
    """A codec of two program runs between files, as an `EvaluatedCodec`."""

    name: str
    identity: str
    sampling_rate: int
    nominal_kbps: float
    run: Run
    num_channels: int = 1
    quantizer_counts: tuple[int | None, ...] = (None,)
    codebook_size: int = 0

    def code(self, audio: Float[np.ndarray, "channels samples"]) -> Sequence[CodedClip]:
        """The clip through the encoder and the decoder program."""
        with tempfile.TemporaryDirectory(prefix="moss-audio-") as folder:
            decoded, num_bits = self.run(audio, Path(folder))
        return [CodedClip(None, self.nominal_kbps, num_bits, decoded)]


def open_opus(name: str, value: str) -> EvaluatedCodec:
    """Opus by opusenc and opusdec, variable bitrate, which is their default.

    Decoded at 24 kHz below 16 kbps, where Opus keeps nothing above 12 kHz, else at 48 kHz.
    """
    kbps = _kbps(name, value, 6, 256)
    encoder, decoder = (find_program(one, "opus-tools") for one in ("opusenc", "opusdec"))
    rate = 24_000 if kbps < 16 else 48_000
    bare = ["--quiet", "--discard-comments", "--discard-pictures", "--padding", "0"]
    encode = [encoder, *bare, "--bitrate", f"{kbps:g}", "SOURCE", "CODED.opus"]
    decode = [decoder, "--quiet", "--rate", str(rate), "--force-wav", "CODED.opus", "DECODED"]
    run = _between_wavs(rate, encode, decode, _ogg_bytes)
    return SubprocessCodec(name, program_version(encoder, "--version"), rate, kbps, run)


def open_speex(name: str, value: str) -> EvaluatedCodec:
    """Speex wide-band (16 kHz) by speexenc and speexdec: the mode at or below a bitrate."""
    kbps = _kbps(name, value, 4, 42.2)
    encoder, decoder = (find_program(one, "speex") for one in ("speexenc", "speexdec"))
    rate = ["--wideband", "--bitrate", str(round(1000 * kbps))]
    encode = [encoder, *rate, "SOURCE", "CODED.spx"]
    run = _between_wavs(16_000, encode, [decoder, "CODED.spx", "DECODED"], _ogg_bytes)
    return SubprocessCodec(name, program_version(encoder, "--version"), 16_000, kbps, run)


def open_mp3(name: str, value: str) -> EvaluatedCodec:
    """MP3 by LAME, constant bitrate."""
    return _through_ffmpeg(name, value, "libmp3lame", "mp3", len)


def open_aac(name: str, value: str) -> EvaluatedCodec:
    """AAC-LC by ffmpeg's own encoder."""
    return _through_ffmpeg(name, value, "aac", "aac", adts_payload_bytes)


def _through_ffmpeg(
    name: str, value: str, encoder: str, suffix: str, count_bytes: Callable[[bytes], int]
) -> EvaluatedCodec:
    """A codec of ffmpeg's, at a sampling rate that suits its bitrate."""
    kbps = _kbps(name, value, 8, 320)
    program = find_program("ffmpeg", "ffmpeg")
    rate = 16_000 if kbps <= 24 else 24_000 if kbps <= 48 else 44_100
    quiet = [program, "-hide_banner", "-loglevel", "error", "-nostdin", "-y"]
    settings = ["-c:a", encoder, "-b:a", f"{round(1000 * kbps)}", "-map_metadata", "-1"]
    if suffix == "mp3":
        settings += ["-write_xing", "0", "-id3v2_version", "0"]
    coded = f"CODED.{suffix}"
    # The format is named, because a single frame is too little for ffmpeg to guess it from.
    decode = [*quiet, "-f", suffix, "-i", coded, "-c:a", "pcm_f32le", "DECODED"]
    run = _between_wavs(rate, [*quiet, "-i", "SOURCE", *settings, coded], decode, count_bytes)
    version = program_version(program, "-version").split(" Copyright")[0]
    return SubprocessCodec(name, f"{version}, {encoder}", rate, kbps, run)


def open_codec2(name: str, mode: str) -> EvaluatedCodec:
    """Codec2 by c2enc and c2dec: speech at 8 kHz, raw frames without a header."""
    if mode not in _CODEC2_MODES:
        raise InputError(
            f"--codec {name!r}: got mode {mode!r}; expected one of {', '.join(_CODEC2_MODES)}"
        )
    encoder, decoder = (find_program(one, "codec2") for one in ("c2enc", "c2dec"))
    frame_bits, milliseconds = _CODEC2_MODES[mode]
    frame_samples = 8 * milliseconds

    def run(audio: np.ndarray, folder: Path) -> tuple[np.ndarray, int]:
        source, coded, decoded = (folder / one for one in ("source", "coded", "decoded"))
        # Zeros behind, for an incomplete last frame would be dropped.
        num_frames = -(-audio.shape[1] // frame_samples)
        padded = np.pad(audio[0], (0, num_frames * frame_samples - audio.shape[1]))
        source.write_bytes(np.clip(np.rint(padded * 32768), -32768, 32767).astype("<i2").tobytes())
        run_program([encoder, mode, str(source), str(coded)])
        run_program([decoder, mode, str(coded), str(decoded)])
        samples = np.frombuffer(decoded.read_bytes(), "<i2").astype(np.float32) / 32768
        return samples[None], num_frames * frame_bits

    return SubprocessCodec(name, f"codec2 {mode}", 8_000, frame_bits / milliseconds, run)


def _kbps(name: str, text: str, lowest: float, highest: float) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not lowest <= value <= highest:
        raise InputError(
            f"--codec {name!r}: got {text!r}; expected {lowest:g} to {highest:g} kilobits a second"
        )
    return value


def _between_wavs(
    rate: int, encode: list[str], decode: list[str], count_bytes: Callable[[bytes], int]
) -> Run:
    """Two commands, in which SOURCE, CODED.suffix and DECODED stand for files of the folder."""

    def run(audio: np.ndarray, folder: Path) -> tuple[np.ndarray, int]:
        coded = next(word for word in encode if word.startswith("CODED"))
        files = {"SOURCE": folder / "source.wav", "DECODED": folder / "decoded.wav"}
        files[coded] = folder / coded
        save_audio(files["SOURCE"], audio, rate)
        for command in (encode, decode):
            run_program([str(files.get(word, word)) for word in command])
        num_bits = 8 * count_bytes(files[coded].read_bytes())
        return load_audio(files["DECODED"], rate, 1), num_bits

    return run


def _ogg_bytes(content: bytes) -> int:
    return sum(ogg_packet_sizes(content)[_OGG_HEADERS:])


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
        done = _run(arguments, _SECONDS)
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
        done = _run([path, option], _VERSION_SECONDS)
    except subprocess.TimeoutExpired as error:
        raise MissingDependencyError(
            f"{path} {option} took over {_VERSION_SECONDS} s and was stopped; reinstall it"
        ) from error
    lines = (done.stdout or done.stderr).decode("utf-8", "replace").strip().splitlines()
    return " ".join(lines[0].split()) if lines else ""


def _run(arguments: Sequence[str], seconds: float) -> "subprocess.CompletedProcess[bytes]":
    # The arguments are this package's own, never a shell's line.
    return subprocess.run(  # noqa: S603
        arguments, capture_output=True, timeout=seconds, stdin=subprocess.DEVNULL
    )


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
