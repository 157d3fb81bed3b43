"""The public face: shapes, lengths, batches, pieces, and what it refuses."""

import numpy as np
import pytest
import torch

from moss_audio_tokenizer import MossAudioTokenizerConfig, MossAudioTokenizerModel
from moss_audio_tokenizer.errors import AudioError, CodesError, ConfigError, InputError


def noise(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * 0.4 - 0.2


@pytest.fixture
def model(make_model):
    return make_model()


@pytest.fixture
def stereo(make_model):
    return make_model(channels=2)


# Shapes and lengths


@pytest.mark.parametrize("shape", [(83,), (1, 83), (1, 1, 83), (3, 83), (3, 1, 83)])
def test_accepted_shapes_of_mono(model, shape):
    encoded = model.encode(noise(*shape))
    batch = shape[0] if len(shape) > 1 else 1
    assert encoded.audio_codes.shape == (4, batch, 11)
    assert encoded.audio_codes.dtype == torch.int64
    assert encoded.audio_codes_lengths.tolist() == [11] * batch
    assert encoded.encoder_hidden_states.shape == (batch, 12, 11)
    decoded = model.decode(encoded.audio_codes)
    assert decoded.audio.shape == (batch, 1, 88)
    assert decoded.audio.dtype == torch.float32
    assert decoded.audio_lengths.tolist() == [88] * batch


@pytest.mark.parametrize("shape", [(2, 83), (1, 2, 83), (3, 2, 83)])
def test_accepted_shapes_of_stereo(stereo, shape):
    encoded = stereo.encode(noise(*shape))
    batch = shape[0] if len(shape) == 3 else 1
    assert encoded.audio_codes.shape == (4, batch, 11)
    assert stereo.decode(encoded.audio_codes).audio.shape == (batch, 2, 88)


def test_stereo_pads_each_channel_before_interleaving(stereo):
    audio = noise(1, 2, 83)
    padded = torch.nn.functional.pad(audio, (0, 5))
    assert torch.equal(stereo.encode(audio).audio_codes, stereo.encode(padded).audio_codes)


@pytest.mark.parametrize("samples", [1, 7, 8, 9, 16])
def test_short_clips_and_silence_work(model, samples):
    encoded = model.encode(torch.zeros(samples))
    assert encoded.audio_codes.shape[-1] == -(-samples // 8)
    assert torch.isfinite(model.decode(encoded.audio_codes).audio).all()


def test_numpy_and_integers(model):
    audio = (noise(100) * 32768).round().to(torch.int16)
    expected = model.encode(audio.float() / 32768).audio_codes
    assert torch.equal(model.encode(audio.numpy()).audio_codes, expected)
    wide = audio.to(torch.int32) * 65536
    assert torch.equal(model.encode(wide).audio_codes, expected)
    assert torch.equal(model.encode(audio.double() / 32768).audio_codes, expected)


def test_plain_tuples(model):
    codes, lengths = model.encode(noise(80), return_dict=False)
    assert lengths.tolist() == [10]
    (audio,) = model.decode(codes, return_dict=False)
    assert audio.shape == (1, 1, 80)


def test_call_returns_audio_of_the_same_length(model):
    output = model(noise(2, 83), padding_mask=torch.arange(83).expand(2, -1) < 50)
    assert output.audio.shape == (2, 1, 50)
    assert output.audio_lengths.tolist() == [50, 50]
    assert output.audio_codes.shape == (4, 2, 7)
    from_codes = model(audio_codes=output.audio_codes)
    torch.testing.assert_close(from_codes.audio[..., :50], output.audio)
    with pytest.raises(InputError, match="neither"):
        model()


# Variable bitrate


def test_fewer_layers_are_a_prefix(model):
    audio = noise(200)
    codes = model.encode(audio).audio_codes
    assert torch.equal(model.encode(audio, num_quantizers=2).audio_codes, codes[:2])
    few = model.decode(codes[:2]).audio
    assert torch.equal(model.decode(codes, num_quantizers=2).audio, few)
    assert torch.equal(model.decode(codes[:, 0, :], num_quantizers=2).audio, few)


# The same codes in any company


def ragged(count=8):
    return [noise(40 + 61 * index, seed=index) for index in range(count)]


def test_batch_and_padding_do_not_change_codes(model):
    clips = ragged()
    batch = model.batch_encode(clips)
    longest = max(len(clip) for clip in clips) + 37
    padded = torch.stack(
        [torch.nn.functional.pad(c, (0, longest - len(c)), value=9) for c in clips]
    )
    mask = torch.stack([torch.arange(longest) < len(clip) for clip in clips])
    masked = model.encode(padded, mask)
    for row, clip in enumerate(clips):
        alone = model.encode(clip)
        frames = alone.audio_codes.shape[-1]
        for other in (batch, masked):
            assert other.audio_codes_lengths[row] == frames
            assert torch.equal(other.audio_codes[:, row, :frames], alone.audio_codes[:, 0])
            assert other.audio_codes[:, row, frames:].abs().sum() == 0


def test_rows_computed_together_agree_too(model, monkeypatch):
    # What a GPU does: one padded batch.
    expected = model.batch_encode(ragged())
    rows = [expected.audio_codes[:, row, : 5 + row] for row in range(8)]
    audio = model.batch_decode(rows)
    monkeypatch.setattr(model, "_alone", lambda deterministic: deterministic)
    got = model.batch_encode(ragged())
    assert torch.equal(got.audio_codes, expected.audio_codes)
    torch.testing.assert_close(got.encoder_hidden_states, expected.encoder_hidden_states)
    again = model.batch_decode(rows)
    assert torch.equal(again.audio_lengths, audio.audio_lengths)
    torch.testing.assert_close(again.audio, audio.audio, atol=1e-6, rtol=1e-4)
    # Asked for, rows are taken one by one again, and bits agree.
    assert torch.equal(model.batch_decode(rows, deterministic=True).audio, audio.audio)


def test_batch_decode_of_unequal_lengths(model):
    codes = [model.encode(clip).audio_codes[:, 0] for clip in ragged(3)]
    batch = model.batch_decode(codes)
    for row, item in enumerate(codes):
        alone = model.decode(item).audio[0]
        assert batch.audio_lengths[row] == alone.shape[-1]
        assert torch.equal(batch.audio[row, :, : alone.shape[-1]], alone)
        assert batch.audio[row, :, alone.shape[-1] :].abs().sum() == 0


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("frames", [1, 2, 3, 7, 30])
def test_pieces_equal_the_whole(make_model, channels, frames):
    # Far past both windows, 5 and 3 frames.
    model = make_model(channels)
    audio = noise(channels, 8 * 64 - 3)
    whole = model.encode(audio)
    pieces = model.encode(audio, chunk_duration=frames / 100)
    assert torch.equal(pieces.audio_codes, whole.audio_codes)
    torch.testing.assert_close(pieces.encoder_hidden_states, whole.encoder_hidden_states)
    expected = model.decode(whole.audio_codes).audio
    got = model.decode(whole.audio_codes, chunk_duration=frames / 100).audio
    assert (got - expected).norm() <= 1e-5 * expected.norm()


def test_chunk_duration_names_valid_values(model):
    with pytest.raises(ValueError, match=r"such as 0.02 or 0.03"):
        model.encode(noise(80), chunk_duration=0.025)
    with pytest.raises(ValueError, match=r"such as 0.01 or 0.02"):
        model.decode(torch.zeros(4, 1, 3, dtype=torch.long), chunk_duration=-1.0)


# Settings


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
def test_half_precision_stays_close(model, dtype):
    audio = noise(400)
    expected = model.encode(audio).encoder_hidden_states
    model.set_compute_dtype(dtype)
    got = model.encode(audio)
    assert got.encoder_hidden_states.dtype == torch.float32
    assert 0 < (got.encoder_hidden_states - expected).norm() < 0.05 * expected.norm()
    assert model.decode(got.audio_codes).audio.dtype == torch.float32


def test_unknown_settings_are_refused(model):
    with pytest.raises(ConfigError, match="fp32, bf16, fp16"):
        model.set_compute_dtype("int8")
    with pytest.raises(ConfigError, match="flash_attention_2"):
        model.set_attention_implementation("flash_attention_3")


def test_settings_survive_saving(model, tmp_path):
    model.set_compute_dtype("bf16")
    model.save_pretrained(tmp_path)
    assert MossAudioTokenizerModel.from_pretrained(tmp_path).config.compute_dtype == "bf16"


def test_identity_is_that_of_the_codes(model):
    identity = model.identity
    model.codec.decoder.stages[0].layers[0].attention_scale.data.add_(1)
    assert model.identity == identity
    model.codec.quantizer.codebooks.data[0, 0, 0] += 1
    assert model.identity != identity


# Refusals


def test_bad_audio(model, stereo):
    for bad, message in [
        (torch.zeros(0), "empty"),
        (torch.tensor([0.0, float("nan")]), "1 NaN or infinite samples, the first at 1"),
        (torch.tensor([float("inf"), 0.0]), "the first at 0"),
        (torch.zeros(1, 2, 80), "this model of 1 channel"),
        (torch.zeros(1, 1, 1, 80), "shape"),
        (torch.zeros(80, dtype=torch.uint8), "uint8"),
        (torch.zeros(80, dtype=torch.int64), "int64"),
        (torch.zeros(80, dtype=torch.complex64), "complex64"),
    ]:
        with pytest.raises(AudioError, match=message):
            model.encode(bad)
    for bad in (torch.zeros(80), torch.zeros(3, 80), torch.zeros(1, 1, 80)):
        with pytest.raises(AudioError, match="this model of 2 channel"):
            stereo.encode(bad)


def test_bad_masks(model):
    audio = noise(2, 80)
    gap = torch.ones(2, 80)
    gap[1, 40] = 0
    for mask, message in [
        (torch.ones(2, 79), r"expected \(2, 80\)"),
        (gap, "gaps"),
        (torch.zeros(2, 80), "empty"),
    ]:
        with pytest.raises(ValueError, match=message):
            model.encode(audio, mask)


def test_bad_codes(model):
    good = torch.zeros(4, 1, 5, dtype=torch.long)
    for bad, message in [
        (good.float(), "expected integers"),
        (good.bool(), "expected integers"),
        (good + 16, "from 16 to 16; expected 0 to 15"),
        (good - 1, "from -1"),
        (torch.zeros(5, 1, 5, dtype=torch.long), "num_quantizers is 5; expected 1 to 4"),
        (good[:, :, :0], "none of them 0"),
        (good[0, 0], "shape"),
    ]:
        with pytest.raises(CodesError, match=message):
            model.decode(bad)
    with pytest.raises(CodesError, match="the codes have 2 layers"):
        model.decode(good[:2], num_quantizers=3)
    with pytest.raises(CodesError, match=r"rows have \[2, 4\] layers"):
        model.batch_decode([good[:, 0], good[:2, 0]])
    assert np.isfinite(model.decode(good.numpy().astype(np.int16)).audio.numpy()).all()


@pytest.mark.parametrize("count", [0, 5, -1, 1.0, True])
def test_bad_num_quantizers(model, count):
    with pytest.raises(CodesError, match="expected 1 to 4"):
        model.encode(noise(80), num_quantizers=count)


def test_empty_lists(model):
    for call in (model.batch_encode, model.batch_decode):
        with pytest.raises(InputError, match="at least one"):
            call([])


def test_default_configuration_is_v1():
    config = MossAudioTokenizerConfig()
    assert config.codec.quantizer.num_quantizers == 32
    assert config.frame_rate == 12.5
    assert MossAudioTokenizerConfig.preset("nano").number_channels == 2
    assert MossAudioTokenizerConfig(sample_rate=24_000).sampling_rate == 24_000


def test_samples_of_integer_scale_are_refused(model):
    loud = noise(80) * 32768
    with pytest.raises(AudioError, match="divide samples of 16-bit scale by 32768"):
        model.encode(loud)
    assert model.encode(noise(80) * 20).audio_codes.shape[-1] == 10


def test_lists_and_batches_are_not_mixed_up(model):
    codes = model.encode(noise(2, 80)).audio_codes
    with pytest.raises(InputError, match="use decode for a batch"):
        model.batch_decode(codes)
    with pytest.raises(InputError, match="use encode for a batch"):
        model.batch_encode(noise(2, 80).numpy())
    with pytest.raises(InputError, match="got int"):
        model.batch_encode(3)
    clips = (clip for clip in noise(2, 80))
    assert torch.equal(model.batch_encode(clips).audio_codes, codes)


def test_call_with_codes_heeds_mask_and_layers(model):
    codes = model.encode(noise(2, 80)).audio_codes
    mask = torch.ones(2, 10)
    mask[1, 4:] = 0
    output = model(audio_codes=codes, padding_mask=mask, num_quantizers=2)
    assert output.audio_lengths.tolist() == [80, 32]
    assert output.audio_codes.shape == (2, 2, 10)
    with pytest.raises(InputError, match="other values than 0 and 1"):
        model.decode(codes, mask * 0.5)


@pytest.mark.parametrize("device", ["nope", "meta", {}, "cuda:99"])
def test_unusable_devices(model, tmp_path, device):
    model.save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="device"):
        MossAudioTokenizerModel.from_pretrained(tmp_path, device_map=device)
