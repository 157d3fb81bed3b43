"""`tts` and `asr` check what they can before PyTorch is imported."""

import json

import pytest


@pytest.fixture(autouse=True)
def no_torch(monkeypatch):
    """An import of the speech models is an error here."""
    import sys

    for name in ("asr", "tts"):
        monkeypatch.setitem(sys.modules, f"moss_audio_tokenizer.{name}", None)


@pytest.mark.parametrize("model", ["nothere", "runs/tts/final", "./runs", "/nowhere", "empty"])
def test_models_that_are_not_there(refused, write_wav, tmp_path, monkeypatch, model):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    for command in (("tts", "a", "-o", "x.wav"), ("asr", write_wav())):
        line = refused(*command, "--model", model)
        assert f"'{model}'" in line
        assert f"moss-audio train {command[0]}_tiny" in line


def test_recordings_that_are_not_there(refused, moss_audio, tmp_path):
    (tmp_path / "config.json").write_text("{}")
    none = tmp_path / "none.wav"
    line = refused(
        "tts", "a", "-o", tmp_path / "x.wav", "--model", tmp_path, "--prompt-audio", none
    )
    assert "none.wav" in line
    result = moss_audio("asr", none, tmp_path / "other.wav", "--model", tmp_path)
    assert result.exit_code == 2
    assert len(result.stderr.splitlines()) == 2
    result = moss_audio("asr", none, "--model", tmp_path, "--json")
    assert "no such file" in json.loads(result.stdout)["files"][0]["error"]
