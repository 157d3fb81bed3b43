"""`moss-audio verify` and `export hf` on small models."""

import json
import shutil
from pathlib import Path

import pytest
from safetensors.numpy import load_file, save_file

pytest.importorskip("torch")

GOLDEN = Path(__file__).parents[1] / "golden" / "mono-rlfq"


def test_a_model_with_vectors_in_its_folder(json_of, moss_audio):
    found = json_of("verify", GOLDEN)
    assert found["passed"]
    assert found["vectors"] == str(GOLDEN / "io.safetensors")
    assert len(found["checks"]) >= 6
    shown = moss_audio("verify", GOLDEN)
    assert shown.exit_code == 0
    assert shown.stdout.count("yes") == len(found["checks"])


def test_what_differs_ends_with_1(json_of, tmp_path):
    tensors = load_file(GOLDEN / "io.safetensors")
    tensors["codes"][0] = 0
    save_file(tensors, tmp_path / "io.safetensors")
    found = json_of("verify", GOLDEN, "--vectors", tmp_path, code=1)
    assert not found["passed"]
    failed = [check["name"] for check in found["checks"] if not check["passed"]]
    assert failed == ["codes of clip 1", "codes of clip 2", "codes of clip 1, streamed"]


def test_vectors_are_written_and_verified(json_of, tmp_path):
    plain = tmp_path / "plain"
    shutil.copytree(GOLDEN, plain)
    (plain / "io.safetensors").unlink()
    written = json_of("verify", plain, "--write", tmp_path / "v.safetensors")
    assert written["bytes"] == (tmp_path / "v.safetensors").stat().st_size
    assert json_of("verify", plain, "--vectors", tmp_path / "v.safetensors")["passed"]
    assert json_of("verify", plain, "--against", GOLDEN)["passed"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--vectors", GOLDEN, "--against", "bundled"), "name one of them"),
        (("--write", "new.safetensors", "--against", "bundled"), "name one of them"),
        (("--key", "secret"), "is not a server"),
        (("--vectors", "nowhere"), "no such file"),
        (("--against", "bundled"), "of another codec"),
    ],
)
def test_what_cannot_be_verified(refused, options, words):
    assert words in refused("verify", GOLDEN, *options)


def test_a_model_without_vectors_needs_some(refused, tmp_path):
    plain = tmp_path / "plain"
    shutil.copytree(GOLDEN, plain)
    (plain / "io.safetensors").unlink()
    assert "--against MODEL" in refused("verify", plain)


def test_vectors_are_never_written_over(refused, tmp_path):
    mine = tmp_path / "mine.safetensors"
    mine.write_bytes(b"mine")
    assert "name a new one" in refused("verify", GOLDEN, "--write", mine)
    assert mine.read_bytes() == b"mine"
    assert "name a new one" in refused("verify", GOLDEN, "--write", "-")
    assert "is a folder" in refused("verify", GOLDEN, "--write", tmp_path)
    assert "make it first" in refused("verify", GOLDEN, "--write", tmp_path / "a" / "b")


def test_servers_that_are_not_there_are_refused(refused):
    pytest.importorskip("fastapi")
    assert "no answer" in refused("verify", "http://127.0.0.1:9")
    assert "expected http://127.0.0.1:9" in refused("verify", "127.0.0.1:9")
    assert "cannot talk to" in refused("verify", "http://[::1")
    assert "cannot talk to" in refused("verify", "http://127.0.0.1:9", "--key", "ключ")
    assert "not a server" in refused("verify", "http://127.0.0.1:9", "--write", "v.safetensors")


@pytest.mark.parametrize("layout", ["v1", "v2"])
def test_checkpoints_in_released_layouts(json_of, tmp_path, layout):
    written = json_of("export", "hf", GOLDEN, "-o", tmp_path / "out", "--layout", layout)
    assert written["layout"] == layout
    assert (tmp_path / "out" / "model.safetensors").is_file()
    assert json_of("verify", tmp_path / "out", "--vectors", GOLDEN)["passed"]


