"""`moss-audio data`: options, exit codes and what is printed."""

import json
import shutil

import pytest

from moss_audio_tokenizer.training.data.spelling import spelling


def manifest_of(path, *lines) -> str:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(path)


def test_a_table_a_summary_and_a_note_about_errors(moss_audio, write_wav, tmp_path):
    write_wav("a.wav")
    lines = ({"path": "a.wav", "text": "one"}, {"path": "none.wav"})
    manifest = manifest_of(tmp_path / "m.jsonl", *lines)
    result = moss_audio("data", "prepare", manifest, "-o", tmp_path / "out", "--split", "train")
    assert result.exit_code == 0, result.output
    assert "speech" in result.stdout
    assert "duplicates" in result.stdout
    assert result.stderr.startswith("1 recordings could not be used")
    assert (tmp_path / "out" / "shards" / "train-000000.tar").is_file()


def test_json_is_the_summary(json_of, write_wav, tmp_path, names_in):
    write_wav("sounds/a.wav")
    write_wav("sounds/deep/b.wav", num_samples=2000)
    options = ("--format", "opus", "--sampling-rate", 24_000, "--channels", 1, "--domain", "sound")
    output = tmp_path / "out"
    found = json_of("data", "prepare", tmp_path / "sounds", "-o", output, *options)
    assert found["clips"] == 2
    assert found["groups"][0]["domain"] == "sound"
    assert json.loads((output / "summary.json").read_text()) == found
    assert names_in(output) == {
        "errors.jsonl",
        "prepare.json",
        "summary.json",
        "summary.md",
        "shards/train-000000.tar",
    }


def test_bad_input_ends_in_one_line(refused, write_wav, tmp_path):
    write_wav("a.wav")
    manifest = manifest_of(tmp_path / "m.jsonl", {"path": "a.wav"})
    prepare = ("data", "prepare")
    assert "no manifest" in refused(*prepare, tmp_path / "none.jsonl", "-o", tmp_path / "out")
    assert "expected flac, opus, copy" in refused(
        *prepare, manifest, "-o", tmp_path / "out", "--format", "mp3"
    )
    assert "nothing of the splits test" in refused(
        *prepare, manifest, "-o", tmp_path / "out", "--split", "test"
    )
    assert "holds other files" in refused(*prepare, manifest, "-o", tmp_path)
    assert "Missing option" in refused(*prepare, manifest)


def test_the_group_shows_its_help(moss_audio):
    result = moss_audio("data", "--help")
    assert result.exit_code == 0
    assert "prepare" in result.stdout


@pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="espeak-ng is not installed")
def test_speech_of_a_file_of_texts_and_of_made_up_ones(moss_audio, json_of, tmp_path):
    (tmp_path / "texts.txt").write_text("good morning\n\n good night\n")
    options = ("--voice", "en-gb", "--speakers", 2, "--seed", 5)
    texts = ("--texts", tmp_path / "texts.txt")
    found = json_of("data", "speak", *texts, "-o", tmp_path / "a", *options)
    assert found["clips"] == 2
    result = moss_audio("data", "speak", "--spelling", 3, "-o", tmp_path / "b", *options)
    assert result.exit_code == 0, result.output
    assert "clips" in result.stdout
    lines = (tmp_path / "b" / "manifest.jsonl").read_text().splitlines()
    assert [json.loads(line)["text"] for line in lines] == spelling(3, 5)


@pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="espeak-ng is not installed")
def test_a_voice_needs_no_number_of_speakers(json_of, tmp_path):
    voices = ("--voice", "en-gb", "--voice", "en-gb")
    found = json_of("data", "speak", "--spelling", 2, "-o", tmp_path / "out", *voices)
    assert found["clips"] == 2
    settings = json.loads((tmp_path / "out" / "speak.json").read_text())
    assert settings["voices"] == ["en-gb"]
    assert settings["num_speakers"] == 40


@pytest.mark.parametrize("voice", ["", " ", "en\0gb", "en\ngb"])
def test_what_is_no_name_of_a_voice_is_refused_before_anything_is_written(refused, tmp_path, voice):
    out = tmp_path / "out"
    line = refused("data", "speak", "--spelling", 2, "-o", out, "--voice", voice)
    assert f"got voice {voice!r}" in line
    assert not out.exists()


def test_too_many_speakers_for_the_voices(refused, tmp_path):
    options = ("--voice", "en-gb", "--speakers", 41)
    line = refused("data", "speak", "--spelling", 2, "-o", tmp_path / "out", *options)
    assert "got 41 speakers; expected 1 to 40" in line
    assert "--speakers" in line


def test_speaking_takes_one_source_of_texts(refused, tmp_path):
    speak = ("data", "speak", "-o", tmp_path / "out")
    assert "one of --texts and --spelling" in refused(*speak)
    assert "one of --texts and --spelling" in refused(*speak, "--texts", "a", "--spelling", 2)
    assert "cannot be read as text" in refused(*speak, "--texts", tmp_path / "none.txt")


def test_a_public_test_set_becomes_a_manifest(moss_audio, json_of, refused, write_wav, tmp_path):
    write_wav("musdb/test/A - B/mixture.wav")
    output = tmp_path / "clips.jsonl"
    found = json_of("data", "prepare", "musdb", tmp_path / "musdb", "-o", output)
    assert (found["clips"], found["absent"]) == (1, 0)
    assert json.loads(output.read_text())["path"] == "musdb/test/A - B/mixture.wav"
    line = refused("data", "prepare", "librispeech", tmp_path / "musdb", "-o", output)
    assert "not laid out as librispeech" in line
    line = refused("data", "prepare", "musdb", tmp_path / "musdb", "-o", tmp_path)
    assert "name the manifest" in line
