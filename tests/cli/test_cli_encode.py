"""`moss-audio encode`: what is written where, and what is refused before any work."""

import os
import sys

import pytest

from moss_audio_tokenizer.codes import AudioCodes
from moss_audio_tokenizer.errors import MissingDependencyError


def test_writes_codes_with_all_that_decoding_takes(codec, moss_audio, write_wav, tmp_path):
    result = moss_audio("encode", write_wav(), "-o", tmp_path / "out.moss")
    assert result.exit_code == 0, result.output
    codes = AudioCodes.load(tmp_path / "out.moss")
    assert (codes.num_quantizers, codes.num_frames, codes.num_samples) == (4, 3, 1500)
    assert (codes.sampling_rate, codes.downsample_rate, codes.codebook_size) == (8000, 640, 16)
    assert codes.model == codec.identity
    assert codec.loads == [("bundled", "encoder", "cpu", False)]


def test_prints_one_line_a_file(codec, moss_audio, write_wav, tmp_path):
    result = moss_audio("encode", write_wav(), "-o", tmp_path / "out.moss")
    (line,) = result.stdout.splitlines()
    assert line.startswith(f"{tmp_path / 'clip.wav'} -> {tmp_path / 'out.moss'}  (0.19 s, 0.2 kbps")
    assert result.stderr == ""


def test_options_reach_the_codec(codec, moss_audio, write_wav, tmp_path):
    options = ["--num-quantizers", 2, "--chunk-duration", 0.16, "--device", "cuda"]
    result = moss_audio(
        "encode", write_wav(), "-o", tmp_path / "a.npz", "--model", "m", "--deterministic", *options
    )
    assert result.exit_code == 0, result.output
    assert codec.loads == [("m", "encoder", "cuda", True)]
    assert codec.calls == [("encode", 2, 0.16)]
    assert AudioCodes.load(tmp_path / "a.npz").num_quantizers == 2


def test_other_rates_are_resampled(codec, moss_audio, write_wav, tmp_path):
    path = write_wav(num_samples=16_000, rate=16_000)
    moss_audio("encode", path, "-o", tmp_path / "out.moss")
    assert AudioCodes.load(tmp_path / "out.moss").num_samples == 8000


@pytest.mark.parametrize(
    ("output", "options", "written"),
    [
        ("new/", [], "new/clip.moss"),
        ("new/deep/", ["--format", "npz"], "new/deep/clip.npz"),
        ("there", [], "there/clip.moss"),
        ("a.safetensors", ["--format", "safetensors"], "a.safetensors"),
        ("A.MOSS", [], "A.MOSS"),
    ],
)
def test_output_names(
    codec, moss_audio, write_wav, tmp_path, names_in, monkeypatch, output, options, written
):
    write_wav()
    (tmp_path / "there").mkdir()
    monkeypatch.chdir(tmp_path)
    result = moss_audio("encode", "clip.wav", "-o", output, *options)
    assert result.exit_code == 0, result.output
    assert names_in(tmp_path) == {"clip.wav", written}


def test_several_inputs_go_into_a_new_folder(codec, json_of, write_wav, tmp_path, names_in):
    first, second = write_wav("a.wav"), write_wav("b.wav", 700)
    document = json_of("encode", first, second, "-o", tmp_path / "out")
    assert names_in(tmp_path / "out") == {"a.moss", "b.moss"}
    assert [item["input"] for item in document["files"]] == [str(first), str(second)]
    assert [item["num_frames"] for item in document["files"]] == [3, 2]
    assert document["files"][0]["kbps"] == pytest.approx(0.2)
    assert document["files"][0]["bytes"] == (tmp_path / "out" / "a.moss").stat().st_size


def test_an_existing_output_is_overwritten(codec, moss_audio, write_wav, tmp_path):
    (tmp_path / "out.moss").write_text("old")
    assert moss_audio("encode", write_wav(), "-o", tmp_path / "out.moss").exit_code == 0
    assert AudioCodes.load(tmp_path / "out.moss").num_samples == 1500


