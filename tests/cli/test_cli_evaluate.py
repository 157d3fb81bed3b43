"""`moss-audio eval` and `compare`: what they write, print and refuse."""

import io
import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

from moss_audio_tokenizer.cli.display import print_tables

pytest.importorskip("matplotlib")
pytest.importorskip("pystoi")
pytest.importorskip("scipy")

# One process: a toy codec exists in this one alone.
ALONE = ["--jobs", 1, "--metric", "mel_distance", "--metric", "stoi"]


@pytest.fixture
def manifest(tmp_path):
    items = []
    for index, split in enumerate(["valid", "valid", "train"]):
        time = np.arange(8_000) / 8_000
        clip = 0.3 * np.sin(2 * np.pi * (300 + 99 * index) * time) * np.sin(9 * time)
        soundfile.write(tmp_path / f"{index}.wav", clip, 8_000)
        domain = "music" if index else "speech"
        items.append({"path": f"{index}.wav", "domain": domain, "split": split})
    (tmp_path / "bad.wav").write_bytes(b"no sound")
    items.append({"path": "bad.wav", "domain": "sound", "split": "bad"})
    path = tmp_path / "manifest.jsonl"
    path.write_text("\n".join(map(json.dumps, items)), encoding="utf-8")
    return path


def lines_of(folder):
    return [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]


def test_eval_leaves_rows_tables_plots_and_a_page(codec, moss_audio, manifest, tmp_path, names_in):
    folder = tmp_path / "runs" / "eval"
    result = moss_audio("eval", manifest, "-n", "1,4", *ALONE, "--split", "valid", "-o", folder)
    assert result.exit_code == 0, result.output
    assert [(row["path"], row["model"], row["num_quantizers"]) for row in lines_of(folder)] == [
        *(("0.wav", "bundled", 1), ("0.wav", "bundled", 4)),
        *(("1.wav", "bundled", 1), ("1.wav", "bundled", 4)),
    ]
    names = names_in(folder)
    assert {"summary.json", "summary.md", "summary.csv", "report.html"} <= names
    assert {"plots/music-mel_distance.png", "plots/speech-stoi.png"} <= names
    assert "| bundled | 4 | 0.2 | 0.21 | 1 |" in (folder / "summary.md").read_text("utf-8")
    assert "| bundled | 4 | 0.2 |" in result.stdout
    assert (folder / "report.html").read_text("utf-8").count("<audio") == 2 * 3


def test_the_summary_holds_codes_and_examples(codec, json_of, manifest, tmp_path):
    document = json_of("eval", manifest, *ALONE, "--split", "valid", "-o", tmp_path / "run")
    assert document == json.loads((tmp_path / "run" / "summary.json").read_text("utf-8"))
    assert document["codes"]["bundled"]["num_frames"] == 2 * 13
    assert document["codes"]["bundled"]["nominal_kbps"] == pytest.approx(0.2)
    assert [one["name"] for one in document["codecs"]] == ["bundled"]
    assert len(document["examples"]) == 2
    assert document["failed"] == []


def test_compare_puts_others_beside_a_model(codec, moss_audio, manifest, tmp_path):
    others = ["--codec", "original", "--codec", "lowpass:1000"]
    folder = tmp_path / "run"
    result = moss_audio("compare", manifest, *others, *ALONE, "--limit", 1, "-o", folder)
    assert result.exit_code == 0, result.output
    rows = {row["model"]: row for row in lines_of(folder)}
    assert list(rows) == ["bundled", "original", "lowpass:1000"]
    assert rows["original"]["mel_distance"] == 0.0 < rows["lowpass:1000"]["mel_distance"]
    assert rows["original"]["num_quantizers"] is None
    assert len(list(folder.glob("audio/*/*.flac"))) == 4


def test_filters(codec, moss_audio, manifest, tmp_path):
    moss_audio("eval", manifest, *ALONE, "--domain", "speech", "-o", tmp_path / "run")
    assert [row["path"] for row in lines_of(tmp_path / "run")] == ["0.wav"]


def test_a_failed_clip_is_listed_and_others_go_on(codec, moss_audio, manifest, tmp_path):
    result = moss_audio("eval", manifest, *ALONE, "-o", tmp_path / "run")
    assert result.exit_code == 0
    assert "failed: bad.wav (bundled)" in result.stdout
    assert "bad.wav" in (tmp_path / "run" / "report.html").read_text("utf-8")


