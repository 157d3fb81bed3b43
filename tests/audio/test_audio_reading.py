"""Reading sound files of every format, whole ones."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
from tones import FORMATS, RATE, riff, tone

from moss_audio_tokenizer.audio import audio_info, load_audio, read_audio
from moss_audio_tokenizer.errors import AudioError, AudioFileError


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_its_samples(make_sound, name, channels):
    path, expected = make_sound(name, channels=channels)
    samples, rate = read_audio(path)
    assert (rate, samples.dtype, samples.shape) == (RATE, np.float32, expected.shape)
    inside = slice(2400, -2400)  # opus hears the sudden start and end
    assert np.abs(samples - expected)[:, inside].max() <= FORMATS[name][3]


@pytest.mark.parametrize("name", FORMATS)
def test_info_agrees_with_what_is_read(make_sound, name):
    path, _ = make_sound(name, channels=2)
    info = audio_info(path)
    assert (info.num_samples, info.sampling_rate, info.num_channels) == (9_600, RATE, 2)
    assert info.duration_seconds == 0.4


@pytest.mark.parametrize("rate", [8_000, 11_025, 16_000, 22_050, 44_100, 48_000, 96_000, 192_000])
def test_every_rate_is_brought_to_the_wanted_one(make_sound, rate):
    path, _ = make_sound("wav-float", rate=rate)
    samples = load_audio(path, 24_000)
    assert samples.shape == (1, 9_600)
    assert np.abs(samples - tone())[:, 1000:-1000].max() < 2e-3


def test_channels_are_mixed_and_repeated(make_sound):
    path, expected = make_sound("wav-float", channels=2)
    np.testing.assert_allclose(load_audio(path, channels=1)[0], expected.mean(axis=0), atol=1e-7)
    assert load_audio(path, channels=2).shape == (2, 9_600)
    path, expected = make_sound("wav-24", channels=1)
    assert load_audio(path, channels=2).shape == (2, 9_600)


def test_file_of_six_channels_mixes_to_mono_and_stereo(make_sound):
    path, expected = make_sound("flac", channels=6)
    assert load_audio(path, channels=1).shape == (1, 9_600)
    front_left, front_right, center, _, back_left, back_right = expected
    half = 0.5**0.5
    stereo = load_audio(path, channels=2)
    left = (front_left + half * center + half * back_left) / (1 + 2 * half)
    right = (front_right + half * center + half * back_right) / (1 + 2 * half)
    np.testing.assert_allclose(stereo, [left, right], atol=1e-4)
    with pytest.raises(AudioError, match="cannot make 3 channels from 6"):
        load_audio(path, channels=3)


def test_content_counts_not_the_extension(make_sound):
    path, expected = make_sound("flac")
    renamed = path.rename(path.with_suffix(".mp3"))
    assert load_audio(str(renamed)).shape == expected.shape


def test_mp3_without_a_length_tag_is_read_to_its_end(make_sound):
    path, expected = make_sound("mp3", seconds=3)
    data = path.read_bytes()
    tag = max(data.find(b"Xing"), data.find(b"Info"))
    assert tag > 0
    path.write_bytes(data[data.index(data[:2], tag) :])  # from the second frame on
    samples, _ = read_audio(path)
    assert samples.shape[1] >= expected.shape[1]
    assert audio_info(path).num_samples == samples.shape[1]


@pytest.mark.parametrize("declared", [0x7FFFFFFF, 0xFFFFFFFF])
def test_wav_written_to_a_pipe_does_not_know_its_size(tmp_path, declared):
    path = tmp_path / "piped.wav"
    path.write_bytes(riff(b"\0\x40" * 100, declared))
    np.testing.assert_array_equal(load_audio(path), np.full((1, 100), 0.5, np.float32))


def test_chunks_before_and_after_the_samples_are_skipped(tmp_path):
    path = tmp_path / "chunks.wav"
    path.write_bytes(riff(b"\0\x40" * 10, 10, b"note\3\0\0\0abc\0") + b"LIST\0\0\0\0")
    assert load_audio(path).shape == (1, 5)


@pytest.mark.parametrize("options", [{"sampling_rate": 100}, {"sampling_rate": 24e3}])
def test_impossible_rates_are_refused_before_the_file_is_opened(options):
    with pytest.raises(AudioError, match="sampling rate"):
        load_audio("nowhere.wav", **options)


@pytest.mark.parametrize("channels", [0, -2, 1.0, "1", True])
def test_impossible_channel_counts_are_refused(make_sound, channels):
    with pytest.raises(AudioError, match="channels"):
        load_audio(make_sound("wav-16")[0], channels=channels)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_samples_that_are_not_finite_are_refused_by_name(tmp_path, value):
    path = tmp_path / "bad.wav"
    soundfile.write(path, np.array([0, 0, value], np.float32), RATE, "FLOAT")
    with pytest.raises(AudioError, match=r"bad\.wav' is not finite: sample 2 of channel 0"):
        load_audio(path)


def test_files_are_closed(make_sound):
    path, _ = make_sound("mp3")
    before = len(list(Path("/proc/self/fd").iterdir()))
    load_audio(path)
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(AudioFileError):
        load_audio(path)
    assert len(list(Path("/proc/self/fd").iterdir())) == before
