"""What an export leaves: weights stored once, a manifest, precisions, and refusals."""

import json

import numpy as np
import onnx
import pytest
import torch
from safetensors.numpy import load_file

from moss_audio_tokenizer.checkpoint.key_names import codes_identity
from moss_audio_tokenizer.checkpoint.stored_weights import StoredWeights
from moss_audio_tokenizer.errors import CheckpointError, ConfigError, InputError
from moss_audio_tokenizer.export import onnx_export as export_folder
from moss_audio_tokenizer.export.onnx_export import export_onnx
from moss_audio_tokenizer.export.precision import to_int8
from moss_audio_tokenizer.graphs.transformer_nodes import BLOCK
from moss_audio_tokenizer.onnx import OnnxAudioTokenizer

GRAPHS = ("encoder", "decoder", "encoder_step", "decoder_step")


@pytest.fixture
def checkpoint(make_model, tmp_path):
    model = make_model(windows=(0.05, 0.05))  # written in the v1 layout
    model.save_pretrained(tmp_path / "checkpoint")
    return tmp_path / "checkpoint"


def manifest_of(folder):
    return json.loads((folder / "onnx.json").read_text("utf-8"))


def test_weights_lie_in_one_file_for_all_graphs(checkpoint, tmp_path):
    export_onnx(checkpoint, tmp_path / "out")
    source, target = (path / "model.safetensors" for path in (checkpoint, tmp_path / "out"))
    assert source.read_bytes() == target.read_bytes()
    tensors = load_file(target)
    data = target.read_bytes()
    for name in GRAPHS:
        model = onnx.load(tmp_path / "out" / f"{name}.onnx", load_external_data=False)
        stored = [item for item in model.graph.initializer if item.external_data]
        assert len(stored) > 10
        for item in stored:
            place = {entry.key: entry.value for entry in item.external_data}
            assert place["location"] == "model.safetensors"
            start, length = int(place["offset"]), int(place["length"])
            assert data[start : start + length] == tensors[item.name].tobytes()


def test_manifest(checkpoint, tmp_path):
    manifest = export_onnx(checkpoint, tmp_path / "out")
    assert manifest == manifest_of(tmp_path / "out")
    assert manifest["opset"] == 20
    assert manifest["checks"]["pytorch"]["codes_changed"] == 0
    (codes, positions) = (manifest["graphs"]["decoder_step"]["inputs"][i] for i in (0, 2))
    assert codes == {
        "name": "audio_codes",
        "type": "int32",
        "shape": ["num_quantizers", "batch", "frames"],
    }
    assert positions == {"name": "positions", "type": "int64", "shape": ["batch"]}


@pytest.mark.parametrize(
    "saved",
    [
        *({"layout": "v2"}, {"weight_dtype": "bf16"}, {"max_shard_size": "20KB"}),
        *({"weight_dtype": "int8"}, {"weight_dtype": "int8", "max_shard_size": "20KB"}),
    ],
    ids=str,
)
def test_every_kind_of_checkpoint(make_model, tmp_path, saved):
    model = make_model(2)
    model.save_pretrained(tmp_path / "checkpoint", **saved)
    manifest = export_onnx(tmp_path / "checkpoint", tmp_path / "out")
    assert manifest["identity"] == model.identity
    assert manifest["checks"]["pytorch"]["audio_error"] < 1e-4


@pytest.mark.parametrize("sizes", [{}, {"codebook_dim": 10}, {"rvq_dim": 12}])
def test_identity_is_that_of_pytorch(make_config, tmp_path, sizes):
    from moss_audio_tokenizer import MossAudioTokenizerConfig, MossAudioTokenizerModel
    from moss_audio_tokenizer.config import CodecConfig, QuantizerConfig

    base = make_config()
    values = vars(base.quantizer) | sizes
    config = CodecConfig(800, 8, base.encoder, base.decoder, QuantizerConfig(**values))
    model = MossAudioTokenizerModel(MossAudioTokenizerConfig.from_codec_config(config))
    model.save_pretrained(tmp_path)
    stored = StoredWeights(tmp_path)
    read = lambda name: stored.tensor(name).read()  # noqa: E731
    assert codes_identity(stored.config, read) == model.identity


def test_into_the_models_own_folder(checkpoint):
    before = {path.name: path.read_bytes() for path in checkpoint.iterdir()}
    export_onnx(checkpoint, checkpoint)
    export_onnx(checkpoint, checkpoint)  # and again, over the first
    after = {path.name: path.read_bytes() for path in checkpoint.iterdir()}
    assert before.items() <= after.items()
    assert set(after) - set(before) == {"onnx.json", *(f"{name}.onnx" for name in GRAPHS)}
    assert OnnxAudioTokenizer.from_pretrained(checkpoint).encode(np.zeros(8, np.float32))


def test_a_folder_with_something_in_it_is_refused(checkpoint, tmp_path):
    target = tmp_path / "out"
    target.mkdir()
    (target / "precious").touch()
    with pytest.raises(CheckpointError, match="not empty"):
        export_onnx(checkpoint, target)
    assert [path.name for path in target.iterdir()] == ["precious"]


def test_a_checkpoint_in_8_bits_takes_no_graphs_beside_it(make_model, tmp_path):
    make_model().save_pretrained(tmp_path, weight_dtype="int8")
    with pytest.raises(InputError, match="export to another folder"):
        export_onnx(tmp_path, tmp_path)
    assert not list(tmp_path.glob("*.onnx"))


