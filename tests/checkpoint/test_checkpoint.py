"""Checkpoints: spellings, halves, and everything that must be refused."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from moss_audio_tokenizer import MossAudioTokenizerModel
from moss_audio_tokenizer.checkpoint.codec_checkpoint import released_tensors
from moss_audio_tokenizer.checkpoint.stored_weights import StoredWeights, describe_model
from moss_audio_tokenizer.errors import CheckpointError, ConfigError

load = MossAudioTokenizerModel.from_pretrained


@pytest.fixture
def folder(make_model, tmp_path):
    """Names and configuration are those of the v1 layout: all windows are equal."""
    make_model(windows=(0.05, 0.05)).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def rewrite(folder, change):
    """Apply a change to the dictionary of saved tensors."""
    path = folder / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)


def test_older_spelling_of_weight_norm(folder, make_model):
    def rename(tensors):
        for name in list(tensors):
            for old, new in (("original0", "weight_g"), ("original1", "weight_v")):
                if name.endswith(old):
                    base = name.removesuffix(f".parametrizations.weight.{old}")
                    tensors[f"{base}.{new}"] = tensors.pop(name)

    audio = torch.randn(1, 1, 100)
    expected = load(folder).encode(audio).audio_codes
    rewrite(folder, rename)
    assert torch.equal(load(folder).encode(audio).audio_codes, expected)


def test_halves(folder, make_model):
    audio = torch.randn(1, 1, 100)
    whole, encoder, decoder = (
        load(folder),
        load(folder, parts="encoder"),
        load(folder, parts="decoder"),
    )
    codes = encoder.encode(audio).audio_codes
    assert torch.equal(codes, whole.encode(audio).audio_codes)
    assert torch.equal(decoder.decode(codes).audio, whole.decode(codes).audio)
    assert encoder.identity == decoder.identity == whole.identity
    with pytest.raises(ConfigError, match="parts='all' or 'decoder'"):
        encoder.decode(codes)
    with pytest.raises(ConfigError, match="parts='all' or 'encoder'"):
        decoder.encode(audio)
    with pytest.raises(ConfigError, match="only the encoder or only the decoder is loaded"):
        encoder.save_pretrained(folder)
    with pytest.raises(ConfigError, match="expected one of all"):
        load(folder, parts="quantizer")


def test_half_precision_weights_are_read_as_float32(folder):
    rewrite(folder, lambda tensors: tensors.update({k: v.half() for k, v in tensors.items()}))
    assert {parameter.dtype for parameter in load(folder).parameters()} == {torch.float32}


def test_missing_and_extra_tensors_are_listed(folder):
    def change(tensors):
        tensors["encoder.9.surprise"] = torch.zeros(1)
        del tensors["quantizer.quantizers.2.codebook.weight"]

    rewrite(folder, change)
    with pytest.raises(CheckpointError) as caught:
        load(folder)
    message = str(caught.value)
    assert "missing 1 tensors (quantizer.quantizers.2.codebook.weight)" in message
    assert "extra 1 tensors (encoder.9.surprise)" in message
    assert "\n" not in message


def test_misshapen_tensors_are_listed(folder):
    name = "encoder.1.transformer.layers.0.linear1.weight"
    rewrite(folder, lambda tensors: tensors.update({name: torch.zeros(3, 4)}))
    with pytest.raises(CheckpointError, match=r"linear1.weight is \[3, 4\], expected \[32, 16\]"):
        load(folder)


def test_same_tensor_twice(folder):
    def change(tensors):
        weight = tensors["encoder.1.transformer.layers.0.linear1.weight"]
        tensors["encoder.1.transformer.layers.0.ffn.0.weight"] = weight.clone()

    rewrite(folder, change)
    with pytest.raises(CheckpointError, match="name the same tensor"):
        load(folder)


def test_pickles_are_refused(folder):
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"pickled weights \(pytorch_model.bin\)"):
        load(folder)


@pytest.mark.parametrize("damage", ["truncated", "garbage", "empty"])
def test_damaged_weights(folder, damage):
    path = folder / "model.safetensors"
    data = path.read_bytes()
    path.write_bytes({"truncated": data[:-100], "garbage": b"x" * 500, "empty": b""}[damage])
    with pytest.raises(CheckpointError, match="cannot be read as safetensors"):
        load(folder)


def test_index_cannot_leave_its_folder(folder):
    index = {"weight_map": {"a": "../model/model.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match="unusable shard"):
        load(folder)


def test_missing_shard(folder, make_model):
    make_model().save_pretrained(folder, max_shard_size="20KB")
    next(folder.glob("model-00002-*")).unlink()
    with pytest.raises(CheckpointError, match="lacks the shard model-00002"):
        load(folder)


def test_saving_again_leaves_no_stale_shards(folder, make_model):
    make_model().save_pretrained(folder, max_shard_size="20KB")
    assert not (folder / "model.safetensors").exists()
    make_model().save_pretrained(folder)
    assert {path.name for path in folder.iterdir()} == {"config.json", "model.safetensors"}


@pytest.mark.parametrize(
    ("text", "error"), [("{", CheckpointError), ("[]", CheckpointError), ("{}", ConfigError)]
)
def test_damaged_config(folder, text, error):
    (folder / "config.json").write_text(text)
    with pytest.raises(error):
        load(folder)


def test_nothing_there(tmp_path):
    with pytest.raises(CheckpointError, match=r"no config\.json"):
        load(tmp_path)
    with pytest.raises(CheckpointError, match="is not a folder"):
        load(tmp_path / "absent")


def test_wrong_model_type_in_the_file_is_borne_with(folder):
    values = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(values | {"model_type": "speech_tokenizer"}))
    assert load(folder).config.model_type == "moss-audio-tokenizer"


def test_unknown_layout_and_option(folder):
    with pytest.raises(ConfigError, match="no layout 'v3'"):
        load(folder).save_pretrained(folder, layout="v3")
    with pytest.raises(ConfigError, match="quantize_to"):
        load(folder, quantize_to=4)


def test_describe(folder):
    facts = describe_model(folder)
    assert facts["parameters"]["total"] == sum(p.numel() for p in load(folder).parameters())
    assert facts["kbps"] == {"1": 0.4, "2": 0.8, "4": 1.6}
    assert facts["layout"] == "v1"
    assert len(facts["encoder"]) == 2


def test_extra_tensors_are_not_described(folder):
    rewrite(folder, lambda tensors: tensors.update(foo=torch.zeros(1)))
    with pytest.raises(CheckpointError, match=r"extra 1 tensors \(foo\)"):
        describe_model(folder)


@pytest.mark.parametrize("section", ["encoder_kwargs", "quantizer_kwargs"])
def test_absurd_depths_are_refused_at_once(folder, section):
    path = folder / "config.json"
    values = json.loads(path.read_text())
    if section == "encoder_kwargs":
        values[section][1]["num_layers"] = 10**6
    else:
        values[section]["num_quantizers"] = 10**6
    path.write_text(json.dumps(values))
    with pytest.raises(CheckpointError, match=r"only .* tensors"):
        load(folder)


@pytest.mark.parametrize(
    "index", [{}, {"weight_map": []}, {"weight_map": {}}, {"weight_map": {"a": 3}}]
)
def test_nonsense_in_the_index(folder, index):
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match=r"weight_map|lacks the shard"):
        load(folder)


def test_tensor_in_two_shards(folder):
    tensors = load_file(folder / "model.safetensors")
    name = next(iter(tensors))
    save_file({name: tensors[name]}, folder / "more.safetensors")
    index = {"weight_map": {name: "more.safetensors", "rest": "model.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match="earlier shard"):
        load(folder)


@pytest.mark.parametrize("value", [torch.full((32, 16), torch.nan), torch.zeros(32, 16).int()])
def test_weights_that_are_no_finite_numbers(folder, value):
    name = "encoder.1.transformer.layers.0.linear1.weight"
    rewrite(folder, lambda tensors: tensors.update({name: value}))
    with pytest.raises(CheckpointError, match="no finite weights"):
        load(folder)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"sampling_rate": ' + "9" * 5000 + "}"])
def test_hostile_json(folder, text):
    (folder / "config.json").write_text(text)
    with pytest.raises(CheckpointError, match="cannot be read as JSON"):
        load(folder)


@pytest.mark.parametrize("name", [None, 3, b"folder", ["a"], "x" * 5000, "a\0b"])
def test_names_that_are_none(name):
    with pytest.raises(CheckpointError):
        load(name)


def test_half_precision_saves_space_and_keeps_the_quantizer(folder, make_model):
    before = (folder / "model.safetensors").stat().st_size
    make_model().save_pretrained(folder, weight_dtype="fp16")
    tensors = load_file(folder / "model.safetensors")
    halves = {name for name, tensor in tensors.items() if tensor.dtype == torch.float16}
    assert halves == {name for name in tensors if not name.startswith("quantizer.")}
    assert (folder / "model.safetensors").stat().st_size < 0.7 * before
    modes = {path.name: path.stat().st_mode for path in folder.iterdir()}
    assert modes["model.safetensors"] == modes["config.json"]
    again = load(folder)
    assert again.identity == make_model().identity
    with pytest.raises(ConfigError, match="fp32, bf16, fp16"):
        again.save_pretrained(folder, weight_dtype="int4")


def test_8_bits_are_read_back_as_float32(folder, make_model):
    model = make_model(windows=(0.05, 0.05))
    model.save_pretrained(folder, weight_dtype="int8")
    tensors = load_file(folder / "model.safetensors")
    eight = {name for name, tensor in tensors.items() if tensor.dtype == torch.int8}
    matrices = {n for n, t in tensors.items() if t.ndim == 2 and not n.startswith("quantizer.")}
    assert eight == matrices
    assert {f"{name}.scales" for name in eight} == {n for n in tensors if n.endswith(".scales")}
    again = load(folder)
    assert again.config.codec_weight_dtype == "fp32"
    assert again.identity == model.identity
    old, new = model.codec.state_dict(), again.codec.state_dict()
    assert {tensor.dtype for tensor in new.values()} == {torch.float32}
    for name, values in old.items():
        if name.startswith("quantizer.") or values.ndim != 2:
            assert torch.equal(new[name], values), name
        else:
            step = values.abs().amax(1, keepdim=True) / 127
            assert ((new[name] - values).abs() <= 0.5001 * step).all(), name
    stored = StoredWeights(folder)
    released = released_tensors(again.codec, "v1")
    assert set(stored.shapes()) == set(released)
    assert all(
        stored.tensor(n).read().tobytes() == t.numpy().tobytes() for n, t in released.items()
    )
    assert describe_model(folder)["parameters"]["total"] == sum(map(torch.numel, old.values()))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda name, tensors: tensors.pop(f"{name}.scales"), "int8 values that are no finite"),
        (lambda name, tensors: tensors.update({f"{name}.scales": torch.ones(1)}), "each row"),
        (lambda name, tensors: tensors[f"{name}.scales"].fill_(torch.nan), "no finite weights"),
    ],
)
def test_broken_8_bits_are_refused(folder, make_model, change, said):
    make_model(windows=(0.05, 0.05)).save_pretrained(folder, weight_dtype="int8")
    rewrite(folder, lambda tensors: change("encoder.1.input_proj.weight", tensors))
    with pytest.raises(CheckpointError, match=said):
        load(folder)


@pytest.mark.parametrize("layout", ["v1", "v2"])
def test_8_bits_in_every_layout_and_in_shards(tmp_path, make_model, layout):
    model = make_model(windows=(0.05, 0.05))
    model.save_pretrained(tmp_path / "one", layout=layout, weight_dtype="int8")
    model.save_pretrained(
        tmp_path / "many", layout=layout, weight_dtype="int8", max_shard_size="20KB"
    )
    assert len(list((tmp_path / "many").glob("*.safetensors"))) > 1
    one, many = (load(tmp_path / name) for name in ("one", "many"))
    assert one.codec.config == many.codec.config == model.codec.config
    audio = torch.randn(1, 1, 100)
    codes = one.encode(audio).audio_codes
    assert torch.equal(many.encode(audio).audio_codes, codes)
    assert torch.equal(many.decode(codes).audio, one.decode(codes).audio)
