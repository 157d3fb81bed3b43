import pytest
import torch

from moss_audio_tokenizer.config import (
    CodecConfig,
    PatchStage,
    QuantizerConfig,
    TransformerStage,
    preset,
)
from moss_audio_tokenizer.errors import ConfigError
from moss_audio_tokenizer.model.codec import Codec
from moss_audio_tokenizer.training.linear_start import start_linear


def fresh(config: CodecConfig) -> Codec:
    codec = Codec(config)
    codec.initialise(torch.Generator().manual_seed(0))
    return codec.eval()


def low_sounds(rows: int = 24, samples: int = 7680) -> torch.Tensor:
    """Sums of random tones below 500 Hz."""
    random = torch.Generator().manual_seed(1)
    time = torch.arange(samples) / 24_000
    hertz = 80 + 420 * torch.rand(rows, 6, 1, generator=random)
    phases = 6.28 * torch.rand(rows, 6, 1, generator=random)
    return 0.05 * torch.sin(2 * torch.pi * hertz * time + phases).sum(1, keepdim=True)


def signal_to_noise(codec: Codec, audio: torch.Tensor) -> float:
    with torch.no_grad():
        estimate = codec.decoder(codec.encoder(audio))
    return float(10 * torch.log10(audio.square().sum() / (audio - estimate).square().sum()))


@pytest.mark.parametrize(("name", "least", "decibels"), [("tiny", 0.4, 2), ("nano-24k", 0.99, 10)])
def test_the_waveform_comes_through_at_once(name, least, decibels):
    codec, audio = fresh(preset(name)), low_sounds()
    assert signal_to_noise(codec, audio) < 1
    kept = start_linear(codec, audio)
    assert all(least < share < 1.001 for share in kept)
    assert signal_to_noise(codec, audio) > decibels


def test_hidden_channels_are_brought_closer():
    codec, audio = fresh(preset("tiny")), low_sounds()
    start_linear(codec, audio)
    with torch.no_grad():
        energies = codec.encoder(audio).square().mean((0, 1))
    assert torch.isfinite(energies).all()
    assert float(energies[:8].max() / energies[:8].min()) < 100


def test_a_decoder_that_mirrors_nothing_is_refused():
    stages = (PatchStage(8), TransformerStage(8, 12, 16, 2, 1, 32, 1.0))
    middle = TransformerStage(12, 12, 16, 2, 1, 32, 1.0)
    more = (middle, TransformerStage(12, 8, 16, 2, 1, 32, 1.0), PatchStage(8))
    codec = fresh(CodecConfig(800, 8, stages, more, QuantizerConfig(12, 12, 12, 2, 16, 4)))
    with pytest.raises(ConfigError, match="as many stages"):
        start_linear(codec, torch.randn(4, 1, 80))
