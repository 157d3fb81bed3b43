"""Servers of a toy codec, and a small model of PyTorch."""

import pytest
from running_server import running_server
from toy_codec import ToyCodec
from toy_speaker import ToySpeaker

from moss_audio_tokenizer.serve.settings import ServerSettings


@pytest.fixture
def serving():
    """Start servers of the toy codec; they end with the block."""

    def start(step_seconds=0.0, **settings):
        return running_server(ToyCodec(step_seconds), ServerSettings(**settings))

    return start


@pytest.fixture
def speaking():
    """Start servers of the toy speaker; they end with the block."""

    def start(frame_seconds=0.0, **settings):
        speaker = ToySpeaker(frame_seconds)
        return running_server(ToyCodec(), ServerSettings(**settings), speaker)

    return start


@pytest.fixture(scope="module")
def server():
    """One server of the toy codec for tests that leave nothing behind."""
    with running_server(ToyCodec(), ServerSettings(max_speed=1000.0)) as running:
        yield running


@pytest.fixture
def make_speech_codec():
    """A small model of PyTorch at a rate that files have, whose codes vary."""
    torch = pytest.importorskip("torch")
    from moss_audio_tokenizer import MossAudioTokenizerConfig, MossAudioTokenizerModel
    from moss_audio_tokenizer.config import (
        CodecConfig,
        PatchStage,
        QuantizerConfig,
        TransformerStage,
    )
    from moss_audio_tokenizer.hf.torch_codec import TorchCodec

    def make():
        encoder = (PatchStage(640), TransformerStage(640, 12, 12, 2, 1, 24, 0.4, layer_scale=0.5))
        decoder = (TransformerStage(12, 640, 12, 2, 1, 24, 0.4, layer_scale=0.5), PatchStage(640))
        quantizer = QuantizerConfig(12, 10, 12, num_quantizers=4, codebook_size=16, codebook_dim=4)
        config = CodecConfig(8000, 640, encoder, decoder, quantizer)
        torch.manual_seed(0)
        model = MossAudioTokenizerModel(MossAudioTokenizerConfig.from_codec_config(config)).eval()
        for parameter in model.codec.quantizer.parameters():
            parameter.data = 0.5 * torch.randn(parameter.shape)
        return TorchCodec(model.requires_grad_(requires_grad=False))

    return make
