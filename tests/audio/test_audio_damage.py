"""Sound files that are missing, cut short, altered or something else: always our own errors."""

import os
import threading
from contextlib import suppress

import numpy as np
import pytest
from tones import FORMATS, riff

from moss_audio_tokenizer.audio import audio_info, load_audio, sndfile
from moss_audio_tokenizer.errors import AudioError, AudioFileError

FULL_OF_CHECKS = ["flac", "vorbis", "opus"]


def refuse(path, match="."):
    for read in (load_audio, audio_info):
        with pytest.raises(AudioFileError, match=match) as caught:
            read(path)
        assert "\n" not in str(caught.value)


def test_missing_file(tmp_path):
    refuse(tmp_path / "none.wav", "no such file")


def test_folder(tmp_path):
    refuse(tmp_path, "is a folder")


def test_empty_file(tmp_path):
    path = tmp_path / "empty.wav"
    path.touch()
    refuse(path, "is empty")


def test_file_below_a_file(make_sound):
    refuse(make_sound("wav-16")[0] / "inner.wav", "Not a directory")


def test_null_character_in_the_name():
    refuse("a\0b.wav", "null")


def test_pipe(tmp_path):
    os.mkfifo(tmp_path / "pipe.wav")
    refuse(tmp_path / "pipe.wav", "pipe or device")


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg", ".mp3", ".raw", ".txt"])
@pytest.mark.parametrize("content", [b"hello\n" * 1000, b"x", b"\xff" * 5000, bytes(5000)])
def test_no_sound(tmp_path, suffix, content):
    path = tmp_path / f"text{suffix}"
    path.write_bytes(content)
    refuse(path, "not a wav, flac, ogg, opus or mp3 file")


@pytest.mark.parametrize("kept", [0.01, 0.1, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("name", FORMATS)
def test_truncated_files(make_sound, name, kept):
    path, _ = make_sound(name, seconds=2)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * kept)])
    with pytest.raises(AudioFileError):
        load_audio(path)


@pytest.mark.parametrize("name", ["vorbis", "opus"])
def test_ogg_cut_between_two_pages(make_sound, name):
    path, _ = make_sound(name, seconds=3)
    data = path.read_bytes()
    path.write_bytes(data[: data.rindex(b"OggS")])
    refuse(path, "cut short")


@pytest.mark.parametrize("name", FULL_OF_CHECKS)
def test_altered_files_of_formats_with_checksums(make_sound, name):
    path, _ = make_sound(name, seconds=2)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x10
    path.write_bytes(data)
    with pytest.raises(AudioFileError):
        load_audio(path)


def test_wav_that_promises_more_than_it_holds(tmp_path):
    path = tmp_path / "lies.wav"
    path.write_bytes(riff(bytes(100), 1_000_000))
    refuse(path, "100 bytes of samples where its header promises 1000000")


def test_wav_that_promises_less_is_read_as_it_says(tmp_path):
    path = tmp_path / "modest.wav"
    path.write_bytes(riff(bytes(100), 50))
    assert load_audio(path).shape == (1, 25)


def test_wav_without_samples(tmp_path):
    path = tmp_path / "silent.wav"
    path.write_bytes(riff(b""))
    with pytest.raises(AudioFileError, match="holds no samples"):
        load_audio(path)


@pytest.mark.parametrize("name", FORMATS)
def test_random_damage_is_heard_or_refused_but_never_a_crash(make_sound, name):
    path, _ = make_sound(name)
    data = path.read_bytes()
    random = np.random.default_rng(0)
    for _ in range(60):
        altered = np.frombuffer(data, np.uint8).copy()
        # Most of them in the headers, where the structure is.
        end = len(data) if random.random() < 0.3 else 100
        altered[random.integers(0, end, 3)] = random.integers(0, 256, 3)
        path.write_bytes(altered[: random.integers(1, 2 * len(data))].tobytes())
        for read in (load_audio, audio_info):
            with suppress(AudioFileError, AudioError):
                read(path)


def test_mp3_that_vanishes_while_it_is_poured(make_sound, monkeypatch):
    path, _ = make_sound("mp3")
    monkeypatch.setattr(sndfile, "length_tag", lambda file, first: path.unlink())
    before = threading.active_count()
    with pytest.raises(AudioFileError):
        load_audio(path)
    assert threading.active_count() == before
