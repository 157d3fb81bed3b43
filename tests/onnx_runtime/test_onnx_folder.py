"""Exported folders: found, checked, and refused when they are not as exported."""

import json
import shutil

import numpy as np
import pytest

from moss_audio_tokenizer import load_audio
from moss_audio_tokenizer.codes import Codec
from moss_audio_tokenizer.errors import CheckpointError
from moss_audio_tokenizer.files import hash_file
from moss_audio_tokenizer.onnx import OnnxAudioTokenizer
from moss_audio_tokenizer.onnx.folder import BUNDLED, find_folder, weights_files
from moss_audio_tokenizer.onnx.manifest import sealed
from moss_audio_tokenizer.onnx.tokenizer import OnnxCodec

SAMPLE = BUNDLED.parents[2] / "samples" / "hello.flac"


@pytest.fixture
def folder(make_exported):
    return make_exported()[1]


@pytest.fixture
def alter(folder):
    """Change the manifest of the folder by a function, or to what that returns, and its hash."""

    def do(change):
        path = folder / "onnx.json"
        manifest = json.loads(path.read_text("utf-8"))
        changed = change(manifest)
        write(path, sealed(manifest if changed is None else changed))

    return do


def write(path, manifest):
    path.write_text(json.dumps(manifest), encoding="utf-8")


def test_the_bundled_graphs_belong_to_the_bundled_weights():
    """After new weights: moss-audio export onnx bundled -o src/moss_audio_tokenizer/bundled."""
    found = find_folder("bundled")
    found.check_weights(thorough=True)
    for name in ("encoder", "decoder", "encoder_step", "decoder_step"):
        assert found.graph(name).is_file()


def test_bundled_codes_are_those_of_pytorch():
    from moss_audio_tokenizer.hf.torch_codec import TorchCodec

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


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("identity",), "0123456789abcdef"),
        (("config", "quantizer_kwargs", "codebook_size"), 32),
        (("weights", "more.safetensors"), {"bytes": 1, "sha256": "0" * 64}),
        (("sha256",), "0" * 64),
        (("sha256",), None),
    ],
)
def test_altered_manifests_are_refused_without_a_config_beside_them(folder, path, value):
    (folder / "config.json").unlink()
    manifest = json.loads((folder / "onnx.json").read_text("utf-8"))
    assert find_folder(folder).manifest == manifest
    _set(manifest, path, value)
    write(folder / "onnx.json", manifest)
    with pytest.raises(CheckpointError, match="was altered after the export"):
        find_folder(folder)


@pytest.mark.parametrize("key", ["config", "identity", "codes_type", "sha256"])
def test_incomplete_manifests(folder, key):
    manifest = json.loads((folder / "onnx.json").read_text("utf-8"))
    del manifest[key]
    (folder / "onnx.json").write_text(json.dumps(manifest), encoding="utf-8")
    with pytest.raises(CheckpointError, match=f"lacks '{key}'"):
        OnnxAudioTokenizer.from_pretrained(folder)


@pytest.mark.parametrize("damage", [lambda _: b"no graph", lambda x: x.replace(b"Mul", b"\x80ul")])
def test_a_graph_that_onnxruntime_cannot_load(folder, capfd, damage):
    path = folder / "decoder_step.onnx"
    path.write_bytes(damage(path.read_bytes()))
    manifest = json.loads((folder / "onnx.json").read_text("utf-8"))
    facts = {"bytes": path.stat().st_size, "sha256": hash_file(path)}
    manifest["graphs"]["decoder_step"] |= facts
    write(folder / "onnx.json", sealed(manifest))
    with pytest.raises(CheckpointError, match=r"onnxruntime .* cannot load"):
        OnnxAudioTokenizer.from_pretrained(folder).decode(np.zeros((4, 1), int))
    assert capfd.readouterr() == ("", "")


def test_a_manifest_cannot_name_files_elsewhere(folder, tmp_path):
    shutil.copy(folder / "decoder_step.onnx", tmp_path / "other.onnx")
    manifest = json.loads((folder / "onnx.json").read_text("utf-8"))
    manifest["graphs"]["decoder_step"]["file"] = "../other.onnx"
    write(folder / "onnx.json", sealed(manifest))
    with pytest.raises(CheckpointError, match="no such file"):
        OnnxAudioTokenizer.from_pretrained(folder).decode(np.zeros((4, 1), int))


