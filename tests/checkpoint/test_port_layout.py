"""The layout of the class inside transformers, read, written, and computed by other means."""

import json
import math

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from moss_audio_tokenizer import MossAudioTokenizerModel
from moss_audio_tokenizer.checkpoint.port_layout import port_config, released_from_port
from moss_audio_tokenizer.checkpoint.stored_weights import StoredWeights
from moss_audio_tokenizer.config import codec_config_from_released, preset
from moss_audio_tokenizer.errors import CheckpointError, ConfigError

WINDOWS = (0.05, 0.05)


@pytest.fixture
def model(make_model):
    """A model whose codes vary: of constant ones, equality would prove nothing."""
    model = make_model(windows=WINDOWS)
    random = torch.Generator().manual_seed(2)
    for parameter in model.codec.quantizer.parameters():
        parameter.copy_(0.5 * torch.randn(parameter.shape, generator=random))
    hidden = model.codec.encoder(0.3 * torch.randn(1, 1, 800, generator=random))[0]
    project = model.codec.quantizer.input_proj
    project.gain.fill_(5 / hidden.std())
    project.bias.copy_(-project.weight @ hidden.mean(0))
    return model


@pytest.fixture
def folder(model, tmp_path):
    model.save_pretrained(tmp_path / "hf", layout="hf")
    return tmp_path / "hf"


def rewrite(folder, **changes):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))


class HalfSplitCodec:
    """The codec from a file in layout hf, written for this test, with rotary halves."""

    def __init__(self, folder):
        self.config = json.loads((folder / "config.json").read_text())
        self.tensors = load_file(folder / "model.safetensors")

    def stage(self, x, prefix, index, rate):
        """Hidden states (batch, steps, width) through one stack of blocks."""
        if (name := f"{prefix}.input_proj.weight") in self.tensors:
            x = F.linear(x, self.tensors[name])
        window = int(rate * self.config["sliding_window_duration"])
        heads = self.config["num_attention_heads"][index]
        for layer in range(self.config["num_hidden_layers"][index]):
            x = self.block(x, f"{prefix}.transformer.layers.{layer}.", heads, window)
        if (name := f"{prefix}.output_proj.weight") in self.tensors:
            x = F.linear(x, self.tensors[name])
        return x

    def block(self, x, prefix, heads, window):
        def get(name):
            return self.tensors[prefix + name]

        def norm(x, name):
            return F.layer_norm(x, x.shape[-1:], get(f"{name}.weight"), get(f"{name}.bias"))

        normed = norm(x, "self_attn_layer_norm")
        query, key, value = (
            F.linear(normed, get(f"self_attn.{name}_proj.weight"))
            .unflatten(-1, (heads, -1))
            .transpose(1, 2)
            for name in "qkv"
        )
        scores = self.rotated(query) @ self.rotated(key).mT / math.sqrt(query.shape[-1])
        steps = torch.arange(x.shape[1])
        back = steps[:, None] - steps
        scores = scores.masked_fill((back < 0) | (back >= window), -math.inf)
        attended = (scores.softmax(-1) @ value).transpose(1, 2).flatten(2)
        update = F.linear(attended, get("self_attn.o_proj.weight"))
        x = x + get("layer_scale_1.lambda1") * update
        hidden = F.gelu(F.linear(norm(x, "final_layer_norm"), get("fc1.weight")))
        return x + get("layer_scale_2.lambda1") * F.linear(hidden, get("fc2.weight"))

    def rotated(self, x):
        """First half turned against second half, as Llama does it."""
        width = x.shape[-1]
        theta = self.config["rope_parameters"]["rope_theta"]
        frequencies = theta ** (-torch.arange(0, width, 2) / width)
        angles = torch.arange(x.shape[-2])[:, None] * frequencies
        cosine, sine = (torch.cat((part, part), -1) for part in (angles.cos(), angles.sin()))
        first, second = x.chunk(2, -1)
        return x * cosine + torch.cat((-second, first), -1) * sine

    def encode(self, audio):
        """Hidden states of audio (batch, 1, samples)."""
        x, rate = audio.transpose(1, 2), self.config["sampling_rate"]
        for index, ratio in enumerate(self.config["downsampling_ratios"]):
            x, rate = x.unflatten(1, (-1, ratio)).transpose(2, 3).flatten(2), rate / ratio
            x = self.stage(x, f"encoder.layers.{2 * index + 1}", index, rate)
        return x

    def convolve(self, x, name):
        tensors = (self.tensors[f"quantizer.{name}.{kind}"] for kind in ("weight", "bias"))
        return F.conv1d(x.transpose(1, 2), *tensors).transpose(1, 2)

    def choose(self, hidden):
        """Codes (num_quantizers, batch, frames)."""
        residual, codes = self.convolve(hidden, "input_proj"), []
        for layer in range(self.config["quantizer_config"]["n_codebooks"]):
            book = self.tensors[f"quantizer.quantizers.{layer}.codebook.weight"]
            view = self.convolve(residual, f"quantizers.{layer}.in_proj")
            codes.append((F.normalize(view, dim=-1) @ F.normalize(book).T).argmax(-1))
            residual = residual - self.convolve(book[codes[-1]], f"quantizers.{layer}.out_proj")
        return torch.stack(codes)

    def decode(self, codes):
        """Audio (batch, 1, samples)."""
        parts = [
            self.convolve(self.tensors[f"quantizer.quantizers.{q}.codebook.weight"][row], name)
            for q, row in enumerate(codes)
            for name in (f"quantizers.{q}.out_proj",)
        ]
        x = self.convolve(sum(parts), "output_proj")
        ratios = self.config["downsampling_ratios"]
        rate = self.config["sampling_rate"] / math.prod(ratios)
        for place, ratio in enumerate(reversed(ratios)):
            x = self.stage(x, f"decoder.layers.{2 * place}", len(ratios) - 1 - place, rate)
            x, rate = x.unflatten(2, (-1, ratio)).transpose(2, 3).flatten(1, 2), rate * ratio
        return x.transpose(1, 2)


