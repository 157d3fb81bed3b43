"""`moss-audio tokenize`, `detokenize` and `stats`: options, exit codes and what is printed."""

import json
from dataclasses import dataclass

import numpy as np
import pytest

from moss_audio_tokenizer.cli import tokenize
from moss_audio_tokenizer.codes import CodecInfo


class Levels:
    """Codes of one layer: always 3."""

    info = CodecInfo("0123456789abcdef", 8000, 1, 640, 2, 16)

    def encode(self, audio, *, num_quantizers=None, chunk_duration=None):
        return np.full((num_quantizers or 2, -(-audio.shape[1] // 640)), 3)

    def decode(self, codes, *, chunk_duration=None):
        return np.zeros((1, 640 * codes.shape[1]), np.float32)


@dataclass(frozen=True)
class LevelsChoice:
    """Opens Levels."""

    model: str
    device: str = "cpu"
    dtype: str = "fp32"
    backend: str | None = None
    attention: str | None = None
    runs_on: str = "levels"

    def open(self, parts):
        return Levels()

    def revision(self):
        return "1"


@pytest.fixture
def levels(monkeypatch):
    monkeypatch.setattr(tokenize, "choose", LevelsChoice)


@pytest.fixture
def sounds(write_wav, tmp_path):
    write_wav("sounds/a.wav")
    write_wav("sounds/deep/b.wav", num_samples=2000)
    (tmp_path / "sounds" / "c.wav").write_bytes(b"no sound")
    return tmp_path / "sounds"


def test_there_and_back(levels, moss_audio, json_of, sounds, tmp_path, names_in):
    options = ("--num-quantizers", 1, "--workers", 1, "--model", "m")
    result = moss_audio("tokenize", sounds, "-o", tmp_path / "codes", *options)
    assert result.exit_code == 0, result.output
    assert "times real time" in result.stdout
    assert result.stderr.startswith("1 recordings could not be used")
    names = names_in(tmp_path / "codes")
    assert {"summary.json", "errors.jsonl", "shards/train-000000.parquet"} <= names
    again = json_of("tokenize", sounds, "-o", tmp_path / "codes", *options, "--resume")
    summary = json.loads((tmp_path / "codes" / "summary.json").read_text())
    assert {key: again[key] for key in summary} == summary
    assert (summary["clips"], summary["errors"]) == (2, 1)
    assert json_of("stats", tmp_path / "codes", "--verify")["layers"] == [
        {"used": 1 / 16, "bits": 0.0}
    ]
    assert "entries in use" in moss_audio("stats", tmp_path / "codes").stdout
    sound = json_of("detokenize", tmp_path / "codes", "-o", tmp_path / "out", "--workers", 1)
    assert sound["clips"] == 2
    assert "audio/train-000000/000000.flac" in names_in(tmp_path / "out")


def test_bad_input_ends_in_one_line(levels, refused, sounds, tmp_path):
    output = tmp_path / "out"
    assert "no manifest" in refused("tokenize", tmp_path / "none.jsonl", "-o", output)
    assert "expected parquet, webdataset, moss" in refused(
        "tokenize", sounds, "-o", output, "--format", "zip"
    )
    assert "expected local, ray" in refused("tokenize", sounds, "-o", output, "--engine", "x")
    assert "expected 1 to 2" in refused("tokenize", sounds, "-o", output, "--num-quantizers", 3)
    assert "other files" in refused("tokenize", sounds, "-o", sounds)
    assert "no shards of codes" in refused("stats", sounds)
    assert "no shards of codes" in refused("detokenize", sounds, "-o", output)


def test_the_backend_reaches_the_workers(monkeypatch, moss_audio, sounds, tmp_path):
    chosen = []

    def choose(*keys):
        chosen.append(keys)
        return LevelsChoice("m")

    monkeypatch.setattr(tokenize, "choose", choose)
    options = ("--workers", 1, "--backend", "onnx")
    assert moss_audio("tokenize", sounds, "-o", tmp_path / "a", *options).exit_code == 0
    assert moss_audio("detokenize", tmp_path / "a", "-o", tmp_path / "b", *options).exit_code == 0
    assert chosen == [("bundled", "cpu", "fp32", "onnx", None)] * 2
