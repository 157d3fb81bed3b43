"""`moss-audio reconstruct`: one encoding, a file for every number of layers, a report."""

import sys
from importlib import import_module
from pathlib import Path

import pytest
import soundfile

MODULE = "moss_audio_tokenizer.evaluation.exhibits"


@pytest.fixture
def reports(monkeypatch):
    """A stand-in for the report, which records what it was asked for."""
    calls = []
    monkeypatch.setattr(
        import_module(MODULE), "build_report", lambda *values: calls.append(values) or "<html>"
    )
    return calls


@pytest.mark.parametrize("options", [[], ["--num-quantizers", 2]])
def test_one_depth_is_written_as_named(codec, moss_audio, write_wav, tmp_path, names_in, options):
    result = moss_audio("reconstruct", write_wav(), "-o", tmp_path / "out.wav", *options)
    assert result.exit_code == 0, result.output
    assert names_in(tmp_path) == {"clip.wav", "out.wav"}
    audio, rate = soundfile.read(tmp_path / "out.wav")
    assert (audio.shape, rate) == ((1500,), 8000)


def test_several_depths_share_one_encoding(codec, json_of, write_wav, tmp_path, names_in):
    depths = ["--num-quantizers", 4, "--num-quantizers", 1, "--num-quantizers", 4]
    document = json_of("reconstruct", write_wav(), "-o", tmp_path / "out.flac", *depths)
    assert names_in(tmp_path) == {"clip.wav", "out-1.flac", "out-4.flac"}
    assert codec.calls == [("encode", 4, None), ("decode", 1, None), ("decode", 4, None)]
    assert document["reconstructions"] == [
        {"num_quantizers": 1, "kbps": 0.05, "output": str(tmp_path / "out-1.flac")},
        {"num_quantizers": 4, "kbps": 0.2, "output": str(tmp_path / "out-4.flac")},
    ]
    assert document["num_samples"] == 1500
    assert document["report"] is None


def test_a_table_lists_what_was_written(codec, moss_audio, write_wav, tmp_path):
    # Square brackets are rich's markup, but only a name here.
    output = tmp_path / f"{'long' * 20}[bold].wav"
    result = moss_audio("reconstruct", write_wav(), "-o", output, "--num-quantizers", 2)
    heading, _, row = result.stdout.splitlines()
    assert heading.split() == ["layers", "kbps", "file"]
    assert row.split() == ["2", "0.1", str(output)]


def test_several_recordings_at_several_bitrates_are_named_as_written(
    codec, moss_audio, json_of, write_wav, tmp_path
):
    inputs = [write_wav("a.wav"), write_wav("b.wav")]
    command = ["reconstruct", *inputs, "-o", tmp_path / "out", "-n", "1,4"]
    (tmp_path / "out").mkdir()
    lines = moss_audio(*command).stdout.splitlines()
    for line, name in zip(lines, "ab", strict=True):
        outputs = [str(tmp_path / "out" / f"{name}-{count}.wav") for count in (1, 4)]
        assert f"{name}.wav -> {outputs[0]}, {outputs[1]}  (" in line
        assert "0.05, 0.2 kbps)" in line
    assert "0.2 kbps, replaced a file)" in moss_audio(*command).stdout
    for result in json_of(*command)["files"]:
        assert Path(result["output"]).is_file()
        assert result["replaced"]


def test_report(codec, reports, moss_audio, write_wav, tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["/usr/bin/moss-audio", "reconstruct", "my clip.wav"])
    depths = ["--num-quantizers", 1, "--num-quantizers", 3, "--report", tmp_path / "page.html"]
    result = moss_audio("reconstruct", write_wav(), "-o", tmp_path / "out.wav", *depths)
    assert result.exit_code == 0, result.output
    assert (tmp_path / "page.html").read_text() == "<html>"
    ((title, command, model, original, versions),) = reports
    assert title == "clip.wav"
    assert command == "moss-audio reconstruct 'my clip.wav'"
    assert model == f"bundled ({codec.identity})"
    assert original.shape == (1, 1500)
    assert [(one.name, one.kbps, one.audio.shape, one.sampling_rate) for one in versions] == [
        ("1 quantizer", 0.05, (1, 1500), 8000),
        ("3 quantizers", pytest.approx(0.15), (1, 1500), 8000),
    ]