def test_int8_decoder(make_exported):
    _, folder = make_exported(export={"decoder": "int8"})
    found = manifest_of(folder)["checks"]["precision"]
    assert found["codes_changed"] == 0
    assert 20 < found["audio_snr_db"] < 60
    names = load_file(folder / "model.safetensors")
    assert names["decoder.0.transformer.layers.0.linear1.weight.int8"].dtype == np.uint8
    assert not any(name.endswith(".int8") for name in names if name.startswith("encoder"))


def test_int8_streams_equal_whole_clips(make_exported):
    """Each row has scales of its own: neither company nor the cut changes the audio."""
    _, folder = make_exported(export={"decoder": "int8"})
    codec = OnnxAudioTokenizer.from_pretrained(folder, num_threads=1)
    codes = np.random.default_rng(0).integers(0, 16, (4, 30))
    whole = codec.decode(codes).audio
    for seconds in (0.01, 0.07):
        assert np.abs(codec.decode(codes, chunk_duration=seconds).audio - whole).max() < 1e-5


def test_int8_encoder_is_refused_unless_forced(make_exported, tmp_path):
    with pytest.raises(InputError, match=r"of the codes change, more than 1%"):
        make_exported(export={"encoder": "int8"})
    assert not (tmp_path / "exported").exists()
    checks = export_onnx(tmp_path / "checkpoint", tmp_path / "out", encoder="int8", force=True)
    assert checks["checks"]["precision"]["codes_changed"] > 0.01


def test_float16_weights(make_exported):
    _, folder = make_exported(export={"encoder": "fp16", "decoder": "fp16", "force": True})
    tensors = load_file(folder / "model.safetensors")
    types = {name.split(".")[0]: tensor.dtype.name for name, tensor in tensors.items()}
    assert types == {"encoder": "float16", "decoder": "float16", "quantizer": "float32"}
    assert manifest_of(folder)["checks"]["precision"]["audio_snr_db"] > 50


def test_8_bits_of_a_matrix():
    matrix = np.random.default_rng(0).standard_normal((5, 40)).astype(np.float32)
    matrix[2] = 0
    blocks, scales = to_int8(matrix)
    assert blocks.shape == (5, 2, BLOCK)
    back = ((blocks.astype(np.float32) - 128) * scales[..., None]).reshape(5, -1)[:, :40]
    assert np.abs(back - matrix).max() <= scales.max() / 2 * 1.001
    assert not back[2].any()


def test_weights_too_large_for_float16(checkpoint, tmp_path, make_model):
    model = make_model()
    model.codec.encoder.stages[1].layers[0].attention_norm.weight.fill_(1e6)
    model.save_pretrained(checkpoint)
    with pytest.raises(CheckpointError, match=r"norm1.weight .* float16 cannot hold"):
        export_onnx(checkpoint, tmp_path / "out", encoder="fp16")


def test_graphs_that_disagree_with_pytorch_are_refused(checkpoint, tmp_path, monkeypatch):
    original = export_folder.build_model

    def wrong(weights, name, *rest):
        model = original(weights, name, *rest)
        for node in model.graph.node:
            if node.op_type == "LayerNormalization":
                node.attribute[1].f = 0.5  # another epsilon
        return model

    monkeypatch.setattr(export_folder, "build_model", wrong)
    with pytest.raises(CheckpointError, match="do not compute what PyTorch does"):
        export_onnx(checkpoint, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_other_refusals(checkpoint, tmp_path):
    with pytest.raises(ConfigError, match=r"no precision 'fp4'; there are stored, fp32"):
        export_onnx(checkpoint, tmp_path / "out", decoder="fp4")
    with pytest.raises(InputError, match="expected int32 or int64"):
        export_onnx(checkpoint, tmp_path / "out", codes_type="int16")
    with pytest.raises(CheckpointError, match=r"no config\.json in"):
        export_onnx(tmp_path / "nowhere", tmp_path / "out")


@pytest.mark.parametrize("damage", ["cut", "header", "names"])
def test_damaged_weights(checkpoint, tmp_path, damage):
    path = checkpoint / "model.safetensors"
    data = path.read_bytes()
    if damage == "cut":
        path.write_bytes(data[:-100])
    elif damage == "header":
        path.write_bytes(b"\xff" * 8 + data[8:])
    else:
        path.write_bytes(data.replace(b"layer_scale_2", b"layer_scale_9"))
    with pytest.raises(CheckpointError):
        export_onnx(checkpoint, tmp_path / "out")


def test_no_pytorch_is_needed(checkpoint, tmp_path):
    import subprocess
    import sys

    program = (
        "import sys; sys.modules['torch'] = None; sys.modules['transformers'] = None\n"
        "from moss_audio_tokenizer.export.onnx_export import export_onnx\n"
        f"print(export_onnx({str(checkpoint)!r}, {str(tmp_path / 'out')!r})['checks'])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "{'pytorch': None}", done.stderr


def test_half_a_bfloat16_is_read_exactly(tmp_path):
    from safetensors.torch import save_file

    from moss_audio_tokenizer.checkpoint.stored_weights import read_header

    values = torch.randn(3, 5, generator=torch.Generator().manual_seed(0)).bfloat16()
    save_file({"x": values}, tmp_path / "x.safetensors")
    read = read_header(tmp_path / "x.safetensors")["x"].read()
    assert np.array_equal(read, values.float().numpy())
