"""The .moss format: a fixed header with a checksum, then the codes as a stream of bits.

Owns these bytes and nothing else; what makes codes valid is the container's.
docs/moss-format.md describes them for people who port the format: change both together.
"""

import struct
import zlib
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from ..errors import CodesError, CodesFileError
from .clip_codes import ClipCodes
from .packing import pack_codes, packed_size, unpack_codes

MAGIC = b"MOSSCODE"
VERSION = 1


class _Header(NamedTuple):
    """The fields of the header, little-endian, in this order."""

    magic: bytes
    version: int
    num_channels: int
    num_quantizers: int
    codebook_size: int
    sampling_rate: int
    downsample_rate: int
    num_samples: int
    model: bytes
    checksum: int

    @property
    def has_possible_counts(self) -> bool:
        """Whether sizes can be computed from them; `ClipCodes` checks all fields later."""
        counts = (self.num_quantizers, self.downsample_rate, self.num_samples)
        return 0 not in counts and 2 <= self.codebook_size <= 2**16

    @property
    def bits_per_code(self) -> int:
        return (self.codebook_size - 1).bit_length()

    @property
    def num_frames(self) -> int:
        return -(-self.num_samples // self.downsample_rate)

    @property
    def payload_size(self) -> int:
        """Bytes of codes that must follow."""
        return packed_size(self.num_quantizers * self.num_frames, self.bits_per_code)


_LAYOUT = struct.Struct("<8sHHHIIIQ16sI")
HEADER_SIZE = _LAYOUT.size


def to_bytes(codes: ClipCodes) -> bytes:
    """The contents of a .moss file."""
    payload = pack_codes(codes.codes, codes.bits_per_code)
    header = _Header(
        magic=MAGIC,
        version=VERSION,
        num_channels=codes.num_channels,
        num_quantizers=codes.num_quantizers,
        codebook_size=codes.codebook_size,
        sampling_rate=codes.sampling_rate,
        downsample_rate=codes.downsample_rate,
        num_samples=codes.num_samples,
        model=codes.model.encode("ascii"),
        checksum=0,
    )
    return _LAYOUT.pack(*header._replace(checksum=_checksum(header, payload))) + payload


def checksum_of(codes: ClipCodes) -> int:
    """The checksum that the codes have as .moss, of everything that they are."""
    return int(_LAYOUT.unpack_from(to_bytes(codes))[-1])


def from_bytes(data: bytes, name: str = "data") -> ClipCodes:
    """Read the contents of a .moss file.

    Raises:
        CodesFileError: not .moss, another version, truncated, extended, or altered.
    """
    header = _parse_header(data[:HEADER_SIZE], len(data), name)
    return _build(header, data[HEADER_SIZE:], name)


def save_moss(codes: ClipCodes, path: Path) -> None:
    """Write a .moss file."""
    path.write_bytes(to_bytes(codes))


def load_moss(path: Path, size: int) -> ClipCodes:
    """Read a .moss file of ``size`` bytes; no more is read than its header accounts for.

    Raises:
        CodesFileError: see `from_bytes`.
    """
    with path.open("rb") as file:
        header = _parse_header(file.read(HEADER_SIZE), size, repr(str(path)))
        return _build(header, _read_payload(file, header), repr(str(path)))


def moss_facts(path: Path, size: int) -> dict[str, Any]:
    """What the header of a .moss file says, as `ClipCodes.metadata` has it; no codes are read.

    Raises:
        CodesFileError: not .moss, another version, truncated or extended.
    """
    with path.open("rb") as file:
        header = _parse_header(file.read(HEADER_SIZE), size, repr(str(path)))
    kept = ("sampling_rate", "num_samples", "downsample_rate", "num_channels", "codebook_size")
    facts: dict[str, Any] = {key: getattr(header, key) for key in kept}
    model = header.model.rstrip(b"\0").decode("ascii", "replace")
    counts = {"num_quantizers": header.num_quantizers, "num_frames": header.num_frames}
    return facts | counts | {"model": model, "bits_per_code": header.bits_per_code}


def _read_payload(file: BinaryIO, header: _Header) -> bytes:
    return file.read(header.payload_size)


def _parse_header(data: bytes, size: int, name: str) -> _Header:
    if data[: len(MAGIC)] != MAGIC:
        raise CodesFileError(f"{name} is not a .moss file: it does not start with {MAGIC!r}")
    if len(data) < HEADER_SIZE:
        raise CodesFileError(f"{name} is cut short inside its header; copy or encode it again")
    header = _Header(*_LAYOUT.unpack(data))
    if header.version != VERSION:
        raise CodesFileError(
            f"{name} has .moss version {header.version}; expected {VERSION}: it is damaged, or "
            "needs a newer moss-audio-tokenizer"
        )
    if not header.has_possible_counts:
        raise CodesFileError(
            f"{name} has impossible counts in its header: it was altered; copy or encode it again"
        )
    expected = HEADER_SIZE + header.payload_size
    if size != expected:
        raise CodesFileError(
            f"{name} has {size} bytes; its header says {expected}: copy or encode it again"
        )
    return header


def _build(header: _Header, payload: bytes, name: str) -> ClipCodes:
    if len(payload) != header.payload_size or _checksum(header, payload) != header.checksum:
        raise CodesFileError(
            f"{name} was altered: its checksum does not match; copy or encode it again"
        )
    try:
        return ClipCodes(
            unpack_codes(payload, header.num_quantizers, header.num_frames, header.bits_per_code),
            header.sampling_rate,
            header.num_samples,
            downsample_rate=header.downsample_rate,
            num_channels=header.num_channels,
            codebook_size=header.codebook_size,
            model=header.model.rstrip(b"\0").decode("ascii"),
        )
    except (CodesError, UnicodeDecodeError) as problem:
        raise CodesFileError(f"{name} holds no valid codes: {problem}") from problem


def _checksum(header: _Header, payload: bytes) -> int:
    """CRC-32 of header and codes, with zero in the place of the checksum itself."""
    return zlib.crc32(payload, zlib.crc32(_LAYOUT.pack(*header._replace(checksum=0))))
