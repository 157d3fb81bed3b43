"""Whole encoders and decoders for inference against the modules that are trained."""

import dataclasses
import subprocess
import sys
from itertools import pairwise

import pytest
import torch

from moss_audio_tokenizer.config import TransformerStage
from moss_audio_tokenizer.model.codec import Codec
from moss_audio_tokenizer.runtime.inference_codec import InferenceDecoder, InferenceEncoder

STEP = 8  # samples a frame
CHANNELS = pytest.mark.parametrize("channels", [1, 2])


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def relative_error(got, expected):
    assert got.shape == expected.shape
    return float((got - expected).norm() / expected.norm())


@pytest.fixture(params=["v1", "v2"])
def codec(request, make_config, make_codec):
    """Projections between unequal widths only, or everywhere."""
    if request.param == "v1":
        return make_codec(2)
    config = make_config(2)
    stages = {
        side: tuple(
            dataclasses.replace(stage, always_project=True)
            if isinstance(stage, TransformerStage)
            else stage
            for stage in getattr(config, side)
        )
        for side in ("encoder", "decoder")
    }
    codec = Codec(dataclasses.replace(config, **stages)).requires_grad_(requires_grad=False)
    codec.initialize(torch.Generator().manual_seed(1))
    return codec


@pytest.mark.parametrize("frames", [1, 4, 90])
def test_one_chunk(codec, frames):
    audio, hidden = 0.3 * random(3, 2, frames * STEP), random(3, frames, 12)
    encoder, decoder = (
        InferenceEncoder(codec, torch.float32),
        InferenceDecoder(codec, torch.float32),
    )
    assert relative_error(encoder.run_chunk(audio), codec.encoder(audio)) < 1e-5
    assert relative_error(decoder.run_chunk(hidden), codec.decoder(hidden)) < 1e-5


@pytest.mark.parametrize("sizes", [[1] * 30, [2, 7, 1, 20], [29, 1], [80, 3, 40]])
def test_several_chunks(codec, sizes):
    frames = sum(sizes)
    audio, hidden = 0.3 * random(2, 2, frames * STEP), random(2, frames, 12)
    samples = [size * STEP for size in sizes]
    encoder, decoder = (
        InferenceEncoder(codec, torch.float32),
        InferenceDecoder(codec, torch.float32),
    )
    for coder, x, cut, axis, expected in [
        (encoder, audio, samples, 2, codec.encoder(audio)),
        (decoder, hidden, sizes, 1, codec.decoder(hidden)),
    ]:
        state = coder.init_chunks()
        parts = [coder.run_chunk(part, state) for part in x.split(cut, dim=axis)]
        got = torch.cat(parts, dim=1 if coder is encoder else 2)
        assert relative_error(got, expected) < 1e-5


def test_the_folded_codec_is_as_it_was(codec):
    before = {name: value.clone() for name, value in codec.state_dict().items()}
    encoder, decoder = (
        InferenceEncoder(codec, torch.float32),
        InferenceDecoder(codec, torch.float32),
    )
    audio, hidden = 0.3 * random(1, 2, 80), random(1, 10, 12)
    kept = audio.clone(), hidden.clone()
    encoder.run_chunk(audio)
    decoder.run_chunk(hidden)
    assert torch.equal(audio, kept[0])
    assert torch.equal(hidden, kept[1])
    assert all(torch.equal(before[name], value) for name, value in codec.state_dict().items())


# Precisions


def stream_all(session, clip, chunk):
    """The clip through two streams at once, one chunk ahead of the other."""
    first, second = session.open(), session.open()
    parts = clip.split(chunk, dim=1)
    got = [session.step({first: parts[0]})[first]]
    other = []
    for part, ahead in pairwise(parts):
        results = session.step({first: ahead, second: part})
        got.append(results[first])
        other.append(results[second])
    other.append(session.step({second: parts[-1]})[second])
    return torch.cat(got, dim=1), torch.cat(other, dim=1)


