"""Damaged and hostile files of codes: always CodesFileError, never wrong codes, never a crash."""

import json
import pickle
import struct
import tracemalloc
import zipfile
from contextlib import suppress

import numpy as np
import pytest
from examples import SUFFIXES, random_codes
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from moss_audio_tokenizer import AudioCodes
from moss_audio_tokenizer.codes import moss_format
from moss_audio_tokenizer.errors import CodesFileError

repeatable = settings(derandomize=True, deadline=None, max_examples=300)
KEY = "moss_audio_codes"
GOOD = random_codes(model="0123456789abcdef")
GOOD_BYTES = GOOD.to_bytes()


def refuse(path, match="."):
    """The error, which must come without an allocation beyond a few MB."""
    tracemalloc.start()
    try:
        with pytest.raises(CodesFileError, match=match) as caught:
            AudioCodes.load(path)
        assert tracemalloc.get_traced_memory()[1] < 8e6
    finally:
        tracemalloc.stop()
    assert "\n" not in str(caught.value)


# .moss


def test_every_flipped_bit_is_noticed():
    for place in range(len(GOOD_BYTES)):
        for bit in range(8):
            altered = bytearray(GOOD_BYTES)
            altered[place] ^= 1 << bit
            with pytest.raises(CodesFileError):
                AudioCodes.from_bytes(bytes(altered))


def test_every_truncation_is_noticed(tmp_path):
    path = tmp_path / "short.moss"
    for length in range(1, len(GOOD_BYTES)):
        path.write_bytes(GOOD_BYTES[:length])
        with pytest.raises(CodesFileError):
            AudioCodes.load(path)


@repeatable
@given(st.binary(min_size=1))
def test_every_extension_is_noticed(more):
    with pytest.raises(CodesFileError, match="its header says"):
        AudioCodes.from_bytes(GOOD_BYTES + more)


@repeatable
@given(st.binary())
def test_any_other_bytes_are_refused(data):
    for start in (b"", moss_format.MAGIC, moss_format.MAGIC + b"\1\0"):
        with pytest.raises(CodesFileError):
            AudioCodes.from_bytes(start + data)


def forged(payload=None, **changes) -> bytes:
    """A .moss file with another header and the checksum that belongs to it."""
    payload = GOOD_BYTES[moss_format.HEADER_SIZE :] if payload is None else payload
    header = moss_format._Header(*moss_format._LAYOUT.unpack_from(GOOD_BYTES))._replace(**changes)
    checksum = moss_format._checksum(header, payload)
    return moss_format._LAYOUT.pack(*header._replace(checksum=checksum)) + payload


@pytest.mark.parametrize(
    "changes",
    [
        {"version": 2},
        {"num_samples": 2**64 - 1},
        {"num_samples": 2**40, "downsample_rate": 1},
        {"num_samples": 0},
        {"num_samples": 0, "payload": b""},
        {"downsample_rate": 0},
        {"downsample_rate": 0, "num_samples": 1, "payload": bytes(10)},
        {"num_quantizers": 0},
        {"num_quantizers": 0, "payload": b"", "num_samples": 2**64 - 1, "downsample_rate": 1},
        {"num_quantizers": 65_535},
        {"num_channels": 0},
        {"sampling_rate": 0},
        {"codebook_size": 0},
        {"codebook_size": 1},
        {"codebook_size": 1000},
        {"codebook_size": 65_537},
        {"codebook_size": 2**32 - 1},
        {"codebook_size": 2**32 - 1, "payload": bytes(8 * 13 * 4)},
        {"codebook_size": 0, "payload": bytes(13)},
        {"model": b"\xff" * 16},
        {"model": b"ab\0c"},
        {"model": b"\n"},
    ],
    ids=str,
)
def test_hostile_headers(tmp_path, changes):
    (tmp_path / "forged.moss").write_bytes(forged(**changes))
    refuse(tmp_path / "forged.moss")
    with pytest.raises(CodesFileError):
        AudioCodes.from_bytes(forged(**changes))


