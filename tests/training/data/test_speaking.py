"""Speech by espeak-ng: who says what, the folder that is written, and going on with it."""

import itertools
import json
import shutil
import subprocess

import numpy as np
import pytest

from moss_audio_tokenizer.audio import audio_info, load_audio
from moss_audio_tokenizer.errors import AudioFileError, InputError, MissingDependencyError
from moss_audio_tokenizer.manifest import read_manifest
from moss_audio_tokenizer.training.data import speaking
from moss_audio_tokenizer.training.data.speaking import Speaking, plan, speak
from moss_audio_tokenizer.training.data.spelling import pronunciation, spelling

installed = pytest.mark.skipif(
    shutil.which("espeak-ng") is None, reason="espeak-ng is not installed"
)


def planned(count: int, **wanted) -> list:
    return list(plan([f"text {n}" for n in range(count)], Speaking(**wanted), str.upper))


def test_a_plan_follows_from_the_seed_however_many_texts_follow():
    assert planned(20) == planned(40)[:20]
    assert planned(20) != planned(20, seed=1)
    assert planned(1)[0].spoken == "TEXT 0"


def test_speakers_come_again_and_have_names_of_their_own():
    utterances = planned(400, num_speakers=12)
    speakers = {one.speaker for one in utterances}
    assert len({one.speaker.name for one in utterances}) == len(speakers) == 12
    assert len({one.words_a_minute for one in utterances}) > 40


def test_about_the_share_that_is_asked_for_is_for_validation():
    count = sum(one.split == "valid" for one in planned(2000, valid_share=0.1))
    assert 150 < count < 250
    assert all(one.split == "train" for one in planned(200, valid_share=0))


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"num_speakers": 0}, "expected 1 to"),
        ({"num_speakers": 1000, "voices": ("en-us",)}, "1 to 40, .* --speakers"),
        ({"num_speakers": 41, "voices": ("en-us", "en-us")}, "expected 1 to 40"),
        ({"num_speakers": 1000, "voices": ("",)}, "got voice ''"),
        ({"voices": ("en-us", "en\0gb")}, r"got voice 'en\\x00gb'"),
        ({"voices": ()}, "got no voices"),
        ({"valid_share": 1.0}, "expected 0 up to 1"),
    ],
)
def test_impossible_wishes_are_refused(wanted, message):
    with pytest.raises(InputError, match=message):
        Speaking(**wanted)


def test_speakers_are_as_many_as_usual_or_as_the_voices_have():
    assert Speaking().num_speakers == 60
    assert Speaking(voices=("en-us",)).num_speakers == len(speaking.VARIANTS)
    twice = Speaking(voices=("en-us", "en-gb", "en-us"))
    assert twice.voices == ("en-us", "en-gb")
    assert twice == Speaking(voices=("en-us", "en-gb"))


def test_without_the_program_the_message_names_its_package(monkeypatch, tmp_path):
    monkeypatch.setattr(speaking.shutil, "which", lambda _: None)
    with pytest.raises(MissingDependencyError, match="apt install espeak-ng"):
        speak(["one"], Speaking(), tmp_path / "out")


@installed
def test_a_folder_of_speech_and_its_manifest(tmp_path):
    out, done = tmp_path / "out", []
    texts = ["  one   two ", "", "three [[ four", "-q"]
    summary = speak(texts, Speaking(num_speakers=2), out, advance=done.append)
    entries = read_manifest(out / "manifest.jsonl")
    assert [entry.text for entry in entries] == ["one two", "three [[ four", "-q"]
    assert {entry.language for entry in entries} == {"en"}
    assert done == [1, 2, 3]
    assert summary["clips"] == 3
    assert summary["seconds"] == pytest.approx(sum(entry.seconds for entry in entries), abs=1e-3)
    for entry in entries:
        info = audio_info(entry.path)
        assert (info.sampling_rate, info.num_channels) == (24_000, 1)
        assert info.duration_seconds == pytest.approx(entry.seconds, abs=1e-5)
        assert np.abs(load_audio(entry.path, 24_000, 1)).max() > 0.1


@installed
def test_a_folder_that_is_unfinished_is_finished_and_a_whole_one_left_alone(tmp_path):
    out, texts = tmp_path / "out", spelling(3, 0)
    speak(texts, Speaking(), out, pronunciation)
    whole = (out / "manifest.jsonl").read_bytes()
    with pytest.raises(InputError, match="holds other files"):
        speak(texts, Speaking(), out, pronunciation)
    (out / "manifest.jsonl").unlink()
    kept, gone = out / "audio/000/000000.flac", out / "audio/000/000002.flac"
    gone.unlink()
    before = kept.stat().st_mtime_ns
    with pytest.raises(InputError, match="holds other files"):
        speak(texts, Speaking(seed=1), out, pronunciation)
    speak(texts, Speaking(), out, pronunciation)
    assert (out / "manifest.jsonl").read_bytes() == whole
    assert kept.stat().st_mtime_ns == before
    assert gone.is_file()


@installed
def test_all_default_voices_are_there_and_an_unknown_one_is_refused(tmp_path):
    speak(["one"], Speaking(), tmp_path / "out")
    with pytest.raises(InputError, match="'klingon-x'"):
        speak(["one"], Speaking(voices=("klingon-x",), num_speakers=1), tmp_path / "other")
    assert not (tmp_path / "other").exists()
    with pytest.raises(InputError, match="got no texts"):
        speak([" "], Speaking(), tmp_path / "other")


@installed
def test_a_program_that_fails_is_named_and_leaves_no_manifest(tmp_path, monkeypatch):
    fails = tmp_path / "fails"
    fails.write_text("#!/bin/sh\ncase $* in *-w*) echo out of breath >&2; exit 3;; esac\n")
    fails.chmod(0o755)
    monkeypatch.setattr(speaking.shutil, "which", lambda _: str(fails))
    with pytest.raises(AudioFileError, match=r"'one' .*status 3\): out of breath"):
        speak(["one"], Speaking(), tmp_path / "out")
    assert not (tmp_path / "out" / "manifest.jsonl").exists()


@installed
@pytest.mark.parametrize("voice", speaking.VOICES)
def test_letters_are_said_by_their_names(voice):
    def phonemes(*texts):
        said = "\n\n".join(map(pronunciation, texts))
        arguments = ["espeak-ng", "-q", "-x", "-v", voice, "--stdin"]
        done = subprocess.run(arguments, input=said.encode(), capture_output=True, check=True)
        return [line.split() for line in done.stdout.decode().splitlines() if line.strip()]

    letters = "abehiorsuy"
    pairs = [f"{first} {second}" for first, second in itertools.product(letters, repeat=2)]
    found = phonemes(*pairs)
    assert all(len(words) == 2 for words in found)
    # No letter is an article or a pronoun without stress, whatever stands beside it.
    assert all(word.startswith(("'", "j'", "w'", "b'", "dZ'")) for pair in found for word in pair)


@installed
def test_the_manifest_is_json_of_known_keys(tmp_path):
    speak(["yes"], Speaking(num_speakers=1, voices=("en-us",)), tmp_path / "out")
    line = json.loads((tmp_path / "out" / "manifest.jsonl").read_text())
    assert list(line) == [
        *("path", "text", "speaker", "language", "split", "seconds"),
        *("sample_rate", "channels", "domain"),
    ]
    assert line["speaker"].startswith("espeak-en-us-")
