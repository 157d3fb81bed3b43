"""Frames and length tags of MP3 files: where each of several joined streams begins and ends.

An encoder writes a tag (Xing, Info or VBRI) into the first frame, with the bytes and frames of the
stream; decoders stop there, although another stream may follow. It decodes nothing.
"""

import struct
from typing import BinaryIO

_BITRATES = {
    (1, 1): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (1, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (1, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (2, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (2, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (2, 3): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_SAMPLING_RATES = (44_100, 48_000, 32_000)
# So many frames in a row are a stream, and not bytes that look like one.
_CONVINCING_FRAMES = 4
# How far behind a stream the next one is looked for, beyond tags and padding.
_SEARCH_BYTES = 4096
_LONGEST_FRAME_BYTES = 2881

Links = tuple[tuple[int, int], ...]


def mp3_links(file: BinaryIO, size: int) -> tuple[Links, str | None]:
    """(First byte, bytes) of every stream of an MP3 file, and what is wrong with it, if anything.

    A stream without a tag is taken to reach to the end of the file: decoders read on in it.
    Tags of other kinds behind a stream (ID3v1, APE, Lyrics3) and padding belong to none.
    """
    links: list[tuple[int, int]] = []
    position: int | None = 0
    while position is not None:
        first = position
        start, length = length_tag(file, first) or (first, 0)
        if not length:
            links.append((first, size - first))
            break
        if size - start < length:
            damage = f"cut short: {size - start} bytes of MP3 where its header promises {length}"
            return tuple(links), damage
        end = start + length
        position = _next_stream(file, end, size)
        if position is None and not _is_no_sound(file, end):
            end = size
        links.append((first, end - first))
    return tuple(links), None


def length_tag(file: BinaryIO, first: int = 0) -> tuple[int, int] | None:
    """Where the frames of a stream start and how many bytes they are (0: not stated), if tagged."""
    start = _behind_id3(file, first)
    file.seek(start)
    frame = file.read(64)
    if len(frame) < 64 or frame[0] != 0xFF or frame[1] < 0xE0:
        return None
    if frame[36:40] == b"VBRI":
        return start, int.from_bytes(frame[46:50], "big")
    # behind side information of 9, 17 or 32 bytes, with or without a frame checksum of 2
    for position in (13, 21, 36, 15, 23, 38):
        if frame[position : position + 4] in (b"Xing", b"Info"):
            return start, _xing_length(file, start, frame[position + 4 : position + 16])
    return None


def _xing_length(file: BinaryIO, start: int, fields: bytes) -> int:
    """Bytes of the stream, the second optional field; else what its frames, the first, come to."""
    flags, first, second = struct.unpack(">III", fields)
    if flags & 2:
        return second if flags & 1 else first
    return _length_of_frames(file, start, first + 1) if flags & 1 else 0


def _behind_id3(file: BinaryIO, position: int) -> int:
    """The first byte behind ID3v2 tags, whose size is four bytes of seven bits each."""
    while True:
        file.seek(position)
        head = file.read(10)
        if head[:3] != b"ID3" or len(head) < 10:
            return position
        shifts = (21, 14, 7, 0)
        position += 10 + sum(byte << shift for byte, shift in zip(head[6:], shifts, strict=True))


def _next_stream(file: BinaryIO, position: int, size: int) -> int | None:
    """Where another stream begins behind one that has ended; None if there is none."""
    position = _behind_trailing_tags(file, position)
    file.seek(position)
    window = file.read(_SEARCH_BYTES)
    for offset in range(len(window)):
        if window[offset : offset + 3] == b"ID3":
            frames = _behind_id3(file, position + offset)
        elif window[offset] == 0xFF:
            frames = position + offset
        else:
            continue
        if frames < size and _is_stream(file, frames):
            return position + offset
    return None


def _is_no_sound(file: BinaryIO, position: int) -> bool:
    """Whether tags or padding lie behind a stream.

    Else it may be the rest of the stream: some encoders do not count the tag's own frame.
    """
    if _behind_trailing_tags(file, position) != position:
        return True
    file.seek(position)
    rest = file.read(_SEARCH_BYTES)
    return len(rest) > _LONGEST_FRAME_BYTES and not any(rest)


def _is_stream(file: BinaryIO, position: int) -> bool:
    if length_tag(file, position) is not None:
        return True
    return _length_of_frames(file, position, _CONVINCING_FRAMES) > 0


def _behind_trailing_tags(file: BinaryIO, position: int) -> int:
    while True:
        file.seek(position)
        head = file.read(32)
        if head[:3] == b"TAG":
            position += 128
        elif head[:8] == b"APETAGEX" and len(head) == 32:
            position += 32 + int.from_bytes(head[12:16], "little")
        else:
            return position


def _length_of_frames(file: BinaryIO, position: int, count: int) -> int:
    """Bytes of so many frames from a position on; 0 if they are not all there."""
    start = position
    for _ in range(count):
        file.seek(position)
        length = frame_length(file.read(4))
        if not length:
            return 0
        position += length
    return position - start


def frame_length(header: bytes) -> int:
    """Bytes of a frame by its first four; 0 if they are not a header, or one of a free bitrate."""
    if len(header) < 4 or header[0] != 0xFF or header[1] & 0xE0 != 0xE0:
        return 0
    version, layer = header[1] >> 3 & 3, 4 - (header[1] >> 1 & 3)
    bitrate, rate = header[2] >> 4, header[2] >> 2 & 3
    if version == 1 or layer == 4 or not 0 < bitrate < 15 or rate == 3:
        return 0
    bits = _BITRATES[1 if version == 3 else 2, layer][bitrate - 1] * 1000
    samples_a_second = _SAMPLING_RATES[rate] >> {3: 0, 2: 1, 0: 2}[version]
    padding = header[2] >> 1 & 1
    if layer == 1:
        return (12 * bits // samples_a_second + padding) * 4
    slots = 72 if layer == 3 and version != 3 else 144
    return slots * bits // samples_a_second + padding
