"""Crops of files: the samples of the whole file, without decoding all of it."""

import io

import numpy as np
import pytest
import soundfile
from tones import FORMATS

from moss_audio_tokenizer.audio import crop_start, load_audio, load_crop
from moss_audio_tokenizer.errors import AudioError, AudioFileError

PLACES = (0.0, 0.001, 0.31, 0.77, 1.0)


def noise(path, rate: int, seconds: float = 3.0, channels: int = 1, **options):
    random = np.random.default_rng(rate)
    soundfile.write(
        path, random.uniform(-0.5, 0.5, (round(rate * seconds), channels)), rate, **options
    )
    return path


@pytest.mark.parametrize("wanted", [8_000, 24_000, 44_100])
@pytest.mark.parametrize("rate", [8_000, 11_025, 24_000, 44_100, 48_000, 192_000])
def test_a_crop_is_a_part_of_the_whole_at_every_rate(tmp_path, rate, wanted):
    path = noise(tmp_path / "x.wav", rate, subtype="FLOAT")
    whole = load_audio(path, wanted, 1)
    for place in PLACES:
        crop = load_crop(path, place, 5_000, wanted, 1)
        start = crop_start(whole.shape[1], 5_000, place)
        np.testing.assert_allclose(crop, whole[:, start : start + 5_000], atol=2e-6)


@pytest.mark.parametrize("name", FORMATS)
def test_a_crop_is_a_part_of_the_whole_in_every_format(make_sound, name):
    path, _ = make_sound(name, seconds=3, channels=2)
    whole = load_audio(path, 16_000, 1)
    for place in PLACES:
        start = crop_start(whole.shape[1], 4_000, place)
        crop = load_crop(path, place, 4_000, 16_000, 1)
        np.testing.assert_allclose(crop, whole[:, start : start + 4_000], atol=1e-5)


def test_an_mp3_without_a_length_tag_is_decoded_whole(make_sound):
    path, _ = make_sound("mp3", seconds=3)
    data = path.read_bytes()
    tag = max(data.find(b"Xing"), data.find(b"Info"))
    path.write_bytes(data[data.index(data[:2], tag) :])
    whole = load_audio(path, 16_000, 1)
    crop = load_crop(path, 1.0, 4_000, 16_000, 1)
    np.testing.assert_array_equal(crop, whole[:, -4_000:])
    data = io.BytesIO(path.read_bytes())
    np.testing.assert_array_equal(load_crop(data, 1.0, 4_000, 16_000, 1), crop)


def test_only_a_part_is_decoded(tmp_path, monkeypatch):
    path = noise(tmp_path / "x.flac", 24_000, seconds=20.0)
    read, asked = soundfile.SoundFile.read, []

    def counted(self, frames=-1, *arguments, **options):
        asked.append(frames)
        return read(self, frames, *arguments, **options)

    monkeypatch.setattr(soundfile.SoundFile, "read", counted)
    load_crop(path, 0.5, 2_400, 24_000, 1)
    assert sum(asked) < 5_000


def test_a_short_file_is_given_whole(tmp_path):
    path = noise(tmp_path / "x.wav", 16_000, seconds=0.1)
    np.testing.assert_array_equal(
        load_crop(path, 0.9, 9_000, 24_000, 2), load_audio(path, 24_000, 2)
    )


@pytest.mark.parametrize("name", FORMATS)
def test_file_objects_are_read_like_files(make_sound, name):
    path, _ = make_sound(name, seconds=2)
    data = io.BytesIO(path.read_bytes())
    np.testing.assert_array_equal(load_audio(data), load_audio(path))
    np.testing.assert_array_equal(
        load_crop(data, 0.5, 900, 16_000, 1), load_crop(path, 0.5, 900, 16_000, 1)
    )


@pytest.mark.parametrize("data", [b"", b"no sound" * 100])
def test_file_objects_without_sound_are_refused(data):
    with pytest.raises(AudioFileError, match="audio in memory"):
        load_audio(io.BytesIO(data))


@pytest.mark.parametrize("name", FORMATS)
def test_cut_file_objects_are_refused(make_sound, name):
    path, _ = make_sound(name, seconds=2)
    data = path.read_bytes()
    with pytest.raises(AudioFileError, match="audio in memory"):
        load_audio(io.BytesIO(data[: len(data) // 2]))


def test_a_crop_of_a_cut_file_is_refused_where_samples_are_missing(tmp_path):
    path = noise(tmp_path / "x.flac", 24_000)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(AudioFileError):
        load_crop(path, 0.9, 2_400, 24_000, 1)


def test_a_crop_that_is_not_finite_is_refused(tmp_path):
    samples = np.zeros(48_000, np.float32)
    samples[40_000] = np.inf
    soundfile.write(tmp_path / "x.wav", samples, 24_000, subtype="FLOAT")
    with pytest.raises(AudioError, match="not finite"):
        load_crop(tmp_path / "x.wav", 1.0, 10_000, 24_000, 1)
    assert load_crop(tmp_path / "x.wav", 0.0, 10_000, 24_000, 1).shape == (1, 10_000)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(AudioFileError, match="no such file"):
        load_crop(tmp_path / "x.wav", 0.0, 100, 24_000, 1)