def test_a_bad_input_does_not_stop_the_others(codec, moss_audio, write_wav, tmp_path, names_in):
    good, late, missing = write_wav("a.wav"), write_wav("z.wav"), tmp_path / "missing.wav"
    text = tmp_path / "text.wav"
    text.write_text("no sound")
    result = moss_audio("encode", good, missing, text, late, "-o", tmp_path / "out")
    assert result.exit_code == 2
    assert names_in(tmp_path / "out") == {"a.moss", "z.moss"}
    assert len(result.stdout.splitlines()) == 2
    lines = result.stderr.splitlines()
    assert [str(path) in line for path, line in zip([missing, text], lines, strict=True)]
    assert all(line.startswith("moss-audio: error: ") for line in lines)


def test_json_names_the_failures(codec, json_of, write_wav, tmp_path):
    missing = tmp_path / "missing.wav"
    document = json_of("encode", write_wav(), missing, "-o", tmp_path / "out", code=2)
    assert "error" not in document["files"][0]
    assert document["files"][1]["input"] == str(missing)
    assert "missing" in document["files"][1]["error"]


@pytest.mark.parametrize("kind", ["missing", "folder", "text", "empty"])
def test_unusable_input(codec, refused, tmp_path, names_in, kind):
    path = tmp_path / "in.wav"
    if kind == "folder":
        path.mkdir()
    elif kind != "missing":
        path.write_text("no sound" if kind == "text" else "")
    assert str(path) in refused("encode", path, "-o", tmp_path / "out.moss")
    assert names_in(tmp_path) <= {"in.wav"}


@pytest.mark.parametrize("output", ["out.wav", "out", "out.moss.bak"])
def test_wrong_extension(codec, refused, write_wav, tmp_path, output):
    assert ".moss or .safetensors or .npz" in refused(
        "encode", write_wav(), "-o", tmp_path / output
    )
    assert codec.loads == []


def test_format_and_extension_disagree(codec, refused, write_wav, tmp_path):
    line = refused("encode", write_wav(), "-o", tmp_path / "out.npz", "--format", "moss")
    assert "should end in .moss" in line


def test_colliding_names_stop_before_any_work(codec, refused, write_wav, tmp_path):
    first, second = write_wav("a/clip.wav"), write_wav("b/clip.flac")
    line = refused("encode", first, second, "-o", tmp_path / "out")
    assert str(first) in line
    assert str(second) in line
    assert codec.loads == []
    assert not (tmp_path / "out").exists()


def test_one_input_twice_collides(codec, refused, write_wav, tmp_path):
    path = write_wav()
    assert "would both become" in refused("encode", path, path, "-o", tmp_path / "out")


@pytest.mark.parametrize("exists", [True, False])
def test_several_inputs_into_a_file(codec, refused, write_wav, tmp_path, exists):
    output = tmp_path / "out.moss"
    if exists:
        output.write_text("keep")
    line = refused("encode", write_wav("a.wav"), write_wav("b.wav"), "-o", output)
    assert "2 inputs need a folder" in line
    assert output.exists() == exists


@pytest.mark.parametrize("link", ["same", "symbolic", "hard"])
def test_an_input_is_never_overwritten(codec, refused, write_wav, tmp_path, link):
    source, output = write_wav("clip.moss.wav"), tmp_path / "clip.moss"
    source = source.rename(tmp_path / "sound.npz")
    if link == "same":
        output = source
    elif link == "symbolic":
        output.symlink_to(source)
    else:
        output.hardlink_to(source)
    before = source.read_bytes()
    assert "would be overwritten" in refused("encode", source, "-o", output)
    assert source.read_bytes() == before


def test_output_in_what_is_no_folder(codec, refused, write_wav, tmp_path):
    (tmp_path / "file").write_text("")
    line = refused("encode", write_wav(), "-o", f"{tmp_path}/file/out/")
    assert "is not a folder" in line
    assert codec.loads == []