def test_another_implementation_of_the_layout_computes_the_same(model, folder):
    other = HalfSplitCodec(folder)
    audio = 0.3 * torch.randn(2, 1, 8 * 40, generator=torch.Generator().manual_seed(0))
    expected = model.encode(audio)
    hidden = other.encode(audio)
    torch.testing.assert_close(hidden.transpose(1, 2), expected.encoder_hidden_states)
    codes = other.choose(hidden)
    assert torch.equal(codes, expected.audio_codes)
    assert all(len(layer.unique()) > 1 for layer in codes)
    torch.testing.assert_close(other.decode(codes), model.decode(codes).audio)


def test_a_round_trip_keeps_every_weight_bit_for_bit(model, folder, tmp_path):
    loaded = MossAudioTokenizerModel.from_pretrained(folder)
    assert loaded.config.codec == model.config.codec
    expected, found = model.codec.state_dict(), loaded.codec.state_dict()
    assert set(found) == set(expected)
    for name, tensor in expected.items():
        if not name.endswith(("gain", "direction")):  # one weight in that layout
            assert torch.equal(found[name], tensor), name
    for name in ("input_proj", "output_proj", "in_projs", "out_projs"):
        weights = (getattr(each.codec.quantizer, name).weight for each in (model, loaded))
        assert torch.equal(*weights), name
    loaded.save_pretrained(tmp_path / "again", layout="hf")
    for name in ("config.json", "model.safetensors", "preprocessor_config.json"):
        assert (tmp_path / "again" / name).read_bytes() == (folder / name).read_bytes()


def test_codes_and_audio_are_equal_to_the_last_bit(model, folder):
    loaded = MossAudioTokenizerModel.from_pretrained(folder)
    audio = 0.3 * torch.randn(1, 1, 400, generator=torch.Generator().manual_seed(0))
    expected, found = model.encode(audio), loaded.encode(audio)
    assert torch.equal(found.audio_codes, expected.audio_codes)
    assert torch.equal(found.encoder_hidden_states, expected.encoder_hidden_states)
    torch.testing.assert_close(
        loaded.decode(found.audio_codes).audio, model.decode(found.audio_codes).audio
    )


def test_through_the_layout_into_v1_and_back(folder, tmp_path):
    MossAudioTokenizerModel.from_pretrained(folder).save_pretrained(tmp_path / "v1", layout="v1")
    MossAudioTokenizerModel.from_pretrained(tmp_path / "v1").save_pretrained(
        tmp_path / "hf2", layout="hf"
    )
    first, second = (load_file(path / "model.safetensors") for path in (folder, tmp_path / "hf2"))
    assert set(first) == set(second)
    assert all(torch.equal(second[name], tensor) for name, tensor in first.items())


