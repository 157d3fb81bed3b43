"""The kind of a sound file, recognized by its first bytes.

Owns the kinds of sound files that libsndfile may open, and those that take FFmpeg. The list is
closed: what is on neither is refused before any decoder sees it. It decodes nothing.
"""

from dataclasses import dataclass
from typing import BinaryIO

# Endings that say "sound": files with another one are not taken for sound in folders and tars.
SNDFILE_SUFFIXES = ("flac", "wav", "ogg", "opus", "mp3", "aiff", "aif", "aifc", "au", "caf", "w64")
FFMPEG_SUFFIXES = (
    *("m4a", "aac", "mp4", "m4b", "mov", "3gp", "webm", "mka", "mkv", "wma", "asf", "amr"),
    *("oga", "ogv", "spx"),
)
SOUND_SUFFIXES = SNDFILE_SUFFIXES + FFMPEG_SUFFIXES

_W64 = b"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\x00\x00"
ASF_START = b"\x30\x26\xb2\x75\x8e\x66\xcf\x11"
_MP4_BOXES = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip")
_OGG_CODECS = {b"\x7fFLAC": "Ogg FLAC", b"Speex   ": "Ogg Speex", b"\x80theora": "Ogg video"}
_HEAD_BYTES = 64


@dataclass(frozen=True)
class Kind:
    """A kind of sound file.

    Attributes:
        name: what messages call it.
        demuxer: FFmpeg's name of its container; empty for what libsndfile reads.
    """

    name: str
    demuxer: str = ""


def kind_of(file: BinaryIO) -> Kind | None:
    """The kind of a file by its first bytes; None if it is not a known kind of sound.

    Args:
        file: open for reading; its position is moved.

    Raises:
        OSError: the file cannot be read.
    """
    file.seek(0)
    head = file.read(_HEAD_BYTES)
    return _sndfile_kind(head) or _ffmpeg_kind(head)


def _sndfile_kind(head: bytes) -> Kind | None:
    if head[:4] == b"OggS":
        codec = next((name for mark, name in _OGG_CODECS.items() if mark in head[27:64]), "")
        return Kind(codec, "ogg") if codec else Kind("Ogg")
    if head[:4] in (b"RIFF", b"RIFX", b"RF64") and head[8:12] == b"WAVE":
        return Kind("WAV")
    if head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"):
        return Kind("AIFF")
    starts = {b"fLaC": "FLAC", b".snd": "AU", b"caff": "CAF", _W64: "W64", b"ID3": "MP3"}
    name = next((name for mark, name in starts.items() if head.startswith(mark)), "")
    return Kind(name or "MP3") if name or _is_mp3_frame(head) else None


def _ffmpeg_kind(head: bytes) -> Kind | None:
    if head[4:8] in _MP4_BOXES:
        return Kind("MP4 (m4a, mp4, mov)", "mov")
    if head[:4] == b"\x1a\x45\xdf\xa3":
        return Kind("Matroska (webm, mka)", "matroska")
    if head[:8] == ASF_START:
        return Kind("ASF (wma)", "asf")
    if head[:5] == b"#!AMR":
        return Kind("AMR", "amr")
    if _has_mpeg_sync(head) and head[1] & 0xF6 == 0xF0:
        return Kind("AAC (ADTS)", "aac")
    return None


def _is_mp3_frame(head: bytes) -> bool:
    """Whether a header says a layer, a bitrate and a sampling rate that exist."""
    if len(head) < 4 or not _has_mpeg_sync(head) or not head[1] & 0x06:
        return False
    return head[2] >> 4 != 15 and head[2] >> 2 & 3 != 3


def _has_mpeg_sync(head: bytes) -> bool:
    return len(head) > 1 and head[0] == 0xFF and head[1] & 0xE0 == 0xE0
