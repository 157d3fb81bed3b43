"""Arrays of samples: types, shapes, channels, and what is refused."""

import numpy as np
import pytest
import torch

from moss_audio_tokenizer.audio import (
    as_float_audio,
    check_audio,
    convert_channels,
    encode_audio,
    resample,
    save_audio,
)
from moss_audio_tokenizer.errors import AudioError

EXTREMES = [
    (np.array([-32768, 0, 32767], np.int16), [-1, 0, 1 - 2**-15]),
    (np.array([-(2**31), 0, 2**30], np.int32), [-1, 0, 0.5]),
    (np.array([-128, 0, 127], np.int8), [-1, 0, 127 / 128]),
    (np.array([0, 128, 255], np.uint8), [-1, 0, 127 / 128]),
    (np.array([-1, 0.5, 2], np.float16), [-1, 0.5, 2]),
    (np.array([-1, 0.5, 2], np.float64), [-1, 0.5, 2]),
    (np.array([-32768, 0, 16384], ">i2"), [-1, 0, 0.5]),
    (np.array([-1, 0.5, 2], ">f4"), [-1, 0.5, 2]),
]


@pytest.mark.parametrize(("samples", "expected"), EXTREMES, ids=lambda value: str(value)[:20])
def test_pcm_and_floats_become_float32_of_full_scale_one(samples, expected):
    converted = as_float_audio(samples)
    assert converted.dtype == np.dtype("=f4")
    np.testing.assert_array_equal(converted, np.array(expected, np.float32))


def test_float32_is_not_copied():
    samples = np.zeros((1, 3), np.float32)
    assert check_audio(samples) is samples


@pytest.mark.parametrize(
    "audio",
    [
        np.zeros(4, np.int64),
        np.zeros(4, np.uint16),
        np.zeros(4, bool),
        np.zeros(4, complex),
        np.array(["a"]),
        np.array([None]),
        [[1.0, 2.0], [3.0]],
        "sound",
        None,
    ],
    ids=["int64", "uint16", "bool", "complex", "text", "object", "ragged", "str", "None"],
)
def test_types_that_are_no_samples_are_refused(audio):
    with pytest.raises(AudioError, match=r"expected floats|rectangular"):
        check_audio(audio)


@pytest.mark.parametrize("shape", [(), (1, 1, 8), (2, 1, 1, 4)])
def test_other_ranks_are_refused(shape):
    with pytest.raises(AudioError, match="pass one clip at a time"):
        check_audio(np.zeros(shape, np.float32))


@pytest.mark.parametrize("audio", [[], np.zeros((2, 0)), np.zeros((0, 5), np.int16)])
def test_empty_audio_is_refused(audio):
    with pytest.raises(AudioError, match="empty"):
        check_audio(audio)


def test_samples_first_is_refused_with_the_remedy():
    with pytest.raises(AudioError, match="transpose it"):
        check_audio(np.zeros((24_000, 2), np.float32))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_the_earliest_sample_that_is_not_finite_is_named(value):
    audio = np.zeros((2, 10), np.float32)
    audio[0, 7] = audio[1, 4] = value
    with pytest.raises(AudioError, match="sample 4 of channel 1 is"):
        check_audio(audio)


def test_float64_beyond_float32_is_not_finite():
    with pytest.raises(AudioError, match="not finite"):
        check_audio(np.array([1e300]))


def test_mono_is_the_mean_and_stereo_repeats():
    stereo = np.array([[1, 0.5], [0, 0.5]], np.float32)
    np.testing.assert_array_equal(convert_channels(stereo, 1), [[0.5, 0.5]])
    np.testing.assert_array_equal(convert_channels(stereo[:1], 2), [[1, 0.5], [1, 0.5]])
    assert convert_channels(stereo, 2) is stereo


def test_mean_of_equal_channels_is_that_channel():
    channel = np.random.default_rng(0).standard_normal(1000).astype(np.float32)
    np.testing.assert_array_equal(convert_channels(np.stack([channel] * 5), 1)[0], channel)


@pytest.mark.parametrize("channels", [0, -1, 3, 1.0, True, "2"])
def test_other_channel_conversions_are_refused(channels):
    with pytest.raises(AudioError, match="channels"):
        convert_channels(np.zeros((2, 3), np.float32), channels)


UNREADABLE = {
    "with gradients": torch.zeros(8, requires_grad=True),
    "bfloat16": torch.zeros(8, dtype=torch.bfloat16),
    "without values": torch.zeros(8, device="meta"),
    "sparse": torch.zeros(8).to_sparse(),
}


@pytest.mark.parametrize("tensor", UNREADABLE.values(), ids=UNREADABLE)
def test_tensors_that_numpy_cannot_read_are_refused_with_the_remedy(tmp_path, tensor):
    path = tmp_path / "x.wav"
    for use in (
        as_float_audio,
        lambda audio: save_audio(path, audio, 24_000),
        lambda audio: encode_audio(audio, 24_000, ".flac"),
        lambda audio: resample(audio, 24_000, 16_000),
    ):
        with pytest.raises(AudioError, match=r"detach\(\)\.float\(\)\.cpu\(\)\.numpy\(\)"):
            use(tensor)
    assert not path.exists()


def test_tensors_that_numpy_reads_are_written(tmp_path):
    save_audio(tmp_path / "x.wav", torch.zeros(8, dtype=torch.half), 24_000)
    assert (tmp_path / "x.wav").is_file()
