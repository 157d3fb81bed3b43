"""How much sound a file holds, read from its own bookkeeping, and signs that it was cut or altered.

libsndfile plays what is left of a truncated WAV, Ogg or MP3 file without a word, skips Ogg pages
whose checksum is wrong, and reads only the first of several joined streams. This module compares
sizes, checksums and streams that such files declare with what is there, in both directions. It
decodes nothing; FLAC needs no help, its decoder complains.
"""

import struct
import zlib
from dataclasses import dataclass
from typing import BinaryIO

from .containers import ASF_START
from .mpeg import mp3_links

# Writers to a pipe cannot know the size: ffmpeg puts 0xFFFFFFFF, sox and others about 2 GiB.
_UNKNOWN_SIZE = 0x7FFF0000

# Flags of the pages that begin and end a stream (RFC 3533).
_OGG_BEGIN, _OGG_END = 2, 4

_ASF_FILE_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")

_REVERSED_BITS = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


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
        return Contents(whole, _w64_damage(file, size))
    if start[:4] == b"RIFF" and start[8:12] == b"WAVE":
        return Contents(whole, _chunk_damage(file, size, 12, b"data", "<4sI"))
    if start[:4] == b"FORM" and start[8:11] == b"AIF":
        return Contents(whole, _chunk_damage(file, size, 12, b"SSND", ">4sI"))
    if start[:4] == b"caff":
        return Contents(whole, _chunk_damage(file, size, 8, b"data", ">4sQ", padding=1))
    if start[:4] == b".snd":
        return Contents(whole, _au_damage(start, size))
    if start[:8] == ASF_START:
        return Contents(whole, _asf_damage(file, size))
    if start[4:8] == b"ftyp":
        return Contents(whole, _mp4_damage(file, size))
    links, damage = mp3_links(file, size)
    return Contents(links or whole, damage)


def _chunk_damage(
    file: BinaryIO, size: int, first: int, wanted: bytes, layout: str, padding: int = 2
) -> str | None:
    """Compare the length of the chunk of samples with what is left of the file."""
    header = struct.calcsize(layout)
    file.seek(first)
    while len(chunk := file.read(header)) == header:
        name, length = struct.unpack(layout, chunk)
        if name == wanted:
            return _cut_short(size - file.tell(), length)
        file.seek(min(file.tell() + length + length % padding, size))
    return None


def _cut_short(left: int, length: int) -> str | None:
    return _promise_broken(left, length) if left < length < _UNKNOWN_SIZE else None


def _promise_broken(left: int, length: int) -> str:
    return f"cut short: {left} bytes of samples where its header promises {length}"


def _rf64_damage(file: BinaryIO, size: int) -> str | None:
    """As WAV; the length of the samples is in a chunk of its own, in 8 bytes (EBU Tech 3306)."""
    file.seek(12)
    chunk = file.read(24)
    if chunk[:4] != b"ds64" or len(chunk) < 24:
        return None
    promised = int.from_bytes(chunk[16:24], "little")
    file.seek(12)
    while len(head := file.read(8)) == 8:
        name, length = struct.unpack("<4sI", head)
        if name == b"data":
            left = size - file.tell()
            return _promise_broken(left, promised) if left < promised < 1 << 62 else None
        file.seek(min(file.tell() + length + length % 2, size))
    return None


def _w64_damage(file: BinaryIO, size: int) -> str | None:
    """Chunks of Sony Wave64: names of 16 bytes, lengths of 8 that include the head of 24."""
    place = 40
    while place + 24 <= size:
        file.seek(place)
        name, length = struct.unpack("<16sQ", file.read(24))
        if name[:4] == b"data":
            left, promised = size - place - 24, length - 24
            return _promise_broken(left, promised) if left < promised < 1 << 62 else None
        if length < 24:
            return None
        place += -(-length // 8) * 8
    return None


def _asf_damage(file: BinaryIO, size: int) -> str | None:
    """Compare the size of a file with what the file properties of its header say (ASF, 3.2)."""
    file.seek(0)
    header = file.read(1 << 16)
    place = header.find(_ASF_FILE_PROPERTIES)
    if place < 0 or len(header) < place + 92:
        return None
    promised = int.from_bytes(header[place + 40 : place + 48], "little")
    is_broadcast = header[place + 88] & 1
    if is_broadcast or not size < promised < 1 << 62:
        return None
    return f"cut short: it has {size} of {promised} bytes"


def _au_damage(start: bytes, size: int) -> str | None:
    offset, length = struct.unpack(">II", start[4:12]) if len(start) >= 12 else (0, 0)
    return _cut_short(size - offset, length)


def _mp4_damage(file: BinaryIO, size: int) -> str | None:
    """Check the boxes of an MP4 file: the last must be complete, and there must be one movie."""
    place = num_movies = 0
    while place + 8 <= size:
        file.seek(place)
        length, name = struct.unpack(">I4s", file.read(8))
        if length == 1:
            length = int.from_bytes(file.read(8), "big")
        num_movies += name == b"moov"
        if length == 0:  # to the end of the file
            break
        if length < 8:
            return None  # the decoder has its own opinion of such boxes
        place += length
    if place > size:
        return f"cut short: its last part has {size - place + length} of {length} bytes"
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
    number = place = 0
    file.seek(0)
    while header := file.read(27):
        number += 1
        page, damage = _ogg_page(file, header, number)
        if damage:
            return Contents(((0, size),), damage)
        serial = header[14:18]
        if not header[5] & _OGG_BEGIN:
            links[-1:] = [_with_data(links[-1])] if links else []
        elif links and not links[-1].has_data and serial not in links[-1].serials:
            links[-1].serials.add(serial)
            links[-1].num_streams += 1
        elif links and links[-1].serials:
            return Contents(
                ((0, size),), f"cut short behind Ogg page {number - 1}, where another file begins"
            )
        else:
            links.append(_OggLink(place, {serial}))
        if links and header[5] & _OGG_END:
            links[-1].serials.discard(serial)
        place += len(page)
    if not links or links[-1].serials:
        return Contents(((0, size),), f"cut short behind Ogg page {number}, which is not the last")
    ends = [link.first for link in links[1:]] + [size]
    parts = [(link.first, end - link.first) for link, end in zip(links, ends, strict=True)]
    return Contents(tuple(parts), num_parallel=max(link.num_streams for link in links))


def _with_data(link: _OggLink) -> _OggLink:
    link.has_data = True
    return link


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
