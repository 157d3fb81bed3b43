import pytest
import torch

from moss_audio_tokenizer.config import preset
from moss_audio_tokenizer.errors import ConfigError
from moss_audio_tokenizer.model.codec import Codec
from moss_audio_tokenizer.training.codec.sample_rate import (
    at_rate,
    config_at_rate,
    resampling_matrix,
)


def tone(rate: int, frames: int = 4) -> torch.Tensor:
    time = (torch.arange(frames * rate * 2 // 25) + 0.5) / rate
    return 0.3 * torch.cos(2 * torch.pi * 300 * time)[None, None]


def test_a_configuration_keeps_its_frames():
    config = config_at_rate(preset("tiny"), 48_000)
    assert (config.sampling_rate, config.downsample_rate) == (48_000, 3840)
    assert config.frame_rate == preset("tiny").frame_rate
    assert config.encoder_rates == preset("tiny").encoder_rates
    assert config.encoder[1].input_dimension == config.decoder[-2].output_dimension == 480


@pytest.mark.parametrize("rate", [16_000, 48_000])
def test_a_codec_says_the_same_at_another_rate(rate):
    codec = Codec(preset("tiny"))
    codec.initialize(torch.Generator().manual_seed(0))
    other = at_rate(codec, config_at_rate(codec.config, rate))
    with torch.no_grad():
        before, after = codec.encoder(tone(24_000)), other.encoder(tone(rate))
        torch.testing.assert_close(after, before, rtol=0.05, atol=0.01)
        said, now = codec.decoder(before), other.decoder(before)
    # Compared where both have spectra: in the 100 Hz patches' cosine transforms.
    patches = said.unflatten(-1, (-1, 240)) @ resampling_matrix(240, rate // 100).T
    back = now.unflatten(-1, (-1, rate // 100))
    torch.testing.assert_close(back, patches, rtol=1e-3, atol=1e-4)


def test_a_codec_at_its_own_rate_is_itself():
    codec = Codec(preset("tiny"))
    assert at_rate(codec, codec.config) is codec


@pytest.mark.parametrize(("inputs", "outputs"), [(6, 12), (12, 8), (5, 5)])
def test_resampling_keeps_a_constant(inputs, outputs):
    matrix = resampling_matrix(inputs, outputs)
    torch.testing.assert_close(matrix @ torch.ones(inputs), torch.ones(outputs))


def test_up_and_down_again_is_nothing():
    there, back = resampling_matrix(6, 15), resampling_matrix(15, 6)
    torch.testing.assert_close(back @ there, torch.eye(6))


@pytest.mark.parametrize(("name", "rate"), [("tiny", 24_001), ("nano", 44_100)])
def test_rates_that_cannot_be(name, rate):
    with pytest.raises(ConfigError, match=r"train\.sampling_rate"):
        config_at_rate(preset(name), rate)
