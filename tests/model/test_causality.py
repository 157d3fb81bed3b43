"""What a step depends on, shown by its gradient."""

import pytest
import torch

from moss_audio_tokenizer.config import TransformerStage
from moss_audio_tokenizer.model.codec import (
    deinterleave,
    interleave,
    patchify,
    unpatchify,
)
from moss_audio_tokenizer.model.transformer import Transformer


@pytest.mark.parametrize("context", [1, 5, 64, 90])
def test_one_layer_sees_exactly_its_window(context):
    stage = TransformerStage(4, 4, 8, 2, 1, 16, 1.0, layer_scale=1.0)
    torch.manual_seed(0)
    transformer = Transformer(stage, context)
    x = torch.randn(1, 150, 4, requires_grad=True)
    transformer(x)[0, 120].sum().backward()
    touched = x.grad.abs().sum(-1)[0].nonzero().flatten().tolist()
    assert touched == list(range(120 - context + 1, 121))


@pytest.mark.parametrize("channels", [1, 2])
def test_encoder_and_decoder_are_causal(make_codec, channels):
    codec = make_codec(channels)
    step = codec.config.downsample_rate
    audio = torch.randn(1, channels, 10 * step, requires_grad=True)
    codec.encoder(audio)[0, 4].sum().backward()
    assert audio.grad[..., 5 * step :].abs().max() == 0
    assert audio.grad[..., 4 * step : 5 * step].abs().min() > 0
    hidden = torch.randn(1, 10, 12, requires_grad=True)
    codec.decoder(hidden)[..., : 5 * step].sum().backward()
    assert hidden.grad[:, 5:].abs().max() == 0
    assert hidden.grad[:, 4].abs().max() > 0


def test_patchify_puts_the_offset_last():
    x = torch.arange(12.0).reshape(1, 6, 2)
    folded = patchify(x, 3)
    assert folded[0, 0].tolist() == [0, 2, 4, 1, 3, 5]
    assert torch.equal(unpatchify(folded, 3), x)


def test_stereo_is_interleaved_sample_by_sample():
    audio = torch.tensor([[[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]])
    stream = interleave(audio)
    assert stream[0, :, 0].tolist() == [1, 4, 2, 5, 3, 6]
    assert torch.equal(deinterleave(stream, 2), audio)
