"""Files of codes: what is written is read back; places that cannot be written to."""

import os
from pathlib import Path

import numpy as np
import pytest
from examples import SUFFIXES, names, random_codes
from hypothesis import given, settings
from hypothesis import strategies as st

from moss_audio_tokenizer import AudioCodes
from moss_audio_tokenizer.errors import CodesFileError

repeatable = settings(derandomize=True, deadline=None, max_examples=100)


@pytest.mark.parametrize("codebook_size", [2, 1000, 1024, 32_768, 32_769, 65_536])
@pytest.mark.parametrize("suffix", [*SUFFIXES, ".MOSS"])
def test_codes_come_back(tmp_path, suffix, codebook_size):
    options = {"num_channels": 2, "model": "0123456789abcdef"}
    codes = random_codes(codebook_size=codebook_size, **options)
    codes.codes[0, 0] = codebook_size - 1
    codes.save(tmp_path / f"clip{suffix}")
    loaded = AudioCodes.load(str(tmp_path / f"clip{suffix}"))
    assert loaded == codes
    assert loaded.codes.dtype == np.int64


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_extremes_of_the_description_come_back(tmp_path, suffix):
    path = tmp_path / f"extreme{suffix}"
    for codes in (
        AudioCodes(
            [[65_535]], 2**32 - 1, 2**32 - 1, downsample_rate=2**32 - 1, codebook_size=65_536
        ),
        AudioCodes([[0]], 1, 1, downsample_rate=1, num_channels=65_535, codebook_size=2),
        AudioCodes(np.zeros((65_535, 1), int), 24_000, 1, model=" 0 "),
        AudioCodes(np.zeros((1, 2**17), int), 24_000, 2**48, downsample_rate=2**31),
    ):
        codes.save(path)
        assert AudioCodes.load(path) == codes


@repeatable
@given(st.integers(2, 65_536), st.integers(1, 33), st.integers(1, 30), st.text("0f ", max_size=16))
def test_moss_bytes_come_back_and_stay_small(codebook_size, num_quantizers, num_frames, model):
    codes = random_codes(num_quantizers, num_frames, codebook_size, model=model)
    data = codes.to_bytes()
    assert AudioCodes.from_bytes(data) == codes
    assert 0 < len(data) - codes.codes.size * codes.bits_per_code / 8 <= 128


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_same_codes_give_the_same_bytes(tmp_path, suffix):
    for name in ("a", "b"):
        random_codes().save(tmp_path / f"{name}{suffix}")
    assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix}").read_bytes()


def test_arrays_of_other_layouts_are_read(tmp_path):
    codes = random_codes()
    codes.save(tmp_path / "plain.npz")
    arrays = dict(np.load(tmp_path / "plain.npz"))
    arrays["codes"] = np.asfortranarray(arrays["codes"].astype(">u4"))
    np.savez(tmp_path / "other.npz", **arrays)
    assert AudioCodes.load(tmp_path / "other.npz") == codes


@pytest.mark.parametrize("name", ["a", "a.wav", "a.moss.txt", ".moss", ""])
def test_unknown_suffix(tmp_path, name):
    with pytest.raises(CodesFileError, match=r"expected one of \.moss, \.safetensors, \.npz"):
        random_codes().save(tmp_path / name)
    with pytest.raises(CodesFileError, match="expected one of"):
        AudioCodes.load(tmp_path / name)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_places_that_cannot_be_written_to(tmp_path, suffix):
    (tmp_path / "file").touch()
    (tmp_path / f"folder{suffix}").mkdir()
    for place in (f"missing/a{suffix}", f"file/a{suffix}", f"folder{suffix}", f"a\0{suffix}"):
        with pytest.raises(CodesFileError, match="cannot write"):
            random_codes().save(tmp_path / place)
    assert names(tmp_path) == ["file", f"folder{suffix}"]


@pytest.mark.skipif(os.getuid() == 0, reason="root may write anywhere")
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_folder_without_permission(tmp_path, suffix):
    tmp_path.chmod(0o500)
    with pytest.raises(CodesFileError, match="Permission denied"):
        random_codes().save(tmp_path / f"a{suffix}")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_failure_keeps_the_old_file_and_no_temporary(tmp_path, monkeypatch, suffix):
    path = tmp_path / f"kept{suffix}"
    random_codes().save(path)

    def fail(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(CodesFileError, match="No space left"):
        random_codes(3).save(path)
    assert AudioCodes.load(path) == random_codes()
    assert names(tmp_path) == [path.name]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_files_that_are_not_there(tmp_path, suffix):
    (tmp_path / f"folder{suffix}").mkdir()
    (tmp_path / f"empty{suffix}").touch()
    os.mkfifo(tmp_path / f"pipe{suffix}")
    for name, match in (
        ("missing", "no such file"),
        ("folder", "is a folder"),
        ("empty", "is empty"),
        ("pipe", "is a pipe"),
        ("nu\0ll", "null"),
    ):
        with pytest.raises(CodesFileError, match=match):
            AudioCodes.load(tmp_path / f"{name}{suffix}")
