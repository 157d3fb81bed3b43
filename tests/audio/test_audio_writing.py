"""Writing wav and flac: exact, clipped, refused, and never half a file."""

import io
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile
from tones import RATE, names, tone

from moss_audio_tokenizer import files
from moss_audio_tokenizer.audio import encode_audio, load_audio, save_audio
from moss_audio_tokenizer.errors import AudioError, AudioFileError


def every_int16():
    values = np.arange(-(2**15), 2**15, dtype=np.int16)
    return np.stack([values, values[::-1]])


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".WAV"])
def test_int16_survives_bit_for_bit(tmp_path, suffix):
    path = tmp_path / f"exact{suffix}"
    save_audio(path, every_int16(), RATE)
    np.testing.assert_array_equal(soundfile.read(path, dtype="int16")[0].T, every_int16())
    copy = tmp_path / f"copy{suffix}"
    save_audio(copy, load_audio(path), RATE)
    assert copy.read_bytes() == path.read_bytes()


@pytest.mark.parametrize(("suffix", "low_bits"), [(".wav", 0), (".flac", 8)])
def test_int32_survives_in_the_widest_pcm(tmp_path, suffix, low_bits):
    path = tmp_path / f"wide{suffix}"
    samples = np.array([[-(2**31), -1 << low_bits, 0, 1 << 20, (2**23 - 1) << 8]], np.int32)
    save_audio(path, samples, RATE)
    np.testing.assert_array_equal(soundfile.read(path, dtype="int32", always_2d=True)[0].T, samples)


@pytest.mark.parametrize(("name", "subtype"), [("a.wav", "PCM_24"), ("a.flac", None)])
def test_int32_that_would_be_rounded_is_refused(tmp_path, name, subtype):
    with pytest.raises(AudioError, match="do not fit PCM_24"):
        save_audio(tmp_path / name, np.array([1], np.int32), RATE, subtype=subtype)
    assert names(tmp_path) == []


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "PCM_32"])
def test_floats_beyond_full_scale_are_clipped(tmp_path, subtype):
    save_audio(tmp_path / "loud.wav", [-9.0, -1.0, 1.0, 9.0], RATE, subtype=subtype)
    loaded = load_audio(tmp_path / "loud.wav")[0]
    np.testing.assert_allclose(loaded, [-1, -1, 1, 1], atol=2**-15)
    assert loaded[1] == -1


def test_float_subtype_keeps_every_value(tmp_path):
    samples = np.array([[-9.0, 1e-30, 0.1]], np.float32)
    save_audio(tmp_path / "float.wav", samples, RATE, subtype="FLOAT")
    np.testing.assert_array_equal(load_audio(tmp_path / "float.wav"), samples)


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.float16, np.float64])
def test_other_types_are_written_too(tmp_path, dtype):
    save_audio(tmp_path / "other.flac", np.ones((2, 5), dtype), RATE)
    assert load_audio(tmp_path / "other.flac").shape == (2, 5)


def test_long_audio_is_written_in_blocks_without_seams(tmp_path):
    samples = tone(seconds=8, channels=2)
    save_audio(tmp_path / "long.flac", samples, RATE)
    loaded = load_audio(tmp_path / "long.flac")
    assert np.abs(loaded - samples).max() <= 2**-16 + 1e-7


@pytest.mark.parametrize("rate", [8_000, 11_025, 22_050, 44_100, 192_000])
@pytest.mark.parametrize("suffix", [".wav", ".flac"])
def test_usual_rates_are_written(tmp_path, rate, suffix):
    save_audio(tmp_path / f"rate{suffix}", tone(seconds=0.1), rate)
    assert soundfile.info(tmp_path / f"rate{suffix}").samplerate == rate


def test_rate_that_flac_cannot_hold(tmp_path):
    with pytest.raises(AudioFileError, match=r"96001 samples a second .*use \.wav"):
        save_audio(tmp_path / "odd.flac", tone(), 96_001)
    assert names(tmp_path) == []


@pytest.mark.parametrize("name", ["a.mp3", "a.ogg", "a", ".wav", "a.wav.txt"])
def test_unknown_suffix(tmp_path, name):
    with pytest.raises(AudioFileError, match=r"expected \.wav or \.flac"):
        save_audio(tmp_path / name, tone(), RATE)


