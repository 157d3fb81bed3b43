"""`OnnxAudioTokenizer` against `MossAudioTokenizerModel`: the same verbs, the same results."""

import numpy as np
import pytest
import torch

from moss_audio_tokenizer.errors import AudioError, CodesError, ConfigError, InputError
from moss_audio_tokenizer.onnx import OnnxAudioTokenizer
from moss_audio_tokenizer.onnx.runtime import Runtime


def load(folder):
    return OnnxAudioTokenizer.from_pretrained(folder, num_threads=1)


@pytest.fixture
def pair(make_exported):
    model, folder = make_exported()
    return model, load(folder)


def audio_of(shape, seed=0):
    return (0.3 * np.random.default_rng(seed).standard_normal(shape)).astype(np.float32)


def assert_same_encoding(got, expected):
    assert got.audio_codes.dtype == np.int64
    assert np.array_equal(got.audio_codes, expected.audio_codes)
    assert np.array_equal(got.audio_codes_lengths, expected.audio_codes_lengths)
    hidden = expected.encoder_hidden_states.numpy()
    assert np.abs(got.encoder_hidden_states - hidden).max() <= 1e-4 * hidden.std()


def assert_same_audio(got, expected):
    assert np.array_equal(got.audio_lengths, expected.audio_lengths)
    assert got.audio.shape == tuple(expected.audio.shape)
    rms = float(expected.audio.square().mean().sqrt())
    assert np.abs(got.audio - expected.audio.numpy()).max() <= 1e-4 * rms


def test_facts(pair):
    model, codec = pair
    assert codec.identity == model.identity
    assert codec.sampling_rate == model.sampling_rate == 800
    assert codec.config == model.config.codec
    assert codec.info.num_quantizers == 4


@pytest.mark.parametrize("shape", [(805,), (2, 805), (2, 1, 77)])
def test_encode_and_decode(pair, shape):
    model, codec = pair
    expected = model.encode(audio_of(shape))
    got = codec.encode(audio_of(shape))
    assert_same_encoding(got, expected)
    assert_same_audio(codec.decode(got.audio_codes), model.decode(expected.audio_codes))
    assert_same_audio(codec.decode(got.audio_codes[:, 0]), model.decode(got.audio_codes[:, 0]))


def test_clips_that_are_encoded_at_once(pair):
    _, codec = pair
    # Of no frame in common, beyond a piece, and alike.
    clips = [audio_of((samples,), seed) for seed, samples in enumerate((3, 2900, 805, 800, 2100))]
    together = codec.encode_together(clips, num_quantizers=3)
    for clip, codes in zip(clips, together, strict=True):
        assert codes.dtype == np.int64
        assert np.array_equal(codes, codec.encode(clip, num_quantizers=3).audio_codes[:, 0])
    with pytest.raises(AudioError, match="audio is empty"):
        codec.encode_together([clips[0], clips[0][:0]])


def test_stereo(make_exported):
    model, folder = make_exported(2)
    codec, audio = load(folder), audio_of((2, 805))
    expected = model.encode(audio)
    assert_same_encoding(codec.encode(audio), expected)
    assert_same_audio(codec.decode(expected.audio_codes), model.decode(expected.audio_codes))


@pytest.mark.parametrize("seconds", [0.01, 0.05, 0.13, 5])
def test_chunks_change_nothing(pair, seconds):
    _, codec = pair
    audio = audio_of(805)
    whole, chunked = codec.encode(audio), codec.encode(audio, chunk_duration=seconds)
    assert np.array_equal(whole.audio_codes, chunked.audio_codes)
    first = codec.decode(whole.audio_codes).audio
    second = codec.decode(whole.audio_codes, chunk_duration=seconds).audio
    assert np.abs(first - second).max() <= 1e-4 * first.std()


def test_masks_layers_and_lists(pair):
    model, codec = pair
    audio = audio_of((2, 200))
    mask = np.arange(200) < np.array([[200], [61]])
    masked = model.encode(audio, mask)
    assert_same_encoding(codec.encode(audio, mask), masked)
    assert_same_encoding(
        codec.batch_encode([audio[0], audio[1, :61]], num_quantizers=2),
        model.batch_encode([audio[0], audio[1, :61]], num_quantizers=2),
    )
    rows = [masked.audio_codes[:, 0], masked.audio_codes[:, 1, :8]]
    assert_same_audio(codec.batch_decode(rows), model.batch_decode(rows))
    assert_same_audio(
        codec.batch_decode(rows, num_quantizers=3), model.batch_decode(rows, num_quantizers=3)
    )
    frames = np.arange(25) < np.array([[25], [8]])
    codes = masked.audio_codes
    assert_same_audio(codec.decode(codes, frames), model.decode(codes, frames))


