"""Classic codecs by their real programs: Opus, Speex, Codec2, MP3 and AAC, in mono.

Each clip is written as a WAV or raw file, coded, decoded and read back. The bits are those of
the sound alone: Ogg pages, comment headers and ADTS headers are not counted; MP3 frames are
counted whole, for their headers hold what decoding needs.
"""

import tempfile
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from ...audio import load_audio, save_audio
from ...errors import InputError
from ..contenders import Coding
from .payload import adts_payload_bytes, ogg_packet_sizes
from .programs import find_program, program_version, run_program

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
    depths: tuple[int | None, ...] = (None,)
    codebook_size = 0

    def __init__(self, name: str, kbps: float, sampling_rate: int, identity: str) -> None:
        self.name, self.nominal_kbps = name, kbps
        self.sampling_rate, self.identity = sampling_rate, identity

    def code(self, audio: Float[np.ndarray, "channels samples"]) -> Sequence[Coding]:
        """See `Contender.code`."""
        with tempfile.TemporaryDirectory(prefix="moss-audio-") as folder:
            decoded, num_bits = self._through_files(audio, Path(folder))
        return [Coding(None, self.nominal_kbps, num_bits, decoded)]

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