def test_codes_outside_the_codebook(tmp_path):
    (tmp_path / "outside.moss").write_bytes(forged(b"\xff" * 130, codebook_size=1000))
    refuse(tmp_path / "outside.moss", "no valid codes: codes reach from 1023 to 1023")


def test_a_large_file_of_something_else_is_not_read(tmp_path):
    with (tmp_path / "large.moss").open("wb") as file:
        file.write(GOOD_BYTES)
        file.truncate(1 << 40)
    refuse(tmp_path / "large.moss", "its header says")


# .safetensors and .npz


def description(**changes) -> str:
    checksum = moss_format.checksum_of(GOOD.codes, GOOD.metadata)
    return json.dumps(GOOD.metadata | {"checksum": checksum} | changes)


BAD_DESCRIPTIONS = {
    "none": "",
    "no object": "[1]",
    "null": "null",
    "no JSON": "{",
    "deep": "[" * 100_000,
    "long number": '{"num_samples": ' + "9" * 5000 + "}",
    "missing": '{"sampling_rate": 24000}',
    "no downsample_rate": description(downsample_rate=None),
    "unknown": description(color="red"),
    "codes": description(codes=[[1]]),
    "not a number": description(sampling_rate=float("nan")),
    "infinite": description(num_samples=float("inf")),
    "text": description(num_samples="24953"),
    "float": description(downsample_rate=1920.0),
    "bool": description(num_channels=True),
    "list": description(codebook_size=[1024]),
    "model": description(model=7),
    "long model": description(model="0" * 17),
    "frames": description(num_samples=5),
    "zero": description(downsample_rate=0),
    "no checksum": json.dumps(GOOD.metadata),
    "other checksum": description(checksum=1),
    "null checksum": description(checksum=None),
    "no model": description().replace('"model"', '"modal"'),
    "other": description(num_samples=GOOD.num_samples - 1),
    "huge": description(num_samples=10**4000),
}


@pytest.mark.parametrize("text", BAD_DESCRIPTIONS.values(), ids=BAD_DESCRIPTIONS)
def test_wrong_descriptions(tmp_path, text):
    codes = GOOD.codes.astype(np.int16)
    save_file({"codes": codes}, tmp_path / "bad.safetensors", {KEY: text})
    refuse(tmp_path / "bad.safetensors")
    metadata = np.frombuffer(text.encode(), np.uint8)
    np.savez(tmp_path / "bad.npz", codes=codes, metadata=metadata)
    refuse(tmp_path / "bad.npz")


@pytest.mark.parametrize("dtype", ["f4", "f8", "c8", "?", "S2", "U2", "M8[s]"])
def test_codes_of_other_types_in_npz(tmp_path, dtype):
    metadata = np.frombuffer(description().encode(), np.uint8)
    np.savez(tmp_path / "typed.npz", codes=np.zeros((8, 13), dtype), metadata=metadata)
    refuse(tmp_path / "typed.npz", "an array claims to be")


def write_safetensors(path, header: object, content: bytes = b"") -> None:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + content)


@pytest.mark.parametrize(("dtype", "width"), [("BF16", 2), ("F8_E4M3", 1), ("F32", 4), ("BOOL", 1)])
def test_codes_of_other_types_in_safetensors(tmp_path, dtype, width):
    path = tmp_path / "typed.safetensors"
    tensor = {"dtype": dtype, "shape": [8, 13], "data_offsets": [0, 104 * width]}
    header = {"__metadata__": {KEY: description()}, "codes": tensor}
    write_safetensors(path, header, bytes(104 * width))
    refuse(path)


def test_safetensors_without_codes_or_metadata(tmp_path):
    save_file({"other": np.zeros(3)}, tmp_path / "other.safetensors", {KEY: description()})
    refuse(tmp_path / "other.safetensors", "cannot be read as codes")
    save_file({"codes": GOOD.codes}, tmp_path / "bare.safetensors")
    refuse(tmp_path / "bare.safetensors", "no description")


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"{" * 1000,
        {"codes": {"dtype": "I64", "shape": [2**40, 2**40], "data_offsets": [0, 8]}},
        {"codes": {"dtype": "I64", "shape": [1, 1], "data_offsets": [0, 2**60]}},
        {"__metadata__": {KEY: 5}, "codes": {"dtype": "I8", "shape": [1], "data_offsets": [0, 8]}},
    ],
    ids=["empty", "deep", "huge shape", "huge offsets", "typed metadata"],
)
def test_hostile_safetensors(tmp_path, header):
    path = tmp_path / "hostile.safetensors"
    write_safetensors(path, header, bytes(8))
    refuse(path, "cannot be read as codes")


