"""Containers of sound: their kind by the first bytes, and signs that one was cut or altered.

The list of kinds is closed: libsndfile may open some, FFmpeg others, and what is on neither is
refused before any decoder sees it. libsndfile plays what is left of a truncated WAV, Ogg or MP3
file without a word, skips Ogg pages whose checksum is wrong, and reads only the first of several
joined streams. So the sizes, checksums and streams that such files declare are compared with what
is there; FLAC needs no help, its decoder complains. It decodes nothing.
"""

import struct
import zlib
from dataclasses import dataclass
from typing import BinaryIO

from .mpeg import mp3_links

# Endings that say "sound": files with another one are not taken for sound in folders and tars.
SNDFILE_SUFFIXES = ("flac", "wav", "ogg", "opus", "mp3", "aiff", "aif", "aifc", "au", "caf", "w64")
FFMPEG_SUFFIXES = (
    *("m4a", "aac", "mp4", "m4b", "mov", "3gp", "webm", "mka", "mkv", "wma", "asf", "amr"),
    *("oga", "ogv", "spx"),
)
SOUND_SUFFIXES = SNDFILE_SUFFIXES + FFMPEG_SUFFIXES

_W64 = b"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\x00\x00"
_ASF = b"\x30\x26\xb2\x75\x8e\x66\xcf\x11"
_MP4_BOXES = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip")
_OGG_CODECS = {b"\x7fFLAC": "Ogg FLAC", b"Speex   ": "Ogg Speex", b"\x80theora": "Ogg video"}
_HEAD_BYTES = 64
# Writers to a pipe cannot know the size: ffmpeg puts 0xFFFFFFFF, sox and others about 2 GiB.
_UNKNOWN_SIZE = 0x7FFF0000
# Head of a chunk of Sony Wave64.
_W64_LAYOUT = "<16sQ"

# Flags of the pages that begin and end a stream (RFC 3533).
_OGG_BEGIN, _OGG_END = 2, 4

_ASF_FILE_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")

_REVERSED_BITS = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


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
    if head[:8] == _ASF:
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


@dataclass(frozen=True)
class Contents:
    """What the bookkeeping of a file says.

    Attributes:
        links: (first byte, bytes) of every stream that can be decoded by itself; of joined files
            there are several.
        damage: what is wrong with the file, in a few words; None when nothing can be seen.
        num_parallel: streams that run at the same time, as in a film.
    """

    links: tuple[tuple[int, int], ...]
    damage: str | None = None
    num_parallel: int = 1


def examine(file: BinaryIO, size: int) -> Contents:
    """Compare what a file declares with what is there.

    Args:
        file: open for reading; its position is moved.
        size: its size in bytes.

    Raises:
        OSError: the file cannot be read.
    """
    file.seek(0)
    start = file.read(16)
    whole = ((0, size),)
    if start[:4] == b"OggS":
        return _examine_ogg(file, size)
    if start[:4] == b"RF64":
        return Contents(whole, _rf64_damage(file, size))
    if start[:4] == b"riff":
        return Contents(whole, _chunk_damage(file, size, 40, b"data", _W64_LAYOUT, padding=8))
    if start[:4] == b"RIFF" and start[8:12] == b"WAVE":
        return Contents(whole, _chunk_damage(file, size, 12, b"data", "<4sI"))
    if start[:4] == b"FORM" and start[8:11] == b"AIF":
        return Contents(whole, _chunk_damage(file, size, 12, b"SSND", ">4sI"))
    if start[:4] == b"caff":
        return Contents(whole, _chunk_damage(file, size, 8, b"data", ">4sQ", padding=1))
    if start[:4] == b".snd":
        return Contents(whole, _au_damage(start, size))
    if start[:8] == _ASF:
        return Contents(whole, _asf_damage(file, size))
    if start[4:8] == b"ftyp":
        return Contents(whole, _mp4_damage(file, size))
    links, damage = mp3_links(file, size)
    return Contents(links or whole, damage)


