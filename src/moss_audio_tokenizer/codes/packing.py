"""Codes as a stream of bits.

Each code takes as few bits as its codebook needs, most significant first; frames follow each
other, with the layers of a frame side by side. Knows nothing of files.
"""

import numpy as np
from jaxtyping import Integer, UInt8

# A multiple of 8, so that blocks end on a byte; it bounds the memory of the unpacked bits.
_BLOCK_CODES = 1 << 17
# Codes have at most 16 bits: they pass through big-endian words of that many.
_WORD = np.dtype(">u2")
_WORD_BITS = 16


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
