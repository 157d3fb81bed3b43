"""AudioCodes: what fits together, what is refused, and what follows from it."""

import numpy as np
import pytest
from examples import random_codes

from moss_audio_tokenizer import AudioCodes
from moss_audio_tokenizer.errors import CodesError

ZEROS = np.zeros((2, 3), np.int16)


def test_defaults_are_mono_with_1024_rows_and_12_and_a_half_frames_a_second():
    codes = AudioCodes(ZEROS, 24_000, 5_000)
    assert (codes.downsample_rate, codes.num_channels, codes.codebook_size) == (1920, 1, 1024)
    assert (codes.model, codes.codes.dtype) == ("", np.int64)
    assert AudioCodes(ZEROS, 48_000, 10_000).downsample_rate == 3840


def test_facts_follow_from_the_parts():
    codes = AudioCodes(ZEROS, 24_000, 5_000, codebook_size=1000)
    assert (codes.num_quantizers, codes.num_frames, codes.bits_per_code) == (2, 3, 10)
    assert (codes.frame_rate, codes.bitrate) == (12.5, 250)
    assert codes.duration_seconds == pytest.approx(5 / 24)


@pytest.mark.parametrize(("size", "bits"), [(2, 1), (3, 2), (4, 2), (1025, 11), (65_536, 16)])
def test_bits_are_as_few_as_the_codebook_needs(size, bits):
    assert AudioCodes(ZEROS, 24_000, 5_000, codebook_size=size).bits_per_code == bits


@pytest.mark.parametrize(
    ("codes", "match"),
    [
        (ZEROS.astype(float), "float64; expected integers"),
        (ZEROS.astype(bool), "bool; expected integers"),
        (ZEROS.astype(object), "object; expected integers"),
        ([["a"]], "expected integers"),
        ([[1, 2], [3]], "rows of many lengths"),
        (ZEROS[0], "shape"),
        (ZEROS[None], r"pass one clip, codes\[:, row\]"),
        (ZEROS[:0], "neither of them 0"),
        (ZEROS[:, :0], "neither of them 0"),
        (np.int64(1), "shape"),
        (ZEROS - 1, "from -1 to -1; expected 0 to 1023"),
        (ZEROS + 1024, "from 1024 to 1024"),
        (np.full((2, 3), 2**64 - 1, np.uint64), "expected 0 to 1023"),
        (ZEROS[:, :2], "2 frames; expected 3 for 5000 samples"),
        (np.zeros((2, 4), int), "4 frames; expected 3"),
        (np.zeros((65_536, 3), np.uint8), "65536 layers"),
    ],
)
def test_codes_that_do_not_fit_are_refused(codes, match):
    with pytest.raises(CodesError, match=match):
        AudioCodes(codes, 24_000, 5_000)


NUMBERS = ["sampling_rate", "num_samples", "downsample_rate", "num_channels", "codebook_size"]


@pytest.mark.parametrize("value", [-1, 2**60, 1.0, True, "8", np.nan, np.float32(8)])
@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_that_do_not_fit_are_refused(name, value):
    options = {"sampling_rate": 24_000, "num_samples": 5_000} | {name: value}
    with pytest.raises(CodesError, match=name):
        AudioCodes(ZEROS, **options)


@pytest.mark.parametrize("name", ["sampling_rate", "num_samples", "num_channels", "codebook_size"])
def test_zero_is_refused(name):
    options = {"sampling_rate": 24_000, "num_samples": 5_000} | {name: 0}
    with pytest.raises(CodesError, match=f"{name} is 0"):
        AudioCodes(ZEROS, **options)


def test_zero_samples_a_frame_stands_for_12_and_a_half_frames_a_second():
    assert AudioCodes(ZEROS, 16_000, 3_000, downsample_rate=0).downsample_rate == 1280
    with pytest.raises(CodesError, match="pass downsample_rate"):
        AudioCodes(ZEROS, 22_055, 5_000)


@pytest.mark.parametrize("model", ["0123456789abcdef0", "ä", "a\0", "a\n", None, 5, b"ab"])
def test_models_that_do_not_fit_are_refused(model):
    with pytest.raises(CodesError, match="model is"):
        AudioCodes(ZEROS, 24_000, 5_000, model=model)


def test_numpy_integers_become_plain_ones():
    codes = AudioCodes(ZEROS, np.int32(24_000), np.uint64(5_000), num_channels=np.int8(2))
    assert {type(value) for value in codes.metadata.values()} == {int, str}


def test_the_codes_are_a_copy():
    mine = np.zeros((2, 3), np.int64)
    codes = AudioCodes(mine, 24_000, 5_000)
    mine[:] = 7
    assert codes.codes.max() == 0


def test_first_layers_are_the_same_clip_at_a_lower_bitrate():
    codes = random_codes(model="0123456789abcdef", num_channels=2)
    lower = codes.first(np.int64(3))
    np.testing.assert_array_equal(lower.codes, codes.codes[:3])
    assert lower.metadata == codes.metadata
    assert codes.first(8) == codes


@pytest.mark.parametrize("num_quantizers", [0, 9, -1, 2.0, True, None])
def test_other_numbers_of_layers_are_refused(num_quantizers):
    with pytest.raises(CodesError, match="num_quantizers is"):
        random_codes().first(num_quantizers)


def test_equality_is_of_codes_and_description():
    codes = random_codes()
    assert codes == random_codes()
    assert codes != random_codes(model="other")
    assert codes != codes.first(7)
    assert codes != AudioCodes(1023 - codes.codes, 24_000, codes.num_samples)
    assert codes != "codes"
    with pytest.raises(TypeError, match="unhashable"):
        hash(codes)


def test_repr_is_short():
    codes = AudioCodes(np.zeros((2, 30), np.int64), 24_000, 30 * 1920)
    assert repr(codes).startswith("AudioCodes(2 x 30 codes, sampling_rate=24000, num_samples=57600")
    assert len(repr(codes)) < 200