@pytest.mark.parametrize("weights", [{}, {"other.safetensors": {"bytes": 1, "sha256": "0" * 64}}])
def test_weights_that_are_not_listed_are_not_used_unchecked(folder, alter, weights):
    alter(lambda manifest: manifest.update(weights=weights))
    (folder / "other.safetensors").write_bytes(b"x")
    if weights:
        weights["other.safetensors"]["sha256"] = hash_file(folder / "other.safetensors")
        alter(lambda manifest: manifest.update(weights=weights))
    with pytest.raises(CheckpointError, match=r"lists no weights 'model.safetensors'"):
        OnnxAudioTokenizer.from_pretrained(folder, verify=True)
    for name in ("encoder_step", "decoder_step"):
        with pytest.raises(CheckpointError, match="lists no weights"):
            find_folder(folder).graph(name)


def test_files_that_a_graph_points_into(folder):
    graph = (folder / "decoder_step.onnx").read_bytes()
    assert weights_files(graph) == {"model.safetensors"}
    for data in (b"", b"no graph", graph[:1000], graph[:-7], b"\xff" * 99):
        assert weights_files(data) == set()


def _set(manifest, path, value):
    """Put a value at a path of keys; Ellipsis removes what is there."""
    *outer, last = path
    for key in outer:
        manifest = manifest[key]
    if value is ...:
        del manifest[last]
    else:
        manifest[last] = value


RING = ("graphs", "decoder_step", "rings")
WEIGHTS = ("weights", "model.safetensors")
QUANTIZER = ("config", "quantizer_kwargs")


@pytest.mark.parametrize(
    ("path", "values"),
    [
        (("format",), [True, None, "1", [1]]),
        (("identity",), [None, 7, "", "x" * 16]),
        (("codes_type",), ["x", "int64", "float32", None, ["int32"]]),
        (("producer",), [None, 1]),
        (("checks",), [None, []]),
        (("precision",), ["int8"]),
        (("weights",), [None, [], 3, "x", {"model.safetensors": None}]),
        (WEIGHTS, [None, [], 3, "x", {}]),
        ((*WEIGHTS, "bytes"), [None, "12", -1, True, 1.5]),
        ((*WEIGHTS, "sha256"), [None, 7, "abc"]),
        (("graphs",), [None, [], {}, "x", ...]),
        (("graphs", "decoder"), [None, [], "x", 1, {}]),
        (("graphs", "decoder", "file"), [None, 3, ...]),
        (("graphs", "decoder", "inputs"), [None, [], [{}], ...]),
        (("graphs", "other"), [{}, None]),
        (RING, [None, [], [None], 5, ...]),
        ((*RING, 0), [None, {}, {"x": 1}]),
        ((*RING, 0, "layer"), [99, -1, "0", None]),
        ((*RING, 0, "context_steps"), [-1, 10**12, "3", None]),
        ((*RING, 0, "steps_per_frame"), [0, 10**12, ...]),
        (("config",), [None, [], {}, "x", 3]),
        (("config", "always_project"), [None, "yes", ...]),
        (("config", "sampling_rate"), [8000, 24_001, 0, -1, None, "800", 1e300, 10**30]),
        (("config", "encoder_kwargs"), [None, [], [None], "x"]),
        (("config", "encoder_kwargs", 1, "num_layers"), [10**12, 3]),
        (("config", "encoder_kwargs", 1, "context_duration"), [1e12, float("inf"), float("nan")]),
        ((*QUANTIZER, "codebook_size"), [2048, 32]),
        ((*QUANTIZER, "num_quantizers"), [8, 2**20, 0, None]),
    ],
)
def test_malformed_manifests(tmp_path, path, values):
    shutil.copy(BUNDLED / "config.json", tmp_path)
    for value in values:
        manifest = json.loads((BUNDLED / "onnx.json").read_text("utf-8"))
        _set(manifest, path, value)
        write(tmp_path / "onnx.json", sealed(manifest))
        with pytest.raises(CheckpointError, match="export again") as refusal:
            find_folder(tmp_path)
        assert "\n" not in str(refusal.value)
        assert len(str(refusal.value)) < 600


