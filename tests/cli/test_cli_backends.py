"""Which runtime stands behind a command: chosen by name, or by what the model offers."""

import numpy as np
import pytest
import soundfile

from moss_audio_tokenizer.onnx.folder import choose_backend
from moss_audio_tokenizer.onnx.manifest import MANIFEST_NAME


def test_what_runs_a_model_if_nobody_says(tmp_path):
    assert choose_backend("bundled", "cpu") == "onnx"
    assert choose_backend("bundled", "cpu", "bf16") == "torch"
    assert choose_backend("bundled", "cuda:1") == "torch"
    assert choose_backend("bundled", "tensorrt") == "onnx"
    assert choose_backend(str(tmp_path), "cpu") == "torch"
    assert choose_backend("someone/model", "cpu") == "torch"
    (tmp_path / MANIFEST_NAME).touch()
    assert choose_backend(str(tmp_path), "cpu") == "onnx"


@pytest.mark.parametrize("command", ["encode", "reconstruct"])
def test_the_option_reaches_the_loader(command, codec, moss_audio, write_wav, tmp_path):
    target = tmp_path / ("out.moss" if command == "encode" else "out.wav")
    for backend in ("onnx", "torch"):
        assert moss_audio(command, write_wav(), "-o", target, "--backend", backend).exit_code == 0
    assert moss_audio(command, write_wav(), "-o", target).exit_code == 0
    assert codec.backends == ["onnx", "torch", None]


def test_decode_takes_it_too(codec, moss_audio, write_codes, tmp_path):
    done = moss_audio("decode", write_codes(), "-o", tmp_path / "a.wav", "--backend", "onnx")
    assert (done.exit_code, codec.backends) == (0, ["onnx"])


def test_no_such_backend(refused, write_wav, tmp_path):
    line = refused("encode", write_wav(), "-o", tmp_path / "a.moss", "--backend", "jax")
    assert "--backend" in line


def test_a_folder_without_graphs_is_refused_by_onnx(refused, write_wav, tmp_path):
    arguments = ("-o", tmp_path / "a.moss", "--model", tmp_path, "--backend", "onnx")
    assert "run moss-audio export onnx on a model first" in refused(
        "encode", write_wav(), *arguments
    )


def test_a_device_that_is_not_there(refused, write_wav, tmp_path):
    arguments = ("-o", tmp_path / "a.moss", "--backend", "onnx", "--device", "tensorrt")
    line = refused("encode", write_wav(), *arguments)
    assert "onnxruntime has no TensorrtExecutionProvider here" in line


def test_both_give_the_same(moss_audio, write_wav, tmp_path):
    source = write_wav(num_samples=48_000, rate=24_000)
    for backend in ("onnx", "torch"):
        path = tmp_path / f"{backend}.wav"
        assert moss_audio("encode", source, "-o", path.with_suffix(".moss"), "--backend", backend)
        assert moss_audio("reconstruct", source, "-o", path, "--backend", backend).exit_code == 0
    assert (tmp_path / "onnx.moss").read_bytes() == (tmp_path / "torch.moss").read_bytes()
    first, second = (soundfile.read(tmp_path / f"{name}.wav")[0] for name in ("onnx", "torch"))
    assert np.abs(first - second).max() <= 2**-14


def test_export(json_of, refused, tmp_path, write_wav):
    probe = write_wav(num_samples=24_000, rate=24_000)
    found = json_of("export", "onnx", "bundled", "-o", tmp_path / "out", "--int8", "--probe", probe)
    assert found["precision"] == {"encoder": "stored", "decoder": "int8"}
    assert found["checks"]["precision"]["codes_changed"] == 0
    line = refused("export", "onnx", "bundled", "-o", tmp_path / "out")
    assert "not empty" in line
    options = ("--encoder", "int8", "--probe", probe)
    line = refused("export", "onnx", "bundled", "-o", tmp_path / "other", *options)
    assert "of the codes change" in line
    assert not (tmp_path / "other").exists()
    assert json_of("info", tmp_path / "out")["onnx"]["precision"]["decoder"] == "int8"


def test_export_for_people(moss_audio, write_wav, tmp_path):
    probe = write_wav(num_samples=24_000, rate=24_000)
    done = moss_audio("export", "onnx", "bundled", "-o", tmp_path / "out", "--probe", probe)
    assert done.exit_code == 0
    assert "encoder_step.onnx: " in done.stdout
    assert "0.00% of 416" in done.stdout
