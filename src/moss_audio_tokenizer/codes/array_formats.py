"""Codes in the array formats of other programs: .safetensors and .npz.

Both hold the array ``codes`` and a JSON description with the checksum that the same codes
have as .moss, so that altered files are found out here too. Sizes that a file claims are
held against its real size before anything is allocated, and nothing is ever unpickled.
"""

import json
import math
import struct
import zipfile
from os import PathLike
from pathlib import Path
from tokenize import TokenError
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from ..errors import CodesFileError, one_line
from .moss_format import StoredCodes, checksum_of

_DESCRIPTION = "moss_audio_codes"
_NPZ_MEMBERS = {"codes.npy", "metadata.npy"}
# Ours are a few hundred bytes; more is not worth parsing.
_MAX_DESCRIPTION = 1 << 16

# What zipfile raises for bad archives; RuntimeError is for encryption and unknown methods.
_ZIP_ERRORS = (zipfile.BadZipFile, EOFError, OSError, RuntimeError, struct.error)
# What NumPy raises for bad headers, which it parses as Python literals.
_ARRAY_ERRORS = (ValueError, TypeError, SyntaxError, OverflowError, MemoryError, TokenError)


def save_safetensors(codes: np.ndarray, metadata: dict[str, Any], path: Path) -> None:
    """Write a .safetensors file: the tensor ``codes`` and its description."""
    description = {_DESCRIPTION: _describe(codes, metadata)}
    path.write_bytes(save({"codes": _narrow(codes, metadata)}, description))


def load_safetensors(path: Path, size: int) -> StoredCodes:
    """Read a .safetensors file of ``size`` bytes.

    Raises:
        CodesFileError: damaged, or without codes and their description.
    """
    with path.open("rb") as file:
        header_size = int.from_bytes(file.read(8), "little")
    if size < 8 or header_size > min(_MAX_DESCRIPTION, size):
        raise unreadable(path, f"its header claims {header_size} of {size} bytes")
    try:
        # safetensors itself compares all sizes with that of the file before it reads
        with safe_open(path, framework="np") as file:
            description = (file.metadata() or {}).get(_DESCRIPTION, "")
            codes = file.get_tensor("codes")
    except (SafetensorError, KeyError, TypeError, AttributeError) as problem:
        raise unreadable(path, problem) from problem
    return _stored(codes, description, path)


def save_npz(codes: np.ndarray, metadata: dict[str, Any], path: Path) -> None:
    """Write an uncompressed .npz file: ``codes``, and the description as bytes."""
    text = np.frombuffer(_describe(codes, metadata).encode("ascii"), np.uint8)
    with path.open("wb") as file:
        np.savez(file, codes=_narrow(codes, metadata), metadata=text)


def load_npz(path: Path, size: int) -> StoredCodes:
    """Read an .npz file of ``size`` bytes.

    Raises:
        CodesFileError: damaged, compressed, or without codes and their description.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            _check_members(archive, size, path)
            with archive.open("codes.npy") as file:
                codes = _read_array(file, size)
            with archive.open("metadata.npy") as file:
                text = _read_array(file, _MAX_DESCRIPTION)
        return _stored(codes, text.astype(np.uint8).tobytes().decode("ascii"), path)
    except CodesFileError:
        raise
    except (*_ZIP_ERRORS, *_ARRAY_ERRORS) as problem:
        raise unreadable(path, problem) from problem


def _check_members(archive: zipfile.ZipFile, size: int, path: Path) -> None:
    """Refuse anything but our two arrays, stored as they are: no room for a zip bomb."""
    members = archive.infolist()
    names = {member.filename for member in members}
    if names != _NPZ_MEMBERS or len(members) != len(names):
        raise unreadable(path, f"it holds {', '.join(sorted(names)[:4]) or 'nothing'}")
    if any(member.compress_type != zipfile.ZIP_STORED for member in members):
        raise unreadable(path, "it is compressed: write it with numpy.savez")
    if sum(member.file_size for member in members) > size:
        raise unreadable(path, "its arrays claim more bytes than the file has")


def _read_array(file: IO[bytes], limit: int) -> np.ndarray:
    """One .npy array of at most ``limit`` bytes, numbers only.

    numpy.load would believe the shape in the header and allocate it.
    """
    if npy.read_magic(file) != (1, 0):
        raise ValueError("an array has an unknown version")
    shape, fortran_order, dtype = npy.read_array_header_1_0(file)
    if dtype.kind not in "iu" or math.prod(shape) * dtype.itemsize > limit:
        raise ValueError(f"an array claims to be {dtype} of shape {shape}")
    data = file.read(limit + 1)  # to the end, which is where zipfile compares its checksum
    return np.frombuffer(data, dtype).reshape(shape, order="F" if fortran_order else "C")


def _narrow(codes: np.ndarray, metadata: dict[str, Any]) -> np.ndarray:
    """The smallest signed type that holds the codes: signed, as PyTorch knows few unsigned."""
    return codes.astype(np.int16 if metadata["codebook_size"] <= 2**15 else np.int32)


def _describe(codes: np.ndarray, metadata: dict[str, Any]) -> str:
    return json.dumps({**metadata, "checksum": checksum_of(codes, metadata)})


def _stored(codes: np.ndarray, description: str, path: Path) -> StoredCodes:
    try:
        values = json.loads(description)
        checksum = values.pop("checksum")
        if checksum is None:
            raise ValueError("its checksum is null")
        return StoredCodes(codes, dict(values), checksum)
    except (ValueError, TypeError, AttributeError, KeyError, RecursionError) as problem:
        raise unreadable(path, f"no description of its codes: {problem}") from problem


def unreadable(path: str | PathLike[str], reason: object) -> CodesFileError:
    """The error for a file that holds no codes."""
    text = one_line(reason)
    return CodesFileError(
        f"{str(path)!r} cannot be read as codes in {Path(path).suffix} ({text}); "
        "copy or encode it again"
    )