def test_when_every_clip_fails_the_exit_code_says_so(codec, moss_audio, manifest, tmp_path):
    result = moss_audio("eval", manifest, *ALONE, "--split", "bad", "-o", tmp_path / "run")
    assert result.exit_code == 1
    assert "failed: bad.wav" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--num-quantizers", 5], "expected 1 to 4"),
        (["-n", "1,x"], "expected one or more numbers above 0"),
        (["--metric", "beauty"], "'beauty' is unknown"),
        (["--split", "test"], "no entries"),
        (["--codec", "gramophone:78"], "'gramophone:78' is unknown"),
        (["--model", "none"], "nothing to measure"),
    ],
)
def test_refusals(codec, refused, manifest, tmp_path, arguments, message):
    line = refused("compare", manifest, *arguments, "--jobs", 1, "-o", tmp_path / "run")
    assert message in line
    assert not (tmp_path / "run").exists()


def test_a_missing_program_is_a_failure_of_the_machine(
    codec, refused, manifest, tmp_path, monkeypatch
):
    monkeypatch.setenv("PATH", "")
    arguments = ["--codec", "opus:6", "--jobs", 1, "-o", tmp_path / "run"]
    assert "apt install opus-tools" in refused("compare", manifest, *arguments, code=1)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("jobs", [1, 2])
@pytest.mark.parametrize(
    ("option", "module"),
    [
        (["--asr-model", "whisper:base"], "faster_whisper"),
        (["--speaker-model", "resemblyzer"], "resemblyzer"),
        (["--opinion-model", "dnsmos"], "speechmos.dnsmos"),
    ],
)
def test_a_missing_scoring_model_ends_before_anything_is_written(
    codec, refused, manifest, tmp_path, monkeypatch, option, module, jobs
):
    monkeypatch.setitem(sys.modules, module, None)
    arguments = [*option, "--jobs", jobs, "-o", tmp_path / "run"]
    line = refused("compare", manifest, "--preset", "table2", *arguments, code=1)
    assert line.endswith("pip install 'moss-audio-tokenizer[judges]'")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("option", "kind"),
    [
        ("--asr-model", "whisper"),
        ("--asr-model", "cat"),
        ("--speaker-model", "wavlm"),
        ("--opinion-model", "utmos"),
    ],
)
def test_a_folder_without_a_scoring_model_ends_before_anything_is_written(
    codec, refused, manifest, tmp_path, monkeypatch, option, kind
):
    pytest.importorskip("transformers")
    monkeypatch.setitem(sys.modules, "faster_whisper", SimpleNamespace())
    (tmp_path / "empty").mkdir()
    model = f"{kind}:{tmp_path / 'empty'}"
    line = refused("compare", manifest, option, model, "--jobs", 1, "-o", tmp_path / "run")
    assert str(tmp_path / "empty") in line
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("command", [["compare"], ["compare", "--preset", "table4"], ["eval"]])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no manifest at"),
        ("", "is empty; expected one JSON object a line"),
        ("\n \n", "is empty; expected one JSON object a line"),
        ("no JSON\n", "line 1 is not JSON"),
    ],
)
def test_a_manifest_that_holds_nothing_is_refused(
    codec, refused, tmp_path, command, content, message
):
    pytest.importorskip("jiwer")
    path = tmp_path / "clips.jsonl"
    if content is not None:
        path.write_text(content, encoding="utf-8")
    name, *options = command
    assert message in refused(name, path, *options, "-o", tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("package", ["matplotlib", "pystoi", "scipy"])
def test_without_the_extra(codec, refused, manifest, tmp_path, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    line = refused("eval", manifest, "-o", tmp_path / "run", code=1)
    assert line.endswith("pip install 'moss-audio-tokenizer[eval]'")


class Terminal(io.StringIO):
    def isatty(self):
        return True


TABLE = """## Speech

| model | quantizers | actual kbps | STOI ↑ | speaker similarity ↑ |
| --- | ---: | ---: | ---: | ---: |
| bundled | 8 | 1.03 | 0.879 ± 0.005 | 0.814 ± 0.015 |
| MOSS-Audio-Tokenizer (published) | 8 | - | 0.940 | 0.880 |

Means over clips."""


def printed(monkeypatch, stdout, columns):
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setattr("sys.stdout", stdout)
    print_tables(TABLE)
    return stdout.getvalue()


def test_a_narrow_terminal_shows_columns_without_intervals(monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    text = printed(monkeypatch, Terminal(), "60")
    lines = [line.split() for line in text.splitlines()]
    assert ["bundled", "8", "1.03", "0.879", "0.814"] in lines
    assert ["MOSS*", "8", "-", "0.940", "0.880"] in lines
    assert ["model", "quantizers", "kbps", "STOI↑", "similarity↑"] in lines
    assert max(map(len, text.splitlines())) <= 60
    assert text.rstrip().endswith("Means over clips.")


def test_pipes_and_wide_terminals_get_markdown(monkeypatch):
    assert printed(monkeypatch, io.StringIO(), "60") == f"{TABLE}\n"
    assert printed(monkeypatch, Terminal(), "200") == f"{TABLE}\n"
