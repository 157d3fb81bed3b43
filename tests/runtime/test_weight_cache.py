"""Inference encoders and decoders follow the weights, and are built once."""

import copy
import pickle

import pytest
import torch

from moss_audio_tokenizer import MossAudioTokenizerModel
from moss_audio_tokenizer.errors import ConfigError
from moss_audio_tokenizer.runtime import weight_cache

AUDIO = 0.3 * torch.randn(1, 1, 160, generator=torch.Generator().manual_seed(0))
CODES = torch.randint(16, (4, 1, 20), generator=torch.Generator().manual_seed(0))


@pytest.fixture
def model(make_model):
    return make_model()


@pytest.fixture
def made(monkeypatch):
    """Names of the inference encoders and decoders that are built during a test."""
    found = []

    def counting(kind):
        def make(*arguments):
            found.append(kind.__name__)
            return kind(*arguments)

        return make

    for name in ("InferenceEncoder", "InferenceDecoder"):
        monkeypatch.setattr(weight_cache, name, counting(getattr(weight_cache, name)))
    return found


def use(model):
    """Encode and decode, and hold the results against the modules that are trained."""
    hidden = model.encode(AUDIO).encoder_hidden_states
    audio = model.decode(CODES).audio
    expected = model.codec.encoder(AUDIO).transpose(1, 2)
    torch.testing.assert_close(hidden, expected, atol=1e-5, rtol=1e-4)
    expected = model.codec.decoder(model.codec.quantizer.decode(CODES))
    torch.testing.assert_close(audio, expected, atol=1e-5, rtol=1e-4)


def test_prepared_once(model, made):
    for _ in range(3):
        use(model)
        model.encode(AUDIO, chunk_duration=0.03)
        model.batch_decode([CODES[:, 0]], streaming=True)
        for stream in (model.decoder_stream(1), model.encoder_stream(1)):
            stream.open()
        with torch.inference_mode():
            model.encode(AUDIO)
            model.decode(CODES)
    assert sorted(made) == ["InferenceDecoder", "InferenceEncoder"]


def change_encoder(model):
    with torch.no_grad():
        model.codec.encoder.stages[1].layers[0].attention.in_proj.weight.mul_(1.5)


def change_decoder(model):
    with torch.no_grad():
        model.codec.decoder.stages[0].layers[0].attention_norm.bias.add_(0.5)


def change_quantizer(model):
    with torch.no_grad():
        model.codec.quantizer.codebooks[1].mul_(2)


def train_a_step(model):
    parameters = [parameter.requires_grad_() for parameter in model.codec.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=0.1)
    output = model.codec.quantizer(model.codec.encoder(AUDIO))
    model.codec.decoder(output.hidden).square().sum().backward()
    optimizer.step()
    model.codec.requires_grad_(requires_grad=False)


def load_a_state(model):
    state = {name: tensor * 1.1 for name, tensor in model.state_dict().items()}
    model.load_state_dict(state)


def assign_a_state(model):
    state = {name: tensor * 1.1 for name, tensor in model.state_dict().items()}
    model.load_state_dict(state, assign=True)


def replace_the_codec(model):
    other = copy.deepcopy(model.codec)
    for parameter in other.parameters():
        parameter.mul_(1.1)
    model.codec = other


def write_and_clear(model):
    model.codec.encoder.stages[1].input_proj.weight.data.mul_(1.5)
    model._prepared.clear()


def write_through_data(model):
    """As many programs apply averaged weights: PyTorch counts no new version."""
    for parameter in model.parameters():
        parameter.data.mul_(1.1)


BOTH = ["InferenceDecoder", "InferenceEncoder"]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (change_encoder, ["InferenceEncoder"]),
        (change_decoder, ["InferenceDecoder"]),
        (change_quantizer, BOTH),
        (train_a_step, BOTH),
        (load_a_state, BOTH),
        (assign_a_state, BOTH),
        (replace_the_codec, BOTH),
        (write_and_clear, BOTH),
        (write_through_data, BOTH),
        (lambda model: model.to(torch.float64).to(torch.float32), BOTH),
        (lambda model: model.set_compute_dtype("fp32"), []),
        (lambda model: model.set_attention_implementation("sdpa"), []),
        (lambda model: model.train().eval(), []),
    ],
)
def test_prepared_again_when_weights_change(model, made, change, expected):
    use(model)
    made.clear()
    change(model)
    use(model)
    assert sorted(made) == expected


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_weights_of_another_type_still_compute_in_fp32(model, dtype):
    model.to(dtype)
    encoding = model.encode(AUDIO)
    assert encoding.audio_codes.dtype == torch.int64
    assert model.decode(encoding.audio_codes).audio.dtype == torch.float32


def test_prepared_again_for_other_settings(model, made):
    use(model)
    made.clear()
    exact = model.encode(AUDIO).encoder_hidden_states
    model.set_compute_dtype("bf16")
    assert not torch.equal(model.encode(AUDIO).encoder_hidden_states, exact)
    assert made == ["InferenceEncoder"]
    model.set_compute_dtype("fp32")
    assert torch.equal(model.encode(AUDIO).encoder_hidden_states, exact)
    assert made == ["InferenceEncoder"] * 2
    model.set_attention_implementation("flex_attention")
    half = model._inference_encoder()
    assert made == ["InferenceEncoder"] * 3
    assert {stage.attention_backend for stage in half.transformers()} == {"flex_attention"}


def test_new_weights_at_the_address_of_the_old(model):
    """Memory that is freed is used again: an address does not tell weights apart."""
    layer = model.codec.encoder.stages[1].input_proj
    values = [layer.weight * (1 + number / 10) for number in range(20)]
    for value in values:
        use(model)
        del layer.weight
        layer.weight = torch.nn.Parameter(value.clone(), requires_grad=False)
    use(model)


def test_halves_of_a_half(model, tmp_path):
    model.save_pretrained(tmp_path)
    encoder = MossAudioTokenizerModel.from_pretrained(tmp_path, parts="encoder")
    decoder = MossAudioTokenizerModel.from_pretrained(tmp_path, parts="decoder")
    codes = encoder.encode(AUDIO).audio_codes
    assert torch.equal(codes, model.encode(AUDIO).audio_codes)
    assert torch.equal(decoder.decode(codes).audio, model.decode(codes).audio)
    encoder.encoder_stream(1).open()
    decoder.decoder_stream(1).open()
    for call in (lambda: encoder.decode(codes), encoder.decoder_stream):
        with pytest.raises(ConfigError, match="only the encoder was loaded"):
            call()
    for call in (lambda: decoder.encode(AUDIO), decoder.encoder_stream):
        with pytest.raises(ConfigError, match="only the decoder was loaded"):
            call()


@pytest.mark.parametrize(
    "duplicate",
    [copy.copy, copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))],  # noqa: S301
)
def test_copies_leave_streams_and_what_was_prepared_behind(model, duplicate):
    use(model)
    model.decoder_stream(1).open()
    first = model.batch_decode([CODES[:, 0, :5]], streaming=True).audio
    other = duplicate(model)
    use(other)
    again = other.batch_decode([CODES[:, 0, :5]] * 2, streaming=True).audio
    torch.testing.assert_close(again[:1], first, atol=1e-6, rtol=1e-5)
    rest = model.batch_decode([CODES[:, 0, 5:]], streaming=True).audio
    whole = model.decode(CODES).audio
    torch.testing.assert_close(torch.cat((first, rest), dim=2), whole, atol=1e-5, rtol=1e-4)
    if duplicate is not copy.copy:
        change_decoder(other)
        use(model)
        use(other)
