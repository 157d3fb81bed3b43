"""Bits that belong to the coded sound, without what containers add.

An Ogg page costs 27 bytes and more, and the comment header hundreds: a tenth of a short clip at
6 kbps. Codecs are compared by what a channel of their own would carry.
"""

from collections.abc import Iterator

from ...errors import EvaluationError

_PAGE_HEADER = 27
_ADTS_SYNC = 0xFFF0


def ogg_packet_sizes(content: bytes) -> list[int]:
    """Sizes in bytes of the packets of an Ogg file with one stream, headers included.

    Source: RFC 3533, section 6.

    Raises:
        EvaluationError: it is no Ogg file, or it breaks off.
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
        EvaluationError: it is no ADTS stream, or it breaks off.
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