@pytest.mark.parametrize(("dtype", "tolerance"), [("bf16", 0.03), ("fp16", 1e-3)])
@CHANNELS
def test_half_precisions(make_model, channels, dtype, tolerance):
    model = make_model(channels)
    audio, codes = 0.3 * random(channels, 60 * STEP), random(4, 60).abs().mul(6).long().clamp(0, 15)
    exact = model.encode(audio).encoder_hidden_states, model.decode(codes).audio[0]
    model.set_compute_dtype(dtype)
    hidden = model.encode(audio).encoder_hidden_states
    sound = model.decode(codes).audio[0]
    assert hidden.dtype == sound.dtype == torch.float32
    assert 0 < relative_error(hidden, exact[0]) < tolerance
    assert 0 < relative_error(sound, exact[1]) < tolerance
    chunked = model.encode(audio, chunk_duration=0.03).encoder_hidden_states
    assert relative_error(chunked, exact[0]) < tolerance
    for result in stream_all(model.decoder_stream(2, 4), codes, 7):
        assert result.dtype == torch.float32
        assert 0 < relative_error(result, exact[1]) < tolerance
    # Rounded weights alone change nothing about how a stream is cut.
    if dtype == "fp16":
        assert relative_error(result, sound) < 1e-5
    for codes in stream_all(model.encoder_stream(2, 4), audio, 100):
        assert codes.shape == (4, 60)


def test_autocast_is_kept_out(make_model):
    """set_compute_dtype says how to compute; codes do not depend on what surrounds a call."""
    model = make_model()
    audio, codes = 0.3 * random(1, 60 * STEP), torch.randint(16, (4, 60))
    expected = model.encode(audio), model.decode(codes).audio
    streamed = stream_all(model.decoder_stream(2, 4), codes, 7)
    with torch.autocast("cpu", torch.bfloat16):
        got = model.encode(audio)
        assert torch.equal(got.audio_codes, expected[0].audio_codes)
        assert torch.equal(got.encoder_hidden_states, expected[0].encoder_hidden_states)
        assert torch.equal(model.decode(codes).audio, expected[1])
        again = stream_all(model.decoder_stream(2, 4), codes, 7)
        stream_all(model.encoder_stream(2, 4), audio, 100)
    assert all(torch.equal(left, right) for left, right in zip(streamed, again, strict=True))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_models_that_were_cast(make_codec, dtype):
    """Weights are folded in float32, whatever type they are kept in."""
    cast, rounded = make_codec().to(dtype), make_codec().to(dtype).float()
    audio, codes = 0.3 * random(2, 1, 30 * STEP), torch.randint(16, (4, 2, 30))
    results = []
    for codec in (cast, rounded):
        encoder = InferenceEncoder(codec, torch.float32)
        decoder = InferenceDecoder(codec, torch.float32)
        hidden = encoder.run_chunk(audio)
        quantized = decoder.quantizer.decode(codes)
        results.append((hidden, encoder.quantizer.encode(hidden, 4), decoder.run_chunk(quantized)))
    for got, expected in zip(*results, strict=True):
        assert got.dtype == expected.dtype
        assert torch.equal(got, expected)


def test_compiled_models_answer_the_same():
    """Inference is left out of compiled graphs: compilers do not know oneDNN's packed products."""
    code = """
import torch
from moss_audio_tokenizer import MossAudioTokenizerModel
model = MossAudioTokenizerModel.from_pretrained("bundled")
def backend(graph, _inputs):
    assert "linear" not in str(graph.graph)
    return graph.forward
audio = 0.1 * torch.randn(1, 1, 3840)
expected = model.encode(audio).audio_codes
sound = model.decode(expected).audio
assert torch.equal(torch.compile(model.encode, backend=backend)(audio).audio_codes, expected)
assert torch.equal(torch.compile(model.decode, backend=backend)(expected).audio, sound)
torch.compile(model, backend=backend)(audio)
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, timeout=200)