def test_integers_tensors_and_odd_arrays(pair):
    _, codec = pair
    audio = audio_of(160)
    expected = codec.encode(audio).audio_codes
    sixteen = (audio * 2**15).round().astype(np.int16)
    scaled = codec.encode(sixteen / 2**15).audio_codes
    assert np.array_equal(scaled, codec.encode(sixteen).audio_codes)
    backwards = audio[::-1].copy()[::-1]
    for odd in (torch.from_numpy(audio), audio.astype(">f8"), backwards, list(audio)):
        assert np.array_equal(codec.encode(odd).audio_codes, expected)
    for kind in (np.uint8, np.int16, np.uint64):
        assert codec.decode(expected.astype(kind)).audio.shape == (1, 1, 160)


WRONG_AUDIO = [
    (np.zeros((1, 2, 8)), "expected \\(batch, 1, samples\\)"),
    (np.zeros((24_000, 2)), "looks like \\(samples, channels\\); transpose it"),
    (np.zeros((0, 1, 8)), "a batch of no clips"),
    (np.zeros((1, 1, 0)), "audio is empty"),
    (np.array([0, np.nan]), "1 NaN or infinite samples, the first at 1"),
    (np.array([0, 1e300]), "NaN or infinite"),
    (np.array([0, 1000.0]), "divide samples of 16-bit scale"),
    (np.zeros(8, np.int64), "floating point within"),
    (np.zeros(8, complex), "floating point within"),
    ("audio", "no array of numbers"),
    (None, "no array of numbers"),
    ([[1.0], [1.0, 2.0]], "no array of numbers"),
]


@pytest.mark.parametrize(("audio", "message"), WRONG_AUDIO)
def test_wrong_audio(pair, audio, message):
    _, codec = pair
    with pytest.raises(AudioError, match=message):
        codec.encode(audio)


WRONG_CODES = [
    (np.zeros((4, 3)), "expected integers"),
    (np.zeros((4, 3), bool), "expected integers"),
    (np.full((4, 3), 16), "reach from 16 to 16; expected 0 to 15"),
    (np.full((4, 3), -1), "reach from -1"),
    (np.full((4, 3), 2**64 - 1, np.uint64), "expected 0 to 15"),
    (np.zeros((5, 3), int), "num_quantizers is 5; expected 1 to 4"),
    (np.zeros((4, 1, 0), int), "none of them 0"),
    (np.zeros(4, int), "expected \\(num_quantizers, batch, frames\\)"),
    (None, "no array of numbers"),
]


@pytest.mark.parametrize(("codes", "message"), WRONG_CODES)
def test_wrong_codes(pair, codes, message):
    _, codec = pair
    with pytest.raises(CodesError, match=message):
        codec.decode(codes)


def test_wrong_options(pair):
    _, codec = pair
    audio, codes = audio_of(80), np.zeros((4, 3), int)
    with pytest.raises(CodesError, match="expected 1 to 4"):
        codec.encode(audio, num_quantizers=5)
    with pytest.raises(InputError, match=r"such as 0\.01 or 0\.02"):
        codec.encode(audio, chunk_duration=0.013)
    with pytest.raises(InputError, match="padding_mask has gaps"):
        codec.encode(audio, np.arange(80) % 2)
    with pytest.raises(InputError, match="padding_mask has shape"):
        codec.encode(audio, np.ones(79))
    with pytest.raises(InputError, match="other values than 0 and 1"):
        codec.encode(audio, np.full(80, 2))
    with pytest.raises(CodesError, match="the codes have 2 layers"):
        codec.decode(codes[:2], num_quantizers=3)
    with pytest.raises(InputError, match="use encode for a batch"):
        codec.batch_encode(audio)
    with pytest.raises(CodesError, match="the same number of layers"):
        codec.batch_decode([codes, codes[:2]])
    with pytest.raises(InputError, match="need streaming=True"):
        codec.batch_decode([codes], max_batch_size=2)


@pytest.mark.parametrize("device", ["gpu", "cuda:x", "", None, "cpu:"])
def test_devices_that_there_are_not(device):
    if device == "cpu:":
        assert Runtime(device).device_id == 0
        return
    with pytest.raises(ConfigError, match="expected cpu, cuda"):
        Runtime(device)


def test_gpus_need_another_onnxruntime():
    with pytest.raises(ConfigError, match="install onnxruntime-gpu"):
        Runtime("cuda:1")


def test_threads():
    assert Runtime(num_threads=2).num_threads == 2
    with pytest.raises(InputError, match="threads is 0"):
        Runtime(num_threads=0)


@pytest.mark.parametrize("options", [{"requires_grad": True}, {"dtype": torch.bfloat16}])
def test_tensors_that_numpy_cannot_read_are_refused_with_the_remedy(pair, options):
    with pytest.raises(AudioError, match=r"such as tensor\.detach\(\)\.float\(\)\.cpu\(\)"):
        pair[1].encode(torch.zeros(800, **options))


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int64])
def test_other_integers_are_refused_by_both_with_the_remedy(pair, dtype):
    for model in pair:
        with pytest.raises(AudioError, match="as_float_audio converts other PCM"):
            model.encode(np.zeros(800, dtype))
