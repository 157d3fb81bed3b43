"""Exported folders: found, checked, and refused when they are not as exported."""

import json
import shutil

import numpy as np
import pytest

from moss_audio_tokenizer import load_audio
from moss_audio_tokenizer.codes import Codec
from moss_audio_tokenizer.errors import CheckpointError
from moss_audio_tokenizer.onnx import OnnxAudioTokenizer
from moss_audio_tokenizer.onnx.codec import OnnxCodec
from moss_audio_tokenizer.onnx.folder import BUNDLED, find_folder, hash_file

SAMPLE = BUNDLED.parents[2] / "samples" / "hello.flac"


@pytest.fixture
def folder(make_exported):
    return make_exported()[1]


def test_the_bundled_graphs_belong_to_the_bundled_weights():
    """After new weights: moss-audio export onnx bundled -o src/moss_audio_tokenizer/bundled."""
    found = find_folder("bundled")
    found.check_weights(thorough=True)
    for name in ("encoder", "decoder", "encoder_step", "decoder_step"):
        assert found.graph(name).is_file()


def test_bundled_codes_are_those_of_pytorch():
    from moss_audio_tokenizer.model.numpy_codec import TorchCodec

    audio = load_audio(SAMPLE, 24_000, channels=1)[:, : 24_000 * 4]
    codec, reference = OnnxCodec.from_pretrained("bundled"), TorchCodec.from_pretrained("bundled")
    assert isinstance(codec, Codec)
    assert codec.info == reference.info
    codes = codec.encode(audio)
    assert np.array_equal(codes, reference.encode(audio))
    expected = reference.decode(codes[:8])
    assert np.abs(codec.decode(codes[:8]) - expected).max() <= 1e-4 * expected.std()


def test_no_export(tmp_path):
    for name in (tmp_path, tmp_path / "missing", "some/hub-id", "x" * 5000, "a\0b", None):
        with pytest.raises(CheckpointError, match="run moss-audio export onnx"):
            OnnxAudioTokenizer.from_pretrained(name)


@pytest.mark.parametrize("name", ["model.safetensors", "decoder_step.onnx"])
def test_altered_files_are_refused(folder, name):
    data = bytearray((folder / name).read_bytes())
    data[-40] ^= 1
    (folder / name).write_bytes(data)
    with pytest.raises(CheckpointError, match="is not the file that"):
        OnnxAudioTokenizer.from_pretrained(folder).decode(np.zeros((4, 1), int))


def test_missing_files(folder):
    (folder / "decoder_step.onnx").unlink()
    codec = OnnxAudioTokenizer.from_pretrained(folder)
    assert codec.encode(np.zeros(8)).audio_codes.shape == (4, 1, 1)
    with pytest.raises(CheckpointError, match="no such file"):
        codec.decode(np.zeros((4, 1), int))
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="no such file"):
        OnnxAudioTokenizer.from_pretrained(folder)


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "cannot be read"), ("[]", "has format 'list'"), ('{"format": 2}', "expected 1")],
)
def test_manifests_of_other_kinds(folder, text, message):
    (folder / "onnx.json").write_text(text, encoding="utf-8")
    with pytest.raises(CheckpointError, match=message):
        OnnxAudioTokenizer.from_pretrained(folder)


@pytest.mark.parametrize("key", ["config", "identity", "codes_type"])
def test_incomplete_manifests(folder, key):
    manifest = json.loads((folder / "onnx.json").read_text("utf-8"))
    del manifest[key]
    (folder / "onnx.json").write_text(json.dumps(manifest), encoding="utf-8")
    with pytest.raises(CheckpointError, match=f"lacks '{key}'"):
        OnnxAudioTokenizer.from_pretrained(folder)


def test_a_graph_that_onnxruntime_cannot_load(folder):
    path = folder / "decoder_step.onnx"
    path.write_bytes(b"no graph")
    manifest = json.loads((folder / "onnx.json").read_text("utf-8"))
    manifest["graphs"]["decoder_step"] |= {"bytes": 8, "sha256": hash_file(path)}
    (folder / "onnx.json").write_text(json.dumps(manifest), encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"onnxruntime .* cannot load"):
        OnnxAudioTokenizer.from_pretrained(folder).decode(np.zeros((4, 1), int))


def test_a_manifest_cannot_name_files_elsewhere(folder, tmp_path):
    shutil.copy(folder / "decoder_step.onnx", tmp_path / "other.onnx")
    manifest = json.loads((folder / "onnx.json").read_text("utf-8"))
    manifest["graphs"]["decoder_step"]["file"] = "../other.onnx"
    (folder / "onnx.json").write_text(json.dumps(manifest), encoding="utf-8")
    with pytest.raises(CheckpointError, match="no such file"):
        OnnxAudioTokenizer.from_pretrained(folder).decode(np.zeros((4, 1), int))