def _chunk_damage(
    file: BinaryIO,
    size: int,
    first: int,
    wanted: bytes,
    layout: str,
    padding: int = 2,
    promised: int | None = None,
) -> str | None:
    """Compare the length of the chunk of samples with what is left of the file."""
    head_size = struct.calcsize(layout)
    file.seek(first)
    while len(head := file.read(head_size)) == head_size:
        name, length = struct.unpack(layout, head)
        length -= head_size if layout == _W64_LAYOUT else 0  # in W64 alone it includes the head
        if name[:4] == wanted:
            wide = promised is not None or layout == _W64_LAYOUT
            length = length if promised is None else promised
            return _cut_short(size - file.tell(), length, 1 << 62 if wide else _UNKNOWN_SIZE)
        if length < 0:
            return None
        file.seek(min(file.tell() + -(-length // padding) * padding, size))
    return None


def _cut_short(left: int, length: int, unknown: int = _UNKNOWN_SIZE) -> str | None:
    if left < length < unknown:
        return f"cut short: {left} bytes of samples where its header promises {length}"
    return None


def _rf64_damage(file: BinaryIO, size: int) -> str | None:
    """As WAV; the length of the samples is in a chunk of its own, in 8 bytes (EBU Tech 3306)."""
    file.seek(12)
    chunk = file.read(24)
    if chunk[:4] != b"ds64" or len(chunk) < 24:
        return None
    promised = int.from_bytes(chunk[16:24], "little")
    return _chunk_damage(file, size, 12, b"data", "<4sI", promised=promised)


def _asf_damage(file: BinaryIO, size: int) -> str | None:
    """Compare the size of a file with what the file properties of its header say (ASF, 3.2)."""
    file.seek(0)
    header = file.read(1 << 16)
    position = header.find(_ASF_FILE_PROPERTIES)
    if position < 0 or len(header) < position + 92:
        return None
    promised = int.from_bytes(header[position + 40 : position + 48], "little")
    is_broadcast = header[position + 88] & 1
    if is_broadcast or not size < promised < 1 << 62:
        return None
    return f"cut short: it has {size} of {promised} bytes"


def _au_damage(start: bytes, size: int) -> str | None:
    offset, length = struct.unpack(">II", start[4:12]) if len(start) >= 12 else (0, 0)
    return _cut_short(size - offset, length)


def _mp4_damage(file: BinaryIO, size: int) -> str | None:
    """Check the boxes of an MP4 file: the last must be complete, and there must be one movie."""
    position = num_movies = 0
    while position + 8 <= size:
        file.seek(position)
        length, name = struct.unpack(">I4s", file.read(8))
        if length == 1:
            length = int.from_bytes(file.read(8), "big")
        num_movies += name == b"moov"
        if length == 0:  # to the end of the file
            break
        if length < 8:
            return None  # the decoder has its own opinion of such boxes
        position += length
    if position > size:
        return f"cut short: its last part has {size - position + length} of {length} bytes"
    if num_movies > 1:
        return f"{num_movies} files joined into one, of which only the first would be read"
    return None


@dataclass
class _OggLink:
    """A link of a chain of Ogg streams: where it begins, and the streams that are open in it."""

    first: int
    serials: set[bytes]
    has_data: bool = False
    num_streams: int = 1


def _examine_ogg(file: BinaryIO, size: int) -> Contents:
    links: list[_OggLink] = []
    number = position = 0
    file.seek(0)
    while header := file.read(27):
        number += 1
        page, damage = _ogg_page(file, header, number)
        if damage:
            return Contents(((0, size),), damage)
        serial = header[14:18]
        if not header[5] & _OGG_BEGIN:
            for link in links[-1:]:
                link.has_data = True
        elif links and not links[-1].has_data and serial not in links[-1].serials:
            links[-1].serials.add(serial)
            links[-1].num_streams += 1
        elif links and links[-1].serials:
            return Contents(
                ((0, size),), f"cut short behind Ogg page {number - 1}, where another file begins"
            )
        else:
            links.append(_OggLink(position, {serial}))
        if links and header[5] & _OGG_END:
            links[-1].serials.discard(serial)
        position += len(page)
    if not links or links[-1].serials:
        return Contents(((0, size),), f"cut short behind Ogg page {number}, which is not the last")
    ends = [link.first for link in links[1:]] + [size]
    parts = [(link.first, end - link.first) for link, end in zip(links, ends, strict=True)]
    return Contents(tuple(parts), num_parallel=max(link.num_streams for link in links))


def _ogg_page(file: BinaryIO, header: bytes, number: int) -> tuple[bytes, str | None]:
    """The rest of a page, checked against its checksum."""
    if header[:4] != b"OggS":
        return b"", f"altered: Ogg page {number} does not start where page {number - 1} ends"
    lacing = file.read(header[26]) if len(header) == 27 else b""
    body = file.read(sum(lacing))
    if len(header) < 27 or len(lacing) < header[26] or len(body) < sum(lacing):
        return b"", f"cut short inside Ogg page {number}"
    page = header[:22] + bytes(4) + header[26:] + lacing + body
    if ogg_checksum(page) != int.from_bytes(header[22:26], "little"):
        return b"", f"altered: Ogg page {number} does not match its checksum"
    return page, None


def ogg_checksum(page: bytes) -> int:
    """CRC-32 with the bit order and start value of Ogg (RFC 3533), computed with zlib.

    The two have the same polynomial. zlib runs it on reversed bits, from a complemented
    start to a complemented end, so all three are undone here.
    """
    reversed_crc = zlib.crc32(page.translate(_REVERSED_BITS), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{reversed_crc:032b}"[::-1], 2)
