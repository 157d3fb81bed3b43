"""Mel and STFT distance against other implementations, and their defined edges."""

import math

import numpy as np
import pytest

from moss_audio_tokenizer.errors import AudioError
from moss_audio_tokenizer.metrics import (
    dac_mel_distance,
    mel_distance,
    sdr,
    spectral_convergence,
    stft_distance,
)
from moss_audio_tokenizer.metrics.signals import hertz_to_mel, mel_filters, mel_to_hertz

RATE = 16_000
DISTANCES = [mel_distance, stft_distance, dac_mel_distance]


@pytest.fixture
def noise():
    return 0.1 * np.random.default_rng(0).standard_normal(RATE)


def reference_distance(reference, estimate, banks):
    """The formula once more, by torch.stft, as DAC's loss classes call it."""
    torch = pytest.importorskip("torch")
    total = 0.0
    for length, bank in zip((2048, 512), banks, strict=True):
        window = torch.hann_window(length, dtype=torch.float64).sqrt()
        spectra = []
        for signal in (reference, estimate):
            stft = torch.stft(
                torch.from_numpy(signal), length, length // 4, window=window, return_complex=True
            ).abs()
            spectra.append(stft if bank is None else torch.from_numpy(bank).T @ stft)
        one, other = spectra
        logs = [item.clamp(1e-5).pow(2).log10() for item in spectra]
        total += float((logs[0] - logs[1]).abs().mean() + (one - other).abs().mean())
    return total


def slaney_banks():
    audio_utils = pytest.importorskip("transformers.audio_utils")
    return [
        audio_utils.mel_filter_bank(
            length // 2 + 1, num_mels, 0, RATE / 2, RATE, norm="slaney", mel_scale="slaney"
        )
        for length, num_mels in ((2048, 150), (512, 80))
    ]


@pytest.mark.parametrize(("rate", "length", "num_mels"), [(16_000, 2048, 150), (24_000, 512, 40)])
def test_mel_filters_are_those_of_transformers(rate, length, num_mels):
    audio_utils = pytest.importorskip("transformers.audio_utils")
    expected = audio_utils.mel_filter_bank(
        length // 2 + 1, num_mels, 0, rate / 2, rate, norm="slaney", mel_scale="slaney"
    )
    np.testing.assert_allclose(mel_filters(rate, length, num_mels).T, expected, atol=1e-12)


def test_mel_scale_and_its_inverse():
    hertz = np.array([0.0, 200.0, 1000.0, 6400.0])
    np.testing.assert_allclose(hertz_to_mel(hertz), [0.0, 3.0, 15.0, 42.0])
    np.testing.assert_allclose(mel_to_hertz(hertz_to_mel(hertz)), hertz)


def test_mel_distance_is_that_of_torch_and_transformers(noise):
    estimate = 0.5 * noise + 0.01 * np.sin(np.arange(RATE))
    expected = reference_distance(noise, estimate, slaney_banks())
    assert mel_distance(noise, estimate, RATE) == pytest.approx(expected, rel=1e-9)


def test_stft_distance_is_that_of_torch(noise):
    estimate = 0.5 * noise + 0.01 * np.sin(np.arange(RATE))
    expected = reference_distance(noise, estimate, [None, None])
    assert stft_distance(noise, estimate, RATE) == pytest.approx(expected, rel=1e-9)


def test_dac_mel_distance_is_that_of_torch_and_transformers(noise):
    torch = pytest.importorskip("torch")
    audio_utils = pytest.importorskip("transformers.audio_utils")
    estimate = 0.5 * noise + 0.01 * np.sin(np.arange(RATE))
    expected = 0.0
    for length, mels in zip(
        (32, 64, 128, 256, 512, 1024, 2048), (5, 10, 20, 40, 80, 160, 320), strict=True
    ):
        window = torch.hann_window(length, dtype=torch.float64)
        bank = audio_utils.mel_filter_bank(
            length // 2 + 1, mels, 0, RATE / 2, RATE, norm="slaney", mel_scale="slaney"
        )
        logs = []
        for signal in (noise, estimate):
            stft = torch.stft(
                torch.from_numpy(signal), length, length // 4, window=window, return_complex=True
            )
            logs.append((torch.from_numpy(bank).T @ stft.abs()).clamp(1e-5).log10())
        expected += float((logs[0] - logs[1]).abs().mean())
    assert dac_mel_distance(noise, estimate, RATE) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("samples", [1, 100, 3_000])
@pytest.mark.parametrize("rate", [8_000, 16_000, 48_000])
def test_identity_is_zero_even_in_silence_and_in_short_clips(distance, samples, rate):
    signal = np.sin(np.arange(samples))
    assert distance(signal, signal, rate) == 0.0
    assert distance(0 * signal, 0 * signal, rate) == 0.0


@pytest.mark.parametrize("distance", DISTANCES)
def test_distance_grows_with_noise_and_is_symmetric(distance, noise):
    tone = 0.3 * np.sin(0.1 * np.arange(RATE))
    slight, strong = (distance(tone, tone + gain * noise, RATE) for gain in (0.01, 1.0))
    assert 0.0 < slight < strong
    assert distance(tone + noise, tone, RATE) == pytest.approx(strong)


@pytest.mark.parametrize("distance", DISTANCES)
def test_the_longer_signal_is_cut(distance, noise):
    assert distance(noise, noise[:12_000], RATE) == 0.0


@pytest.mark.parametrize(
    ("signal", "message"),
    [
        (np.zeros((2, 100)), r"\(2, 100\)"),
        (np.zeros(0), "at least one sample"),
        (np.array([0.0, np.nan]), "NaN"),
    ],
)
@pytest.mark.parametrize("distance", DISTANCES)
def test_what_cannot_be_measured_is_refused(distance, signal, message):
    with pytest.raises(AudioError, match=message):
        distance(np.ones(10), signal, RATE)


def test_sdr_and_spectral_convergence_of_known_signals():
    time = np.arange(16_000) / 16_000
    tone = 0.5 * np.sin(2 * np.pi * 440 * time)
    assert sdr(tone, 0.9 * tone) == pytest.approx(20.0)
    assert sdr(tone, 0 * tone) == pytest.approx(0.0)
    assert math.isinf(sdr(tone, tone))
    assert math.isnan(sdr(0 * tone, tone))
    # A gain of 0.9 takes a tenth from every magnitude.
    assert spectral_convergence(tone, 0.9 * tone, 16_000) == pytest.approx(0.1)
    assert spectral_convergence(tone, 0 * tone, 16_000) == pytest.approx(1.0)
    assert math.isnan(spectral_convergence(0 * tone, tone, 16_000))
