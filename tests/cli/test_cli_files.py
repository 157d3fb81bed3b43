"""Which files commands take, and where they put them: pipes, folders, patterns, bitrates, notes."""

import io
import os
import subprocess
import sys

import numpy as np
import pytest
import soundfile

from moss_audio_tokenizer.codes import AudioCodes


@pytest.fixture
def write_stereo(tmp_path):
    """A stereo file."""

    def write(name="stereo.wav", channels=2):
        soundfile.write(tmp_path / name, np.zeros((1500, channels)), 8000)
        return tmp_path / name

    return write


def pipe(monkeypatch, data: bytes) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data)))


@pytest.fixture
def piped(codec):
    """Run a command in this process with bytes on standard input; returns the result."""
    from typer.testing import CliRunner

    from moss_audio_tokenizer.cli.main import app

    def invoke(data, *arguments):
        return CliRunner().invoke(app, [str(item) for item in arguments], input=data)

    return invoke


def test_sound_and_codes_go_through_pipes(piped, write_wav, tmp_path):
    encoded = piped(write_wav().read_bytes(), "encode", "-", "-o", "-")
    assert encoded.exit_code == 0, encoded.output
    assert encoded.stderr == ""
    (tmp_path / "x.moss").write_bytes(encoded.stdout_bytes)
    assert AudioCodes.load(tmp_path / "x.moss").num_samples == 1500
    decoded = piped(encoded.stdout_bytes, "decode", "-", "-o", "-", "--format", "flac")
    assert decoded.exit_code == 0, decoded.output
    audio, rate = soundfile.read(io.BytesIO(decoded.stdout_bytes))
    assert (audio.shape, rate) == ((1500,), 8000)
    again = piped(write_wav().read_bytes(), "reconstruct", "-", "-o", "/dev/stdout")
    assert soundfile.info(io.BytesIO(again.stdout_bytes)).frames == 1500


@pytest.mark.parametrize("file_format", ["moss", "npz", "safetensors"])
def test_codes_of_every_format_go_through_a_pipe(piped, write_codes, file_format):
    path = write_codes()
    encoded = piped(b"", "encode", "x.wav", "-o", "-")
    assert encoded.exit_code == 2
    AudioCodes.load(path).save(path.with_suffix(f".{file_format}"))
    data = path.with_suffix(f".{file_format}").read_bytes()
    output = path.with_name("out.wav")
    result = piped(data, "decode", "-", "-o", output)
    assert result.exit_code == 0, result.output
    assert soundfile.info(output).frames == 1500


def test_a_pipe_into_a_folder_has_a_name(piped, write_wav, tmp_path, names_in):
    assert piped(write_wav().read_bytes(), "encode", "-", "-o", f"{tmp_path}/out/").exit_code == 0
    assert names_in(tmp_path / "out") == {"stdin.moss"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-", "-", "-o", "out/"], "named twice"),
        (["a.wav", "b.wav", "-o", "-"], "takes one file"),
        (["-", "-o", "x.moss"], "standard input is empty"),
        (["a.wav", "-o", "-", "--json"], "leave one out"),
    ],
)
def test_pipes_that_cannot_be(refused, codec, monkeypatch, tmp_path, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert message in refused("encode", *arguments)


def test_a_pipe_of_the_shell(codec, moss_audio, write_wav, tmp_path):
    reader, writer = os.pipe()
    os.write(writer, write_wav().read_bytes())
    os.close(writer)
    result = moss_audio("encode", f"/dev/fd/{reader}", "-o", tmp_path / "x.moss")
    os.close(reader)
    assert result.exit_code == 0, result.output
    assert AudioCodes.load(tmp_path / "x.moss").num_samples == 1500


def test_folders_and_patterns_give_their_files(codec, moss_audio, write_wav, tmp_path, names_in):
    for name in ("in/a.wav", "in/deep/b.WAV", "in/same.wav"):
        write_wav(name)
    write_wav("in/same.flac")
    (tmp_path / "in" / "notes.txt").write_text("no sound")
    result = moss_audio("encode", tmp_path / "in", "-o", tmp_path / "out")
    assert result.exit_code == 0, result.output
    names = {"a.moss", "deep/b.moss", "same.wav.moss", "same.flac.moss"}
    assert names_in(tmp_path / "out") == names
    result = moss_audio("encode", tmp_path / "in" / "[ab].wav", "-o", tmp_path / "other")
    assert names_in(tmp_path / "other") == set()
    result = moss_audio("encode", tmp_path / "in" / "[ab]*", "-o", f"{tmp_path}/other/")
    assert names_in(tmp_path / "other") == {"a.moss"}
    result = moss_audio("decode", tmp_path / "out", "-o", tmp_path / "sound")
    assert names_in(tmp_path / "sound") == {name.replace(".moss", ".wav") for name in names}
    result = moss_audio("reconstruct", tmp_path / "in", "-o", tmp_path / "again", "-n", "1,2")
    assert result.exit_code == 0, result.output
    assert len(names_in(tmp_path / "again")) == 8


def test_all_that_looks_like_sound_in_a_folder_is_used_or_named(
    codec, moss_audio, write_wav, tmp_path, names_in
):
    write_wav("in/a.wav")
    os.mkfifo(tmp_path / "in" / "pipe.wav")
    (tmp_path / "in" / "gone.wav").symlink_to("nowhere.wav")
    (tmp_path / "in" / "broken.m4a").write_bytes(b"\0\0\0\x18ftypM4A " + bytes(100))
    result = moss_audio("encode", tmp_path / "in", "-o", tmp_path / "out")
    assert result.exit_code == 2
    assert names_in(tmp_path / "out") == {"a.moss"}
    lines = result.stderr.splitlines()
    assert [name for name in ("broken.m4a", "gone.wav", "pipe.wav") if name in result.stderr]
    assert len(lines) == 3


@pytest.mark.parametrize("command", ["encode", "decode", "reconstruct"])
def test_a_folder_without_such_files_is_refused(codec, refused, tmp_path, command):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "notes.txt").write_text("")
    assert "is a folder without" in refused(command, tmp_path / "in", "-o", tmp_path / "out")
    assert "matches no file" in refused(command, tmp_path / "*.none", "-o", tmp_path / "out")


