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
from moss_audio_tokenizer.training.codec.low_band import start_low_band

RATE = 24_000


def fresh(config: CodecConfig) -> Codec:
    codec = Codec(config)
    codec.initialize(torch.Generator().manual_seed(0))
    return codec.eval()


def small(channels: int = 1, output: int = 48) -> CodecConfig:
    """Three stages with projections in, out, and both; 40 ms a frame."""
    folded = 60 * channels
    written = (
        PatchStage(folded),
        TransformerStage(folded, 48, 48, 2, 1, 64, 0.1),
        PatchStage(4),
        TransformerStage(192, output, 96, 2, 1, 64, 0.1),
        PatchStage(4),
        TransformerStage(4 * output, 4 * output, 2 * output, 2, 1, 64, 0.1),
    )
    mirrored = (
        TransformerStage(4 * output, 4 * output, 2 * output, 2, 1, 64, 0.1),
        PatchStage(4),
        TransformerStage(output, 192, 96, 2, 1, 64, 0.1),
        PatchStage(4),
        TransformerStage(48, folded, 48, 2, 1, 64, 0.1),
        PatchStage(folded),
    )
    width = 4 * output
    quantizer = QuantizerConfig(width, width, width, 2, 16, 4)
    return CodecConfig(RATE, 960, written, mirrored, quantizer, number_channels=channels)


def noises(channels: int = 1, rows: int = 24, samples: int = 9600 * 2) -> torch.Tensor:
    random = torch.Generator().manual_seed(1)
    return 0.1 * torch.randn(rows, channels, samples, generator=random)


def below(audio: torch.Tensor, hertz: float) -> torch.Tensor:
    spectrum = torch.fft.rfft(audio)
    inside = torch.fft.rfftfreq(audio.shape[-1], 1 / RATE) < hertz
    return torch.fft.irfft(spectrum * inside, audio.shape[-1])


def signal_to_noise(codec: Codec, audio: torch.Tensor, hertz: float) -> float:
    with torch.no_grad():
        estimate = codec.decoder(codec.encoder(audio))
    wanted = below(audio, hertz)
    error = wanted - below(estimate, hertz)
    return float(10 * torch.log10(wanted.square().sum() / error.square().sum()))


@pytest.mark.parametrize("channels", [1, 2])
def test_the_low_band_comes_through_at_once(channels):
    codec, audio = fresh(small(channels)), noises(channels)
    assert signal_to_noise(codec, audio, 150) < 1
    counts = start_low_band(codec, audio, 200.0)
    assert counts == [channels * n for n in (9, 12, 24)]
    assert signal_to_noise(codec, audio, 150) > 40


def test_the_shipped_shape_has_room_for_700_hertz():
    codec = fresh(preset("bundled"))
    assert start_low_band(codec, noises(rows=16), 700.0) == [22, 36, 64, 120]
    assert signal_to_noise(codec, noises(rows=4), 600) > 40


def test_a_decoder_that_mirrors_nothing_is_refused():
    stages = (PatchStage(8), TransformerStage(8, 12, 16, 2, 1, 32, 1.0))
    middle = TransformerStage(12, 12, 16, 2, 1, 32, 1.0)
    more = (middle, TransformerStage(12, 8, 16, 2, 1, 32, 1.0), PatchStage(8))
    codec = fresh(CodecConfig(800, 8, stages, more, QuantizerConfig(12, 12, 12, 2, 16, 4)))
    with pytest.raises(ConfigError, match="mirrors"):
        start_low_band(codec, torch.randn(4, 1, 80), 100.0)


def test_a_stage_without_a_projection_is_refused():
    stages = (PatchStage(16), TransformerStage(16, 16, 16, 2, 1, 32, 1.0))
    codec = fresh(CodecConfig(800, 16, stages, stages[::-1], QuantizerConfig(16, 16, 16, 2, 16, 4)))
    with pytest.raises(ConfigError, match="a projection in every stage"):
        start_low_band(codec, torch.randn(4, 1, 160), 100.0)


def test_a_band_that_takes_too_much_is_refused():
    with pytest.raises(ConfigError, match="takes 60 of a stage's 48 channels; expected at most"):
        start_low_band(fresh(small()), noises(), 12_000.0)