def test_names_of_configuration_and_tensors(folder):
    config = json.loads((folder / "config.json").read_text())
    assert config["model_type"] == "moss_audio_tokenizer"
    assert config["downsampling_ratios"] == [4, 2]
    assert config["hidden_sizes"] == [16, 12]
    assert config["quantizer_config"]["n_codebooks"] == 4
    assert config["dtype"] == "float32"
    shapes = {
        name: list(tensor.shape) for name, tensor in load_file(folder / "model.safetensors").items()
    }
    block = "encoder.layers.1.transformer.layers.1."
    assert shapes[block + "self_attn.q_proj.weight"] == [16, 16]
    assert shapes[block + "fc2.weight"] == [16, 32]
    assert shapes[block + "layer_scale_2.lambda1"] == [16]
    assert shapes["decoder.layers.2.output_proj.weight"] == [4, 16]
    assert shapes["quantizer.quantizers.3.in_proj.weight"] == [4, 10, 1]
    assert not any("parametrizations" in name for name in shapes)


def test_the_released_v1_model_has_a_configuration():
    config = port_config(preset("v1"))
    assert config["downsampling_ratios"] == [240, 2, 2, 2]
    assert config["input_hidden_sizes"] == [240, 768, 768, 1280]
    assert config["output_hidden_sizes"] == [384, 384, 640, 768]
    assert config["num_hidden_layers"] == [12, 12, 12, 32]
    assert config["intermediate_sizes"] == [3072, 3072, 3072, 5120]
    assert config["sliding_window_duration"] == 10
    assert codec_config_from_released(released_from_port(config)) == preset("v1")


@pytest.mark.parametrize("sizes", [{"codebook_dim": 10}, {"num_quantizers": 1}], ids=str)
def test_projections_between_equal_widths_are_identities(make_model, tmp_path, sizes):
    model = make_model(windows=WINDOWS, **sizes)
    model.save_pretrained(tmp_path, layout="hf")
    tensors = load_file(tmp_path / "model.safetensors")
    assert "quantizer.quantizers.0.out_proj.bias" in tensors
    audio = 0.3 * torch.randn(1, 1, 80, generator=torch.Generator().manual_seed(0))
    codes = MossAudioTokenizerModel.from_pretrained(tmp_path).encode(audio).audio_codes
    assert torch.equal(codes, model.encode(audio).audio_codes)
    if "codebook_dim" in sizes:
        tensors["quantizer.quantizers.0.out_proj.bias"][0] = 1
        save_file(tensors, tmp_path / "model.safetensors")
        with pytest.raises(CheckpointError, match="between equal widths, and is not the identity"):
            MossAudioTokenizerModel.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("channels", "changes", "reason"),
    [
        (2, {"windows": WINDOWS}, "more than one channel"),
        (1, {"windows": WINDOWS, "quantizer_type": "rvq"}, "its quantizer is rvq"),
        (1, {"windows": (0.03, 0.05)}, r"windows of \[6, 5\] steps"),
    ],
)
def test_models_that_the_layout_cannot_describe(make_model, tmp_path, channels, changes, reason):
    with pytest.raises(ConfigError, match=f"layout hf cannot describe this model: .*{reason}"):
        make_model(channels, **changes).save_pretrained(tmp_path, layout="hf")
    assert not list(tmp_path.iterdir())


def test_windows_are_rounded_down_as_in_transformers(model, folder):
    """29 / 100 times 100 is less than 29 in floating point."""
    rewrite(folder, sliding_window_duration=0.29)
    codec = MossAudioTokenizerModel.from_pretrained(folder).config.codec
    stages = [codec.encoder[1], codec.encoder[3]]
    assert [codec.context_steps(*pair) for pair in zip(stages, (200, 100), strict=True)] == [57, 28]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_sizes": [16]}, "different lengths"),
        ({"hidden_sizes": [16, "12"]}, "expected whole numbers above 0"),
        ({"downsampling_ratios": None}, "expected a list"),
        ({"rope_parameters": {"rope_type": "yarn"}}, "only the type 'default'"),
        ({"sliding_window_duration": -1}, "expected a number above 0"),
        ({"quantizer_config": {"n_codebooks": 4}}, "expected an object with input_hidden_size"),
    ],
)
def test_configurations_that_cannot_be_read(folder, changes, message):
    rewrite(folder, **changes)
    with pytest.raises(ConfigError, match=message):
        MossAudioTokenizerModel.from_pretrained(folder)


@pytest.mark.parametrize("missing", ["k_proj", "fc1", "quantizers.2.in_proj.weight"])
def test_tensors_that_are_missing(folder, missing):
    tensors = load_file(folder / "model.safetensors")
    kept = {name: tensor for name, tensor in tensors.items() if missing not in name}
    save_file(kept, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match="does not fit its config"):
        MossAudioTokenizerModel.from_pretrained(folder)


def test_readers_without_pytorch_say_what_to_do(folder):
    with pytest.raises(ConfigError, match=r"moss-audio export hf DIR -o NEW --layout v1"):
        StoredWeights(folder)
