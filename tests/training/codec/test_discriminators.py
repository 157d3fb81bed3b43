"""Discriminators: sizes of the full ones, what they see, and their files."""

import pytest
import torch

from moss_audio_tokenizer.errors import CheckpointError, ConfigError
from moss_audio_tokenizer.training.codec.adversarial import (
    BandDiscriminator,
    Discriminators,
    load_discriminators,
    save_discriminators,
)
from moss_audio_tokenizer.training.codec.codec_config import DiscriminatorConfig

SMALL = DiscriminatorConfig(periods=(2, 3), windows=(64,), channel_divisor=16)


def parameters(module) -> int:
    """Weights as the sources count them: a weight norm's lengths are part of its weights."""
    return sum(p.numel() for name, p in module.named_parameters() if "original0" not in name)


def test_the_full_ones_have_the_published_sizes():
    with torch.device("meta"):
        full = Discriminators(DiscriminatorConfig())
    assert [round(parameters(p) / 1e6, 2) for p in full.periods] == [8.22] * 5
    assert [round(parameters(s) / 1e6, 2) for s in full.spectra] == [0.47] * 3


@pytest.mark.parametrize("samples", [200, 333])
@pytest.mark.parametrize("channels", [1, 2])
def test_every_discriminator_scores_every_row(samples, channels):
    maps = Discriminators(SMALL)(torch.randn(3, channels, samples))
    assert [len(item) for item in maps] == [6, 6, 26]
    assert all(item.shape[0] == 3 * channels for of_one in maps for item in of_one)
    assert all(of_one[-1].shape[1] == 1 for of_one in maps)


def test_level_and_direct_current_change_no_score():
    discriminators = Discriminators(SMALL)
    audio = torch.randn(1, 300)
    for plain, changed in zip(
        discriminators(audio), discriminators(0.01 * audio + 0.3), strict=True
    ):
        torch.testing.assert_close(plain[-1], changed[-1], atol=1e-3, rtol=1e-3)


def test_silence_gives_finite_gradients():
    audio = torch.zeros(1, 256, requires_grad=True)
    total = sum(maps[-1].sum() for maps in Discriminators(SMALL)(audio))
    total.backward()
    assert audio.grad.isfinite().all()


def test_a_tone_lies_in_its_bin():
    time = torch.arange(4096) / 16_000
    spectrum = BandDiscriminator(512).spectrogram(torch.sin(2 * torch.pi * 2000 * time)[None])
    assert spectrum.shape == (1, 2, 32, 257)
    magnitude = spectrum.square().sum(1).sqrt()
    assert (magnitude[0, 2:-2].argmax(-1) == 2000 * 512 // 16_000).all()


def test_files_bring_back_the_same(tmp_path):
    discriminators = Discriminators(SMALL)
    path = tmp_path / "discriminators.safetensors"
    save_discriminators(discriminators, path)
    loaded = load_discriminators(path)
    assert loaded.config == SMALL
    audio = torch.randn(1, 1, 300)
    for left, right in zip(discriminators(audio), loaded(audio), strict=True):
        assert torch.equal(left[-1], right[-1])


@pytest.mark.parametrize("damage", ["missing", "empty", "garbage", "truncated", "foreign"])
def test_other_files_are_refused(tmp_path, damage):
    path = tmp_path / "discriminators.safetensors"
    save_discriminators(Discriminators(SMALL), path)
    whole = path.read_bytes()
    contents = {"empty": b"", "garbage": b"x" * 100, "truncated": whole[:-9]}
    if damage == "missing":
        path.unlink()
    elif damage == "foreign":
        from safetensors.torch import save_file

        save_file({"x": torch.zeros(2)}, path)
    else:
        path.write_bytes(contents[damage])
    with pytest.raises(CheckpointError, match="discriminators"):
        load_discriminators(path)


@pytest.mark.parametrize(
    "wrong",
    [{"periods": (1,)}, {"windows": (30,)}, {"channel_divisor": 0}, {"periods": (), "windows": ()}],
)
def test_configurations_that_cannot_be(wrong):
    with pytest.raises(ConfigError):
        DiscriminatorConfig(**wrong)
