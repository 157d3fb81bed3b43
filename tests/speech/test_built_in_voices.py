"""Named prompts in a model's folder: names, transcripts, and damage."""

import numpy as np
import pytest

from moss_audio_tokenizer.codes import AudioCodes, CodecInfo
from moss_audio_tokenizer.errors import (
    CheckpointError,
    CodesFileError,
    InputError,
    ModelMismatchError,
)
from moss_audio_tokenizer.speech.built_in_voices import BuiltInVoices

INFO = CodecInfo("0" * 16, 24_000, 1, 1920, 4, 8)
CODES = np.random.default_rng(0).integers(0, 8, (4, 5))


@pytest.fixture
def folder(tmp_path):
    """The folder of a model with two voices."""
    (tmp_path / "voices").mkdir()
    for name, text in (("ben", "c a\n"), ("anna", "  a b\n c ")):
        AudioCodes.of_codec(INFO, CODES, 5 * 1920).save(tmp_path / f"voices/{name}.moss")
        (tmp_path / f"voices/{name}.txt").write_text(text, "utf-8")
    return tmp_path


def test_voices_are_sorted_and_the_first_is_the_default(folder):
    voices = BuiltInVoices(folder)
    assert voices.names == ("anna", "ben")
    for name, found in (("", "anna"), ("anna", "anna"), ("ben", "ben")):
        voice = voices.find(name, INFO)
        assert voice.name == found
        assert voice.text == {"anna": "a b c", "ben": "c a"}[found]
        assert np.array_equal(voice.codes, CODES)


@pytest.mark.parametrize("empty", [True, False])
def test_models_without_voices_have_no_default(tmp_path, empty):
    voices = BuiltInVoices(tmp_path if empty else None)
    assert voices.names == ()
    assert voices.find("", INFO) is None
    with pytest.raises(InputError, match="no voice 'anna': this model has no built-in voices"):
        voices.check("anna")


def test_unknown_names_are_refused_with_the_known_ones(folder):
    voices = BuiltInVoices(folder)
    for name in ("carl", "../anna", "Anna", "default"):
        with pytest.raises(InputError, match=r"expected anna, ben$"):
            voices.find(name, INFO)


@pytest.mark.parametrize("name", ["a b", "default", "a" * 32, "é"])
def test_names_that_cannot_be(folder, name):
    (folder / "voices/ben.moss").rename(folder / f"voices/{name}.moss")
    with pytest.raises(CheckpointError, match="cannot be a voice's name"):
        BuiltInVoices(folder)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no transcript that can be read"),
        (b"\xff", "no transcript that can be read"),
        (b" \n", "has 2 bytes; expected the words"),
        (b"a " * 3000, "has 6000 bytes; expected the words"),
    ],
)
def test_damaged_transcripts_are_refused(folder, content, message):
    path = folder / "voices/anna.txt"
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    with pytest.raises(CheckpointError, match=message) as raised:
        BuiltInVoices(folder).find("anna", INFO)
    assert "\n" not in str(raised.value)


def test_damaged_codes_and_those_of_other_codecs_are_refused(folder):
    other = CodecInfo("f" * 16, 24_000, 1, 1920, 4, 8)
    with pytest.raises(ModelMismatchError, match="holds codes of the codec 0000"):
        BuiltInVoices(folder).find("anna", other)
    (folder / "voices/anna.moss").write_bytes(b"MOSS")
    with pytest.raises(CodesFileError):
        BuiltInVoices(folder).find("anna", INFO)
    assert BuiltInVoices(folder).find("ben", INFO).name == "ben"