def test_a_report_brings_figures_to_the_table(codec, reports, moss_audio, write_wav, tmp_path):
    depths = ["--num-quantizers", 1, "--num-quantizers", 3, "--report", tmp_path / "page.html"]
    result = moss_audio("reconstruct", write_wav(), "-o", tmp_path / "out.wav", *depths)
    heading, _, *rows, report = result.stdout.splitlines()
    assert heading.split() == ["layers", "kbps", "STOI", "mel", "distance", "file"]
    # STOI of a fifth of a second is undefined.
    assert [row.split()[2] for row in rows] == ["-", "-"]
    assert float(rows[0].split()[3]) > float(rows[1].split()[3]) > 0
    assert report.startswith("report: ")


def test_a_report_of_music_has_no_metrics_of_speech(codec, moss_audio, write_wav, tmp_path):
    page = tmp_path / "page.html"
    given = ["-o", tmp_path / "out.wav", "--report", page, "--domain", "music"]
    result = moss_audio("reconstruct", write_wav(), *given)
    assert result.exit_code == 0, result.output
    assert "STOI" not in result.stdout
    assert "mel distance" in page.read_text("utf-8")
    assert "STOI" not in page.read_text("utf-8")


def test_a_real_report_and_its_figures_as_json(codec, json_of, write_wav, tmp_path):
    page = tmp_path / "page.html"
    document = json_of("reconstruct", write_wav(), "-o", tmp_path / "out.wav", "--report", page)
    (facts,) = document["reconstructions"]
    assert facts["stoi"] is None
    assert f"{facts['mel_distance']:.3f}" in page.read_text(encoding="utf-8")


@pytest.mark.parametrize("package", ["matplotlib", "pystoi"])
def test_report_without_its_extra(
    codec, refused, write_wav, tmp_path, names_in, monkeypatch, package
):
    monkeypatch.setitem(sys.modules, package, None)
    output, page = tmp_path / "out.wav", tmp_path / "page.html"
    line = refused("reconstruct", write_wav(), "-o", output, "--report", page, code=1)
    assert line.endswith("pip install 'moss-audio-tokenizer[eval]'")
    assert names_in(tmp_path) == {"clip.wav"}


def test_report_needs_an_html_name(codec, refused, write_wav, tmp_path):
    output, page = tmp_path / "out.wav", tmp_path / "page.pdf"
    assert ".html" in refused("reconstruct", write_wav(), "-o", output, "--report", page)


def test_an_input_is_never_overwritten(codec, refused, write_wav, tmp_path):
    path = write_wav("clip-2.wav")
    depths = ["--num-quantizers", 1, "--num-quantizers", 2]
    line = refused("reconstruct", path, "-o", tmp_path / "clip.wav", *depths)
    assert "would be overwritten" in line
    assert "would be overwritten" in refused("reconstruct", path, "-o", path)


@pytest.mark.parametrize("output", ["out.moss", "out"])
def test_wrong_extension(codec, refused, write_wav, tmp_path, output):
    assert ".wav or .flac" in refused("reconstruct", write_wav(), "-o", f"{tmp_path}/{output}")


def test_too_many_layers(codec, refused, write_wav, tmp_path, names_in):
    depths = ["--num-quantizers", 2, "--num-quantizers", 9]
    line = refused("reconstruct", write_wav(), "-o", tmp_path / "out.wav", *depths)
    assert "expected 1 to 4" in line
    assert names_in(tmp_path) == {"clip.wav"}


def test_missing_input(codec, refused, tmp_path):
    assert "missing.wav" in refused(
        "reconstruct", tmp_path / "missing.wav", "-o", tmp_path / "o.wav"
    )