def test_a_folder_stands_where_the_output_goes(codec, refused, write_wav, tmp_path):
    (tmp_path / "out" / "clip.moss").mkdir(parents=True)
    assert "is a folder" in refused("encode", write_wav(), "-o", tmp_path / "out")


def test_unwritable_folder(codec, refused, write_wav, tmp_path, monkeypatch):
    # Through os.access, because tests may run as root, who may write everywhere.
    monkeypatch.setattr("os.access", lambda _, mode: not mode & os.W_OK)
    assert "no permission to write" in refused("encode", write_wav(), "-o", tmp_path / "out.moss")
    assert codec.loads == []


def test_full_disk_is_a_failure_and_leaves_nothing(
    codec, refused, write_wav, tmp_path, names_in, monkeypatch
):
    def full(*_, **__):
        raise OSError(28, "No space left on device", str(tmp_path / "out.moss"))

    path = write_wav()
    monkeypatch.setattr(AudioCodes, "save", full)
    line = refused("encode", path, "-o", tmp_path / "out.moss", code=1)
    assert "No space left on device" in line
    assert names_in(tmp_path) == {"clip.wav"}


@pytest.mark.parametrize(("count", "message"), [(0, "1"), (5, "expected 1 to 4"), ("x", "int")])
def test_impossible_num_quantizers(codec, refused, write_wav, tmp_path, names_in, count, message):
    line = refused("encode", write_wav(), "-o", tmp_path / "a.moss", "--num-quantizers", count)
    assert "num-quantizers" in line
    assert message in line
    assert names_in(tmp_path) == {"clip.wav"}


@pytest.fixture
def no_torch(monkeypatch):
    """What the base installation is like."""
    monkeypatch.setitem(sys.modules, "torch", None)
    for name in ("torch_codec", "modeling"):
        monkeypatch.delitem(sys.modules, f"moss_audio_tokenizer.hf.{name}", raising=False)


@pytest.mark.usefixtures("no_torch")
def test_missing_torch_and_no_graphs_says_how_to_get_either(refused, write_wav, tmp_path):
    arguments = ("-o", tmp_path / "a.moss", "--model", tmp_path)
    line = refused("encode", write_wav(), *arguments, code=1)
    assert f"{str(tmp_path)!r} holds no exported graphs (onnx.json)" in line
    assert "moss-audio export onnx" in line
    assert line.endswith("pip install 'moss-audio-tokenizer[torch]'")


@pytest.mark.usefixtures("no_torch")
def test_missing_torch_names_the_extra(refused, write_wav, tmp_path):
    arguments = ("-o", tmp_path / "a.moss", "--backend", "torch")
    line = refused("encode", write_wav(), *arguments, code=1)
    assert line.endswith("pip install 'moss-audio-tokenizer[torch]'")


def test_a_bug_is_a_line_too(codec, refused, write_wav, tmp_path, monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("boom\nand more")

    monkeypatch.setattr(codec, "encode", broken)
    line = refused("encode", write_wav(), "-o", tmp_path / "a.moss", code=1)
    assert "RuntimeError: boom and more" in line


def test_debug_lets_errors_through(codec, moss_audio, write_wav, tmp_path, monkeypatch):
    path = write_wav()

    def broken(*_, **__):
        raise MissingDependencyError("boom")

    monkeypatch.setattr(codec, "encode", broken)
    moss_audio("--version")
    monkeypatch.setenv("MOSS_AUDIO_DEBUG", "1")
    result = moss_audio("encode", path, "-o", tmp_path / "a.moss")
    assert isinstance(result.exception, MissingDependencyError)


def test_interruption(codec, moss_audio, write_wav, tmp_path, names_in, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(codec, "encode", interrupted)
    result = moss_audio("encode", write_wav(), "-o", tmp_path / "a.moss")
    assert result.exit_code == 130
    assert result.stderr == "moss-audio: interrupted\n"
    assert names_in(tmp_path) == {"clip.wav"}