def test_a_manifest_nested_too_deeply(tmp_path):
    (tmp_path / "onnx.json").write_text("[" * 100_000, encoding="utf-8")
    with pytest.raises(CheckpointError, match="export again"):
        find_folder(tmp_path)


def test_swapped_graphs(folder, alter):
    def swap(manifest):
        graphs = manifest["graphs"]
        graphs["encoder_step"], graphs["decoder_step"] = (
            graphs["decoder_step"],
            graphs["encoder_step"],
        )

    alter(swap)
    with pytest.raises(CheckpointError, match=r"encoder_step\.inputs is"):
        find_folder(folder)


@pytest.mark.parametrize("other", ["encoder_step", "decoder"])
def test_a_graph_that_is_not_what_its_manifest_says(folder, alter, other):
    keys = ("file", "bytes", "sha256")

    def point_elsewhere(manifest):
        graphs = manifest["graphs"]
        graphs["decoder_step"] |= {key: graphs[other][key] for key in keys}

    alter(point_elsewhere)
    codec = OnnxAudioTokenizer.from_pretrained(folder)
    with pytest.raises(CheckpointError, match=f"{other}.onnx has other inputs than"):
        codec.decode(np.zeros((4, 1), int))


def test_a_configuration_that_is_not_that_of_the_rings(folder, alter):
    (folder / "config.json").unlink()
    alter(lambda manifest: _set(manifest, ("config", "sampling_rate"), 1600))
    with pytest.raises(CheckpointError, match="rings is"):
        find_folder(folder)


def test_rings_that_are_not_those_of_the_graph(folder, alter):
    """Configuration and rings agree on a longer window; only the graph's metadata does not."""
    (folder / "config.json").unlink()

    def lengthen(manifest):
        _set(manifest, ("config", "decoder_kwargs", 0, "context_duration"), 1e10)
        _set(manifest, (*RING, 0, "context_steps"), 10**12)

    alter(lengthen)
    codec = OnnxAudioTokenizer.from_pretrained(folder)
    with pytest.raises(CheckpointError, match="has other rings than"):
        codec.decode(np.zeros((4, 1), int))


def _moved(folder, names, store):
    """Put files into a store, with links in their place."""
    store.mkdir()
    for name in names:
        (folder / name).rename(store / name)
        (folder / name).symlink_to(store / name)


def _refusal_to_decode(folder):
    try:
        OnnxAudioTokenizer.from_pretrained(folder).decode(np.zeros((4, 1), int))
    except CheckpointError as refusal:
        return str(refusal)
    return ""


def test_weights_that_are_a_link_out_of_the_folder(folder, tmp_path, capfd):
    _moved(folder, ["model.safetensors"], tmp_path / "store")
    refusal = _refusal_to_decode(folder)
    if not refusal:
        pytest.skip("this onnxruntime follows such links")
    assert "copy the file in its place" in refusal
    assert "\n" not in refusal
    assert capfd.readouterr() == ("", "")


def test_a_folder_of_links_is_as_good_as_its_files(folder, tmp_path):
    """What the hub's cache looks like."""
    expected = OnnxAudioTokenizer.from_pretrained(folder).decode(np.ones((4, 3), int)).audio
    _moved(folder, [path.name for path in folder.iterdir()], tmp_path / "store")
    found = OnnxAudioTokenizer.from_pretrained(folder).decode(np.ones((4, 3), int)).audio
    assert np.array_equal(found, expected)


def test_truncated_weights(folder, alter, capfd):
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])
    with pytest.raises(CheckpointError, match="is not the file that"):
        OnnxAudioTokenizer.from_pretrained(folder)
    facts = {"bytes": weights.stat().st_size, "sha256": hash_file(weights)}
    alter(lambda manifest: _set(manifest, WEIGHTS, facts))
    codec = OnnxAudioTokenizer.from_pretrained(folder)
    with pytest.raises(CheckpointError, match="export the model again") as refusal:
        codec.decode(np.zeros((4, 1), int))
    assert "\n" not in str(refusal.value)
    assert capfd.readouterr() == ("", "")
