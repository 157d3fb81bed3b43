"""Signs that a sound file was cut short or altered, read from its own bookkeeping.

libsndfile plays what is left of a truncated WAV, Ogg or MP3 file without a word, and skips
Ogg pages whose checksum is wrong. This module compares the sizes and checksums that such
files carry with what is there. It decodes nothing; FLAC needs no help, its decoder complains.
"""

import struct
import zlib
from typing import BinaryIO

# Writers to a pipe cannot know the size: ffmpeg puts 0xFFFFFFFF, sox and others about 2 GiB.
_UNKNOWN_WAV_SIZE = 0x7FFF0000

# Flag of the page that ends a stream (RFC 3533): without it, a cut between two pages.
_OGG_END_OF_STREAM = 4

_REVERSED_BITS = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def find_damage(file: BinaryIO, size: int) -> str | None:
    """What is wrong with the file, in a few words; None when nothing can be seen.

    Args:
        file: open for reading; its position is moved.
        size: its size in bytes.

    Raises:
        OSError: the file cannot be read.
    """
    file.seek(0)
    start = file.read(12)
    if start[:4] == b"RIFF" and start[8:] == b"WAVE":
        return _wav_damage(file, size)
    if start[:4] == b"OggS":
        file.seek(0)
        return _ogg_damage(file)
    return _mp3_damage(file, size)


def _wav_damage(file: BinaryIO, size: int) -> str | None:
    while len(chunk := file.read(8)) == 8:
        name, length = struct.unpack("<4sI", chunk)
        if name == b"data":
            left = size - file.tell()
            if left < length < _UNKNOWN_WAV_SIZE:
                return f"cut short: {left} bytes of samples where its header promises {length}"
            return None
        file.seek(length + length % 2, 1)
    return None


def _ogg_damage(file: BinaryIO) -> str | None:
    number, is_last = 0, False
    while header := file.read(27):
        number += 1
        if header[:4] != b"OggS":
            return f"altered: Ogg page {number} does not start where page {number - 1} ends"
        lacing = file.read(header[26]) if len(header) == 27 else b""
        body = file.read(sum(lacing))
        if len(header) < 27 or len(lacing) < header[26] or len(body) < sum(lacing):
            return f"cut short inside Ogg page {number}"
        page = header[:22] + bytes(4) + header[26:] + lacing + body
        if ogg_checksum(page) != int.from_bytes(header[22:26], "little"):
            return f"altered: Ogg page {number} does not match its checksum"
        is_last = bool(header[5] & _OGG_END_OF_STREAM)
    return None if is_last else f"cut short behind Ogg page {number}, which is not the last"


def ogg_checksum(page: bytes) -> int:
    """CRC-32 with the bit order and start value of Ogg (RFC 3533), out of zlib's.

    The two have the same polynomial. zlib runs it on reversed bits, from a complemented
    start to a complemented end, so all three are undone here.
    """
    reversed_crc = zlib.crc32(page.translate(_REVERSED_BITS), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{reversed_crc:032b}"[::-1], 2)


def _mp3_damage(file: BinaryIO, size: int) -> str | None:
    tag = _length_tag(file)
    if tag is None:
        return None
    start, length = tag
    if size - start < length:
        return f"cut short: {size - start} bytes of MP3 where its header promises {length}"
    return None


def has_length_tag(file: BinaryIO) -> bool:
    """Whether an MP3 file states its length (Xing, Info or VBRI) instead of leaving a guess."""
    return _length_tag(file) is not None


def _length_tag(file: BinaryIO) -> tuple[int, int] | None:
    """Where the MP3 frames start and how many bytes they should be (0: not said), if tagged."""
    file.seek(0)
    head = file.read(10)
    start = 0
    if head[:3] == b"ID3" and len(head) == 10:
        # four bytes of seven bits each, after which comes the first frame
        shifts = (21, 14, 7, 0)
        start = 10 + sum(byte << shift for byte, shift in zip(head[6:], shifts, strict=True))
    file.seek(start)
    frame = file.read(64)
    if len(frame) < 64 or frame[0] != 0xFF or frame[1] < 0xE0:
        return None
    if frame[36:40] == b"VBRI":
        return start, int.from_bytes(frame[46:50], "big")
    # behind side information of 9, 17 or 32 bytes, with or without a frame checksum of 2
    for place in (13, 21, 36, 15, 23, 38):
        if frame[place : place + 4] in (b"Xing", b"Info"):
            return start, _xing_length(frame[place + 4 : place + 16])
    return None


def _xing_length(fields: bytes) -> int:
    """Bytes of the stream, the second optional field after the flags; 0 when absent."""
    flags, first, second = struct.unpack(">III", fields)
    if not flags & 2:
        return 0
    return second if flags & 1 else first