@pytest.mark.parametrize(
    ("audio", "rate", "subtype", "match"),
    [
        ([], RATE, None, "empty"),
        ([np.nan], RATE, None, "not finite"),
        ([np.inf], RATE, "FLOAT", "not finite"),
        (np.zeros((1, 1, 1)), RATE, None, "one clip"),
        (np.zeros(3, np.int64), RATE, None, "int64"),
        ([0.0], 100, None, "sampling rate"),
        ([0.0], 24e3, None, "sampling rate"),
        ([0.0], RATE, "PCM_U8", "subtype"),
        ([0.0], RATE, 16, "subtype"),
    ],
)
def test_unusable_audio_leaves_nothing(tmp_path, audio, rate, subtype, match):
    with pytest.raises(AudioError, match=match):
        save_audio(tmp_path / "bad.wav", audio, rate, subtype=subtype)
    assert names(tmp_path) == []


def test_flac_limits_are_explained(tmp_path):
    with pytest.raises(AudioError, match="at most 8"):
        save_audio(tmp_path / "many.flac", np.zeros((9, 5)), RATE)
    with pytest.raises(AudioError, match=r"PCM_16, PCM_24 for \.flac"):
        save_audio(tmp_path / "float.flac", [0.0], RATE, subtype="FLOAT")


def test_target_that_is_a_folder(tmp_path):
    (tmp_path / "folder.wav").mkdir()
    with pytest.raises(AudioFileError, match="Is a directory"):
        save_audio(tmp_path / "folder.wav", tone(), RATE)
    assert names(tmp_path) == ["folder.wav"]


def test_parent_that_is_missing_or_a_file(tmp_path):
    (tmp_path / "file").touch()
    for parent in ("missing", "file"):
        with pytest.raises(AudioFileError, match="cannot write"):
            save_audio(tmp_path / parent / "a.wav", tone(), RATE)


@pytest.mark.skipif(os.getuid() == 0, reason="root may write anywhere")
def test_folder_without_permission(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(AudioFileError, match="Permission denied"):
        save_audio(tmp_path / "a.wav", tone(), RATE)


@pytest.mark.parametrize("moment", ["write_bytes", "replace"])
def test_failure_keeps_the_old_file_and_no_temporary(tmp_path, monkeypatch, moment):
    path = tmp_path / "kept.wav"
    save_audio(path, tone(), RATE)
    before = path.read_bytes()

    def fail(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, moment, fail)
    with pytest.raises(AudioFileError, match=r"kept\.wav': No space left on device"):
        save_audio(path, tone(880), RATE)
    assert path.read_bytes() == before
    assert names(tmp_path) == ["kept.wav"]


def test_trouble_of_libsndfile_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "kept.flac"
    save_audio(path, tone(), RATE)

    def fail(*arguments):
        raise soundfile.LibsndfileError(1)

    monkeypatch.setattr(soundfile.SoundFile, "write", fail)
    with pytest.raises(AudioFileError, match="cannot write"):
        save_audio(path, tone(880), RATE)
    assert load_audio(path).shape == (1, 9_600)
    assert names(tmp_path) == ["kept.flac"]


def test_overwriting_replaces_the_whole_file(tmp_path):
    save_audio(tmp_path / "new.wav", tone(seconds=1), RATE)
    save_audio(tmp_path / "new.wav", tone(seconds=0.1), RATE)
    assert load_audio(tmp_path / "new.wav").shape == (1, 2_400)
    assert files.require_file(tmp_path / "new.wav", error=AudioFileError) == 44 + 2 * 2_400


@pytest.mark.parametrize("extension", [".wav", ".flac", ".opus"])
def test_encoded_audio_is_the_same_every_time_and_reads_back(extension):
    audio = np.sin(np.arange(24_000) * 0.1, dtype=np.float32)[None] * 0.5
    data = encode_audio(audio, 24_000, extension)
    assert data == encode_audio(audio, 24_000, extension)
    back = load_audio(io.BytesIO(data))
    assert back.shape == audio.shape
    assert np.abs(back - audio)[:, 2000:-2000].max() < (0.1 if extension == ".opus" else 1e-4)


@pytest.mark.parametrize(
    ("rate", "extension"), [(44_100, ".opus"), (96_001, ".flac"), (8_000, ".ogg")]
)
def test_formats_that_cannot_hold_the_audio_are_refused(rate, extension):
    with pytest.raises(AudioFileError):
        encode_audio(np.zeros(100), rate, extension)
