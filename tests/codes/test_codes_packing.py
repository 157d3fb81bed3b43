"""Packing codes into bits, and back."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moss_audio_tokenizer.codes import moss_format
from moss_audio_tokenizer.codes.moss_format import pack_codes, packed_size, unpack_codes

repeatable = settings(derandomize=True, deadline=None, max_examples=150)


@repeatable
@given(st.data(), st.integers(2, 65_536), st.integers(1, 40), st.integers(1, 40))
def test_any_codes_come_back(data, codebook_size, num_layers, num_frames):
    random = np.random.default_rng(data.draw(st.integers(0, 1000)))
    codes = random.integers(0, codebook_size, (num_layers, num_frames))
    codes[0, 0], codes[-1, -1] = 0, codebook_size - 1
    bits = (codebook_size - 1).bit_length()
    packed = pack_codes(codes, bits)
    assert len(packed) == packed_size(codes.size, bits)
    np.testing.assert_array_equal(unpack_codes(packed, num_layers, num_frames, bits), codes)


@pytest.mark.parametrize("bits", [1, 7, 10, 16])
def test_blocks_leave_no_seam(monkeypatch, bits):
    codes = np.random.default_rng(0).integers(0, 2**bits, (3, 50))
    whole = pack_codes(codes, bits)
    monkeypatch.setattr(moss_format, "_BLOCK_CODES", 16)
    assert pack_codes(codes, bits) == whole
    np.testing.assert_array_equal(unpack_codes(whole, 3, 50, bits), codes)


def test_frames_follow_each_other_most_significant_bit_first():
    codes = np.array([[0b11, 0b01], [0b00, 0b10]])
    assert pack_codes(codes, 2) == bytes([0b11_00_01_10])
    assert pack_codes(np.array([[1]]), 10) == bytes([0b00000000, 0b01_000000])


def test_an_hour_at_32_layers():
    codes = np.random.default_rng(0).integers(0, 1024, (32, 45_000))
    packed = pack_codes(codes, 10)
    assert len(packed) == 45_000 * 40
    np.testing.assert_array_equal(unpack_codes(packed, 32, 45_000, 10), codes)