@pytest.mark.parametrize(
    ("options", "layers"),
    [
        (["-n", "2"], [2]),
        (["--layers", 3], [3]),
        (["--kbps", "0.1"], [2]),
        (["--kbps", "0.19"], [3]),
        (["-n", "1,2", "-n", "4,2"], [1, 2, 4]),
        (["--kbps", "0.05,0.2"], [1, 4]),
    ],
)
def test_layers_and_bitrates(codec, json_of, write_wav, tmp_path, options, layers):
    document = json_of("reconstruct", write_wav(), "-o", tmp_path / "o.wav", *options)
    assert [item["num_quantizers"] for item in document["reconstructions"]] == layers
    if len(layers) == 1:
        (item,) = json_of("encode", write_wav(), "-o", tmp_path / "o.moss", *options)["files"]
        assert item["num_quantizers"] == layers[0]
        json_of("decode", tmp_path / "o.moss", "-o", tmp_path / "o.flac", *options)
        assert codec.calls[-1] == ("decode", layers[0], None)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--kbps", "0.04"], "expected 0.05 (1 layer) to 0.2 (4 layers)"),
        (["--kbps", "1"], "--kbps is 1; expected 0.05"),
        (["--kbps", "0.1", "-n", "2"], "give one of them"),
        (["--kbps", "nan"], "kbps"),
    ],
)
@pytest.mark.parametrize("command", ["encode", "reconstruct"])
def test_impossible_bitrates(codec, refused, write_wav, tmp_path, command, options, message):
    output = tmp_path / ("o.wav" if command == "reconstruct" else "o.moss")
    assert message in refused(command, write_wav(), "-o", output, *options)


@pytest.mark.parametrize("value", ["8,", "eight", "-1", "0", "2;3"])
def test_impossible_lists_of_layers(codec, refused, write_wav, tmp_path, value):
    line = refused("reconstruct", write_wav(), "-o", tmp_path / "o.wav", f"--layers={value}")
    assert "such as 8,16,32" in line


def test_mixing_and_replacing_are_told(codec, moss_audio, write_stereo, tmp_path):
    arguments = ("-o", tmp_path / "x.moss")
    first = moss_audio("encode", write_stereo(), *arguments)
    assert first.stdout.rstrip().endswith("stereo mixed to mono)")
    second = moss_audio("encode", write_stereo("many.wav", 6), *arguments)
    assert second.stdout.rstrip().endswith("6 channels mixed to mono, replaced a file)")
    result = moss_audio("reconstruct", write_stereo(), "-o", tmp_path / "x.wav")
    assert result.stderr == "stereo mixed to mono\n"
    result = moss_audio("reconstruct", write_stereo(), "-o", tmp_path / "x.wav")
    assert result.stderr == "stereo mixed to mono\nreplaced a file\n"


def test_a_loop_of_links_is_an_error_of_the_user(codec, refused, write_wav, tmp_path):
    loop = tmp_path / "loop.wav"
    loop.symlink_to("loop.wav")
    assert "loop.wav" in refused("encode", loop, "-o", tmp_path / "x.moss")
    loop = tmp_path / "loop.moss"
    loop.symlink_to("loop.moss")
    assert "loop.moss" in refused("encode", write_wav(), "-o", loop)


def test_names_that_are_not_text(codec, tmp_path):
    """Names are bytes: old archives hold some that are not UTF-8."""
    path = os.fsencode(tmp_path) + b"/b\xe4d.wav"
    data = io.BytesIO()
    soundfile.write(data, np.zeros(1500), 8000, format="WAV")
    with open(path, "wb") as file:  # noqa: PTH123 - the name is bytes
        file.write(data.getvalue())
    program = "from moss_audio_tokenizer.cli.main import run; run()"
    command = [sys.executable, "-c", program, "info", path]
    done = subprocess.run(command, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert b"b\\xe4d.wav" in done.stdout


def test_how_to_compute_reaches_the_codec(codec, moss_audio, write_wav, write_codes, tmp_path):
    options = ["--compute-dtype", "bf16", "--attention", "flash_attention_2"]
    expected = {"compute_dtype": "bf16", "attention": "flash_attention_2"}
    for command, source, ending in [
        ("encode", write_wav(), "moss"),
        ("decode", write_codes("x.npz"), "wav"),
        ("reconstruct", write_wav(), "wav"),
    ]:
        result = moss_audio(command, source, "-o", tmp_path / f"o.{ending}", *options)
        assert result.exit_code == 0, result.output
        assert codec.computing == expected
    moss_audio("encode", write_wav(), "-o", tmp_path / "o.moss")
    assert codec.computing == {"compute_dtype": "fp32", "attention": None}


@pytest.mark.parametrize("command", ["encode", "tokenize"])
@pytest.mark.parametrize(
    "options", [["--attention", "sdpa"], ["--compute-dtype", "fp16"], ["--attention", "eager"]]
)
def test_onnx_has_no_such_settings(refused, write_wav, tmp_path, command, options):
    output = tmp_path / ("o.moss" if command == "encode" else "out")
    line = refused(command, write_wav(), "-o", output, "--backend", "onnx", *options)
    assert "leave" in line or "eager" in line
