"""`moss-audio bench` measures, writes what it says, and refuses what cannot be measured."""

import json
import sys

import pytest

from moss_audio_tokenizer.config import released_from_codec_config
from moss_audio_tokenizer.evaluation import speed
from moss_audio_tokenizer.runtime import hardware

QUICK = ["--seconds", "0.16", "--chunk-frames", "1", "--streams", "2", "--num-steps", "5"]
# The number of threads holds for the whole process: more would be left to the tests that follow.
QUICK += ["--threads", "1"]


@pytest.fixture(autouse=True)
def quick_ceilings(monkeypatch):
    monkeypatch.setitem(hardware._READ_BYTES, "cpu", 4_000_000)
    monkeypatch.setitem(hardware._MATRIX, "cpu", 128)
    monkeypatch.setattr(speed, "_READ_BYTES", 4_000_000)
    monkeypatch.setattr(speed, "_MATRIX", 128)


@pytest.fixture
def config_file(tmp_path, make_config):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(released_from_codec_config(make_config())))
    return str(path)


def test_figures_and_floors_as_json(moss_audio, config_file):
    done = moss_audio("bench", "--untrained", config_file, "--json", *QUICK)
    assert done.exit_code == 0, done.stderr
    document = json.loads(done.stdout)
    assert {clip["side"] for clip in document["clips"]} == {"encode", "decode"}
    kinds = {(step["side"], step["when"]) for step in document["steps"]}
    assert kinds == {(side, when) for side in ("encode", "decode") for when in ("start", "past")}
    for step in document["steps"]:
        assert 0 < step["floor_ms"] < step["p50_ms"] <= step["p95_ms"] <= step["p99_ms"]
        assert step["streams_at_real_time"] == pytest.approx(2 / step["real_time_factor"])


def test_tables_are_written(moss_audio, config_file, tmp_path):
    out = tmp_path / "new" / "folder"
    done = moss_audio("bench", "--untrained", config_file, "-o", str(out), *QUICK)
    assert done.exit_code == 0, done.stderr
    table = (out / "bench.md").read_text("utf-8")
    assert table.strip() in done.stdout
    assert table.count("| decode | 1 | 2 |") == 2
    assert json.loads((out / "bench.json").read_text("utf-8"))["machine"]["bytes_a_value"] == 4


def test_the_same_table_in_onnx(moss_audio, make_exported, monkeypatch):
    _, folder = make_exported()
    monkeypatch.setitem(sys.modules, "moss_audio_tokenizer.hf.torch_codec", None)
    options = ("--backend", "onnx", "--model", str(folder), "--json")
    done = moss_audio("bench", *options, *QUICK)
    assert done.exit_code == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["machine"]["name"].startswith("1 threads, fp32")
    assert {clip["side"] for clip in document["clips"]} == {"encode", "decode"}
    assert len(document["steps"]) == 4
    assert all(0 < step["floor_ms"] < step["p50_ms"] for step in document["steps"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--backend", "onnx", "--dtype", "bf16"], "as it was exported"),
        (["--backend", "onnx", "--untrained", "v1"], "leave out --untrained"),
        (["--backend", "onnx", "--model", "."], "run moss-audio export onnx"),
        (["--untrained", "v9"], "no preset 'v9'"),
        (["--chunk-frames", "0"], "chunk-frames"),
        (["--dtype", "fp8"], "dtype"),
        (["--device", "abacus"], "abacus"),
    ],
)
def test_what_cannot_be_measured_is_refused(moss_audio, arguments, message):
    done = moss_audio("bench", *arguments)
    assert done.exit_code == 2
    assert message in done.stderr


def test_a_config_that_is_none(moss_audio, tmp_path):
    path = tmp_path / "config.json"
    path.write_text("[1, 2")
    done = moss_audio("bench", "--untrained", str(path))
    assert (done.exit_code, "config.json" in done.stderr) == (2, True)
