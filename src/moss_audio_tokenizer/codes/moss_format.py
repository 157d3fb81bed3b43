"""The .moss format: a fixed header with a checksum, then the codes as a stream of bits.

Each code takes as few bits as its codebook needs, most significant first; frames follow each other,
with the layers of a frame side by side. Owns these bytes and nothing else; what makes codes valid
is the container's. docs/moss-format.md describes them for people who port the format: change both
together.
"""

import struct
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Integer, UInt8

from ..errors import CodesFileError

MAGIC = b"MOSSCODE"
VERSION = 1
# A multiple of 8, so that blocks end on a byte; it bounds the memory of the unpacked bits.
_BLOCK_CODES = 1 << 17
# Codes have at most 16 bits: they pass through big-endian words of that many.
_WORD = np.dtype(">u2")
_WORD_BITS = 16


class StoredCodes(NamedTuple):
    """What a file says.

    Attributes:
        codes: the codes.
        metadata: everything else, as `AudioCodes.metadata` has it.
        checksum: the checksum that they must have as .moss; None where it was compared already.
    """

    codes: Integer[np.ndarray, "num_quantizers frames"]
    metadata: dict[str, Any]
    checksum: int | None


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
        """Whether sizes can be computed from them; `AudioCodes` checks all fields later."""
        counts = (self.num_quantizers, self.downsample_rate, self.num_samples)
        return 0 not in counts and 2 <= self.codebook_size <= 2**16

    @property
    def metadata(self) -> dict[str, Any]:
        """`AudioCodes.metadata` but for the model."""
        names = ("sampling_rate", "num_samples", "downsample_rate", "num_channels", "codebook_size")
        return {name: getattr(self, name) for name in names}

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


def pack(codes: Integer[np.ndarray, "num_quantizers frames"], metadata: dict[str, Any]) -> bytes:
    """The contents of a .moss file."""
    header = _Header(
        **metadata | {"model": metadata["model"].encode("ascii")},
        magic=MAGIC,
        version=VERSION,
        num_quantizers=len(codes),
        checksum=0,
    )
    payload = pack_codes(codes, header.bits_per_code)
    return _LAYOUT.pack(*header._replace(checksum=_checksum(header, payload))) + payload


def checksum_of(
    codes: Integer[np.ndarray, "num_quantizers frames"], metadata: dict[str, Any]
) -> int:
    """The checksum that the codes have as .moss, of everything that they are."""
    return int(_LAYOUT.unpack_from(pack(codes, metadata))[-1])


def unpack(data: bytes, name: str) -> StoredCodes:
    """Read the contents of a .moss file, which messages call ``name``.

    Raises:
        CodesFileError: not .moss, another version, truncated, extended, or altered.
    """
    header = _parse_header(data[:HEADER_SIZE], len(data), name)
    return _stored(header, data[HEADER_SIZE:], name)


def save_moss(codes: np.ndarray, metadata: dict[str, Any], path: Path) -> None:
    """Write a .moss file."""
    path.write_bytes(pack(codes, metadata))


def load_moss(path: Path, size: int) -> StoredCodes:
    """Read a .moss file of ``size`` bytes; no more is read than its header accounts for.

    Raises:
        CodesFileError: not .moss, another version, truncated, extended, or altered.
    """
    with path.open("rb") as file:
        header = _parse_header(file.read(HEADER_SIZE), size, repr(str(path)))
        return _stored(header, file.read(header.payload_size), repr(str(path)))


def moss_facts(path: Path, size: int) -> dict[str, Any]:
    """What the header of a .moss file says, as `AudioCodes.metadata` has it; no codes are read.

    Raises:
        CodesFileError: not .moss, another version, truncated or extended.
    """
    with path.open("rb") as file:
        header = _parse_header(file.read(HEADER_SIZE), size, repr(str(path)))
    facts = header.metadata | {"model": header.model.rstrip(b"\0").decode("ascii", "replace")}
    counts = ("num_quantizers", "num_frames", "bits_per_code")
    return facts | {name: getattr(header, name) for name in counts}


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


def _stored(header: _Header, payload: bytes, name: str) -> StoredCodes:
    if len(payload) != header.payload_size or _checksum(header, payload) != header.checksum:
        raise CodesFileError(
            f"{name} was altered: its checksum does not match; copy or encode it again"
        )
    sizes = (header.num_quantizers, header.num_frames, header.bits_per_code)
    try:
        model = header.model.rstrip(b"\0").decode("ascii")
    except UnicodeDecodeError as problem:
        raise CodesFileError(f"{name} holds no valid codes: {problem}") from problem
    metadata = header.metadata | {"model": model}
    return StoredCodes(unpack_codes(payload, *sizes), metadata, None)


def _checksum(header: _Header, payload: bytes) -> int:
    """CRC-32 of header and codes, with zero in the place of the checksum itself."""
    return zlib.crc32(payload, zlib.crc32(_LAYOUT.pack(*header._replace(checksum=0))))


def packed_size(num_codes: int, bits: int) -> int:
    """Bytes of ``num_codes`` codes of ``bits`` bits."""
    return -(-num_codes * bits // 8)


def pack_codes(codes: Integer[np.ndarray, "num_quantizers frames"], bits: int) -> bytes:
    """The codes, frame-major, as a bit stream padded with zeros to whole bytes.

    Args:
        codes: integers from 0 to 2**bits - 1; higher bits would be lost without a word.
        bits: bits of a code, 1 to 16.
    """
    flat = codes.T.reshape(-1)
    blocks = (flat[start : start + _BLOCK_CODES] for start in range(0, len(flat), _BLOCK_CODES))
    return b"".join(np.packbits(_as_bits(block, bits)).tobytes() for block in blocks)


def unpack_codes(
    packed: bytes, num_quantizers: int, num_frames: int, bits: int
) -> Integer[np.ndarray, "num_quantizers frames"]:
    """The inverse of `pack_codes`, int64; ``packed`` must hold exactly that many codes."""
    stream = np.frombuffer(packed, np.uint8)
    count = num_quantizers * num_frames
    flat = np.empty(count, np.int64)
    for start in range(0, count, _BLOCK_CODES):
        stop = min(start + _BLOCK_CODES, count)
        block = stream[packed_size(start, bits) : packed_size(stop, bits)]
        flat[start:stop] = _from_bits(np.unpackbits(block, count=(stop - start) * bits), bits)
    return np.ascontiguousarray(flat.reshape(num_frames, num_quantizers).T)


def _as_bits(codes: Integer[np.ndarray, "codes"], bits: int) -> UInt8[np.ndarray, "stream"]:
    words = codes.astype(_WORD).view(np.uint8).reshape(-1, _WORD.itemsize)
    return np.unpackbits(words, axis=1)[:, _WORD_BITS - bits :].reshape(-1)


def _from_bits(stream: UInt8[np.ndarray, "stream"], bits: int) -> Integer[np.ndarray, "codes"]:
    words = np.zeros((len(stream) // bits, _WORD_BITS), np.uint8)
    words[:, _WORD_BITS - bits :] = stream.reshape(-1, bits)
    return np.packbits(words, axis=1).view(_WORD).reshape(-1)
