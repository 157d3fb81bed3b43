"""Shapes of every preset, without its weights."""

import pytest
import torch

from moss_audio_tokenizer.config import PRESETS, preset
from moss_audio_tokenizer.model.codec import Codec


@pytest.mark.parametrize("name", PRESETS)
def test_a_second_goes_through_and_back(name):
    config = preset(name)
    with torch.device("meta"):
        codec = Codec(config).eval().requires_grad_(requires_grad=False)
        audio = torch.empty(2, config.number_channels, 12 * config.downsample_rate)
    hidden = codec.encoder(audio)
    assert hidden.shape == (2, 12, config.quantizer.input_dim)
    codes = codec.quantizer.encode(hidden)
    assert codes.shape == (config.quantizer.num_quantizers, 2, 12)
    quantized = codec.quantizer.decode(codes)
    assert quantized.shape == (2, 12, config.quantizer.output_dim)
    assert codec.decoder(quantized).shape == audio.shape
