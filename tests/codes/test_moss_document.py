"""docs/moss-format.md describes the files that are written."""

import re
import zlib
from pathlib import Path

from moss_audio_tokenizer import AudioCodes
from moss_audio_tokenizer.codes.moss_format import HEADER_SIZE

DOCUMENT = (Path(__file__).parents[2] / "docs" / "moss-format.md").read_text(encoding="utf-8")
EXAMPLE = AudioCodes(
    [[1, 2, 1023], [512, 0, 3]], sampling_rate=24_000, num_samples=5_000, model="0123456789abcdef"
)


def documented_bytes() -> bytes:
    block = re.search(r"```hex\n(.*?)```", DOCUMENT, re.DOTALL)
    assert block
    return bytes.fromhex(block[1])


def documented_fields() -> dict[str, tuple[int, int]]:
    """Offset and size of each field with a fixed place."""
    rows = re.findall(r"^\| (\d+) \| (\d+) \| (\w+) \|", DOCUMENT, re.MULTILINE)
    return {name: (int(offset), int(size)) for offset, size, name in rows}


def test_the_example_is_what_is_written_and_read():
    assert EXAMPLE.to_bytes().hex(" ") == documented_bytes().hex(" ")
    assert AudioCodes.from_bytes(documented_bytes()) == EXAMPLE


def test_the_fields_follow_each_other_up_to_the_codes():
    end = 0
    for offset, size in documented_fields().values():
        assert offset == end
        end += size
    assert end == HEADER_SIZE
    assert f"| {HEADER_SIZE} | to the end | codes |" in DOCUMENT


def test_the_fields_hold_what_the_table_says():
    data, expected = documented_bytes(), EXAMPLE.metadata | {"version": 1, "num_quantizers": 2}
    for name, (offset, size) in documented_fields().items():
        field = data[offset : offset + size]
        if name in ("magic", "model"):
            assert field == {"magic": b"MOSSCODE", "model": EXAMPLE.model.encode()}[name]
        elif name != "checksum":
            assert int.from_bytes(field, "little") == expected[name], name


def test_the_checksum_is_computed_as_described():
    data = documented_bytes()
    offset, size = documented_fields()["checksum"]
    blank = data[:offset] + bytes(size) + data[offset + size :]
    assert int.from_bytes(data[offset : offset + size], "little") == zlib.crc32(blank)