class Trap:
    def __reduce__(self):
        return (pytest.fail, ("unpickled",))


def test_npz_is_never_unpickled(tmp_path):
    path = tmp_path / "pickle.npz"
    trap = np.array([[Trap()]], dtype=object)
    with pytest.raises(pytest.fail.Exception):
        pickle.loads(pickle.dumps(Trap()))  # noqa: S301 - that the trap works
    np.savez(path, codes=trap, metadata=np.frombuffer(description().encode(), np.uint8))
    refuse(path, "claims to be object")


@pytest.mark.parametrize("missing", ["codes", "metadata"])
def test_npz_without_an_entry(tmp_path, missing):
    arrays = {"codes": GOOD.codes, "metadata": np.frombuffer(description().encode(), np.uint8)}
    del arrays[missing]
    np.savez(tmp_path / "missing.npz", **arrays)
    refuse(tmp_path / "missing.npz", "it holds")


METHODS = [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]


@pytest.mark.parametrize("method", METHODS)
def test_npz_that_is_a_decompression_bomb(tmp_path, method):
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w", method) as archive:
        archive.writestr("codes.npy", bytes(30_000_000))
        archive.writestr("metadata.npy", b"")
    refuse(tmp_path / "bomb.npz", "compressed")


def npy(shape: str, content: bytes = b"", dtype: str = "<i8") -> bytes:
    header = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(header)) + header + content


@pytest.mark.parametrize(
    "array",
    [
        b"",
        b"codes",
        npy("(8, 13)"),
        npy("(1000000000, 1000000000)"),
        npy("(1" + "0" * 100 + ", 0)"),
        npy("(-1, 1)", bytes(8)),
        npy("(1, 1)", bytes(9)),
        npy("(" * 500),
        npy("-" * 9000 + "1"),
        npy("'''"),
        npy("(1, 1)", dtype="V0"),
        npy("(1, 1)", dtype="|O"),
        npy("(1, 1)", bytes(8), dtype="nonsense"),
        npy("(True, 1)", bytes(8)),
        npy("(1, 1)" + " " * 20_000, bytes(8)),
        b"\x93NUMPY\3\0" + bytes(20),
    ],
    ids=lambda array: str(array[10:60]),
)
def test_hostile_arrays_in_npz(tmp_path, array):
    with zipfile.ZipFile(tmp_path / "hostile.npz", "w") as archive:
        archive.writestr("codes.npy", array)
        archive.writestr("metadata.npy", npy(f"({len(description())},)", b"", "|u1"))
    refuse(tmp_path / "hostile.npz")


@pytest.mark.parametrize("suffix", SUFFIXES[1:])
def test_every_truncation_of_the_others_is_noticed(tmp_path, suffix):
    path = tmp_path / f"short{suffix}"
    GOOD.save(path)
    data = path.read_bytes()
    for length in range(1, len(data), 3):
        path.write_bytes(data[:length])
        with pytest.raises(CodesFileError):
            AudioCodes.load(path)


@pytest.mark.parametrize("suffix", SUFFIXES[1:])
def test_random_damage_of_the_others_is_never_a_crash(tmp_path, suffix):
    path = tmp_path / f"altered{suffix}"
    GOOD.save(path)
    data = np.frombuffer(path.read_bytes(), np.uint8)
    random = np.random.default_rng(0)
    for _ in range(600):
        altered = data.copy()
        altered[random.integers(0, len(data), 2)] = random.integers(0, 256, 2)
        path.write_bytes(altered.tobytes())
        with suppress(CodesFileError):
            AudioCodes.load(path)
