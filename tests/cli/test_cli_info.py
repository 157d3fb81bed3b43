"""`moss-audio info`: facts for people and for machines."""

import json
import sys
from types import ModuleType

import pytest

from moss_audio_tokenizer.onnx.folder import BUNDLED

MODULE = "moss_audio_tokenizer.checkpoint.stored_weights"
FACTS = {
    "model": "toy",
    "sampling_rate": 24_000,
    "kbps": {"1": 0.125, "8": 1.0},
    "parameters": {"encoder": 1_234_567},
    "encoder": ["first stage", "second stage"],
    "files": {"model.safetensors": 4_000_000},
}


@pytest.fixture
def described(monkeypatch):
    """A stand-in for the description of models; lists the names asked for."""
    names = []
    module = ModuleType(MODULE)
    module.describe_model = lambda name: names.append(name) or FACTS
    monkeypatch.setitem(sys.modules, MODULE, module)
    return names


@pytest.mark.parametrize("suffix", [".moss", ".safetensors", ".npz"])
def test_codes_as_json(json_of, write_codes, suffix):
    path = write_codes(f"clip{suffix}")
    facts = json_of("info", path)
    assert facts["codes"] == str(path)
    assert (facts["num_quantizers"], facts["num_frames"], facts["num_samples"]) == (4, 3, 1500)
    assert (facts["frame_rate"], facts["duration_seconds"]) == (12.5, 0.1875)
    assert facts["kbps"] == pytest.approx(0.2)
    assert facts["model_identity"] == "0123456789abcdef"
    assert facts["bytes"] == path.stat().st_size


def test_codes_for_people(moss_audio, write_codes):
    result = moss_audio("info", write_codes(model=""))
    facts = dict(line.split(maxsplit=1) for line in result.stdout.splitlines())
    assert facts["duration"].strip() == "0.19 s"
    assert facts["bitrate"].strip() == "0.2 kbps"
    assert facts["model"].split() == ["identity", "-"]


def test_model_as_json(described, json_of):
    assert json_of("info", "some/folder") == FACTS
    assert described == ["some/folder"]


def test_model_for_people(described, moss_audio):
    lines = [line.split() for line in moss_audio("info", "some/folder").stdout.splitlines()]
    assert ["sampling", "rate", "24,000", "Hz"] in lines
    assert ["1", "layer", "0.125", "kbps"] in lines
    assert ["8", "layers", "1", "kbps"] in lines
    assert ["encoder", "1,234,567"] in lines
    assert ["second", "stage"] in lines
    assert ["model.safetensors", "4.0", "MB"] in lines


def test_truncated_codes(refused, write_codes):
    path = write_codes()
    path.write_bytes(path.read_bytes()[:20])
    assert str(path) in refused("info", path)


def test_missing_codes(refused, tmp_path):
    assert "missing.moss" in refused("info", tmp_path / "missing.moss")


def test_a_sound_file_shows_its_facts(json_of, moss_audio, write_wav):
    path = write_wav()
    assert json_of("info", path) == {
        "sound": str(path),
        "format": "WAV",
        "duration_seconds": 0.1875,
        "sampling_rate": 8000,
        "channels": 1,
        "num_samples": 1500,
        "bytes": path.stat().st_size,
    }
    assert "8,000 Hz" in moss_audio("info", path).stdout


def test_another_file_is_neither(refused, tmp_path):
    (tmp_path / "notes.txt").write_text("no sound")
    assert "neither codes" in refused("info", tmp_path / "notes.txt")


def test_a_bundled_model_fits_on_a_screen(moss_audio):
    assert len(moss_audio("info", "bundled").stdout.splitlines()) < 40


def test_an_exported_model_tells_of_its_graphs(json_of, moss_audio):
    facts = json_of("info", "bundled")["onnx"]
    assert facts["opset"] == 20
    assert facts["graphs"]["encoder"]["inputs"] == [
        {"name": "input_values", "type": "float32", "shape": ["batch", 1, "samples"]}
    ]
    lines = [
        " ".join(line.split())
        for line in moss_audio("info", "bundled", "--graphs").stdout.splitlines()
    ]
    assert "inputs input_values: float32 (batch, 1, samples)" in lines
    assert "outputs audio: float32 (batch, 1, samples)" in lines
    state = "past_key_values.0.key: float32 (batch, 3, places_1, 64) to"
    assert any(state in line for line in lines)


@pytest.mark.parametrize("graphs", ["[" * 100_000, "[]", "{}", '{"encoder": {}}', "null", None])
def test_a_malformed_export_is_refused_in_one_line(described, refused, tmp_path, graphs):
    manifest = json.loads((BUNDLED / "onnx.json").read_text("utf-8"))
    del manifest["graphs"]
    text = json.dumps(manifest)
    if graphs is not None:
        text = f'{text[:-1]}, "graphs": {graphs}}}'
    (tmp_path / "onnx.json").write_text(text, encoding="utf-8")
    assert "export again" in refused("info", tmp_path)


def test_info_of_long_codes_reads_the_header_alone(json_of, refused, write_codes, monkeypatch):
    from moss_audio_tokenizer.codes import AudioCodes

    path = write_codes()
    expected = json_of("info", path)

    def never(*_):
        raise AssertionError

    monkeypatch.setattr(AudioCodes, "load", never)
    assert json_of("info", path) == expected
    path.write_bytes(path.read_bytes() + b"more")
    assert "its header says" in refused("info", path)