def test_the_layout_is_one_that_describes_the_model(json_of, tmp_path):
    for name, layout in (("mono-rlfq", "v1"), ("stereo-rlfq-v2", "v2")):
        written = json_of("export", "hf", GOLDEN.with_name(name), "-o", tmp_path / name)
        assert written["layout"] == layout


def test_exports_for_transformers(json_of, refused, tmp_path, make_model):
    make_model(windows=(0.05, 0.05)).save_pretrained(tmp_path / "model")
    written = json_of("export", "hf", tmp_path / "model", "-o", tmp_path / "hf", "--layout", "hf")
    assert written["layout"] == "hf"
    back = json_of("export", "hf", tmp_path / "hf", "-o", tmp_path / "back")
    assert back["model_identity"] == written["model_identity"]
    for folder in ("hf", "back"):
        settings = json.loads((tmp_path / folder / "preprocessor_config.json").read_text())
        assert settings["hop_length"] == 8
    options = ("--layout", "hf", "--remote-code")
    line = refused("export", "hf", tmp_path / "model", "-o", tmp_path / "out", *options)
    assert "exclude each other" in line


def test_exports_under_another_contract(json_of, refused, tmp_path):
    pytest.importorskip("onnx")
    command = ("export", "onnx", GOLDEN, "--contract", "whole-clip", "-o")
    written = json_of(*command, tmp_path / "out")
    assert written["contract"] == "whole-clip"
    assert {"config.json", "decoder.onnx", "encoder.onnx"} < set(written["files"])
    assert "onnx.json" not in written["files"]
    assert "leave out" in refused(*command, tmp_path / "other", "--force")


def test_a_checkpoint_of_half_the_size(json_of, tmp_path):
    whole = json_of("export", "hf", GOLDEN, "-o", tmp_path / "whole")
    half = json_of("export", "hf", GOLDEN, "-o", tmp_path / "half", "--weight-dtype", "bf16")
    assert half["bytes"] < 0.7 * whole["bytes"]
    assert half["model_identity"] == whole["model_identity"]
    assert json.loads((tmp_path / "half" / "config.json").read_text())


def test_a_checkpoint_in_8_bits_is_for_this_package_alone(json_of, refused, tmp_path):
    whole = json_of("export", "hf", GOLDEN, "-o", tmp_path / "whole")
    eight = ("export", "hf", GOLDEN, "--weight-dtype", "int8", "-o")
    written = json_of(*eight, tmp_path / "eight")
    assert written["bytes"] < 0.5 * whole["bytes"]
    assert written["model_identity"] == whole["model_identity"]
    for other in (("--remote-code",), ("--layout", "hf")):
        assert "only this package" in refused(*eight, tmp_path / "out", *other)


@pytest.mark.parametrize("size", ["banana", "0", "-1GB", "", "5", "1e3MB", "0GB"])
def test_sizes_of_shards_that_cannot_be(refused, tmp_path, size):
    line = refused("export", "hf", GOLDEN, "-o", tmp_path / "out", f"--max-shard-size={size}")
    assert "--max-shard-size is" in line
    assert not (tmp_path / "out").exists()


def test_a_folder_that_is_there_is_not_written_over(refused, tmp_path):
    (tmp_path / "file").write_text("mine")
    line = refused("export", "hf", GOLDEN, "-o", tmp_path)
    assert "name a new one" in line
    assert (tmp_path / "file").read_text() == "mine"


def test_models_that_are_no_codec_are_named(refused, tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "cat-tts"}')
    save_file(load_file(GOLDEN / "model.safetensors"), tmp_path / "model.safetensors")
    line = refused("verify", tmp_path)
    assert "config of type 'cat-tts' has no 'encoder_kwargs'" in line


def test_weights_in_8_bits_are_sent_back(refused, tmp_path):
    pytest.importorskip("onnx")
    from moss_audio_tokenizer.export.onnx_export import export_onnx

    export_onnx(GOLDEN, tmp_path / "int8", decoder="int8", force=True)
    line = refused("export", "hf", tmp_path / "int8", "-o", tmp_path / "out")
    assert "take the model that it was exported from" in line
