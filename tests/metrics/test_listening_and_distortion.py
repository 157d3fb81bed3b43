"""STOI, PESQ and SI-SDR: independent values, best and bad values, and where they are undefined."""

import math
import sys

import numpy as np
import pytest

from moss_audio_tokenizer import metrics
from moss_audio_tokenizer.errors import AudioError, MissingDependencyError
from moss_audio_tokenizer.metrics import pesq_nb, pesq_wb, si_sdr, stoi

RATE = 16_000


@pytest.fixture
def voice():
    """Two seconds of a buzz with the rhythm of syllables and a little noise."""
    time = np.arange(2 * RATE) / RATE
    buzz = sum(np.sin(2 * np.pi * 130 * k * time) / k for k in range(1, 30))
    rhythm = np.clip(np.sin(2 * np.pi * 3 * time), 0, 1)
    return 0.1 * buzz * rhythm + 0.001 * np.random.default_rng(1).standard_normal(len(time))


@pytest.fixture
def noise():
    return 0.1 * np.random.default_rng(0).standard_normal(2 * RATE)


def test_public_names_are_sorted():
    assert metrics.__all__ == sorted(metrics.__all__)


def test_si_sdr_of_orthogonal_noise_is_the_ratio_of_energies():
    # A sine and a cosine over whole periods are orthogonal: 20 log10(1 / 0.1) = 20 dB.
    phase = 2 * np.pi * 5 * np.arange(1_000) / 1_000
    estimate = 3.0 * (np.sin(phase) + 0.1 * np.cos(phase)) + 0.7
    assert si_sdr(np.sin(phase), estimate) == pytest.approx(20.0, abs=1e-6)


def test_si_sdr_at_its_limits(voice, noise):
    assert si_sdr(voice, voice) == math.inf
    assert si_sdr(voice, np.zeros_like(voice)) == -math.inf
    assert math.isnan(si_sdr(np.zeros_like(voice), voice))
    assert si_sdr(voice, noise) < -20.0


def test_stoi_is_that_of_pystoi(voice, noise):
    pystoi = pytest.importorskip("pystoi")
    expected = pystoi.stoi(voice, voice + noise, RATE, extended=False)
    assert stoi(voice, voice + noise, RATE) == pytest.approx(expected, abs=1e-9)


def test_stoi_is_best_for_identity_and_bad_for_noise(voice, noise):
    pytest.importorskip("pystoi")
    assert stoi(voice, voice, RATE) == pytest.approx(1.0)
    assert stoi(voice, noise, RATE) < 0.5


def test_stoi_at_another_rate_hardly_differs(voice, noise):
    pytest.importorskip("pystoi")
    soxr = pytest.importorskip("soxr")
    raised = [soxr.resample(item, RATE, 48_000) for item in (voice, voice + noise)]
    assert stoi(*raised, 48_000) == pytest.approx(stoi(voice, voice + noise, RATE), abs=0.01)


@pytest.mark.parametrize("samples", [1, 100, 500, 1_024, 4_000])
def test_stoi_of_a_short_clip_is_undefined(voice, samples):
    pytest.importorskip("pystoi")
    assert math.isnan(stoi(voice[:samples], voice[:samples], RATE))


def test_stoi_of_silence(voice):
    pytest.importorskip("pystoi")
    assert math.isnan(stoi(np.zeros_like(voice), voice, RATE))
    assert stoi(voice, np.zeros_like(voice), RATE) == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize(("metric", "mode"), [(pesq_wb, "wb"), (pesq_nb, "nb")])
def test_pesq_is_that_of_the_package(metric, mode, voice, noise):
    package = pytest.importorskip("pesq")
    expected = package.pesq(RATE, voice, voice + 0.1 * noise, mode)
    assert metric(voice, voice + 0.1 * noise, RATE) == pytest.approx(expected)


@pytest.mark.parametrize(("metric", "best"), [(pesq_wb, 4.64), (pesq_nb, 4.55)])
def test_pesq_is_best_for_identity_and_undefined_without_sound(metric, best, voice):
    pytest.importorskip("pesq")
    assert metric(voice, voice, RATE) == pytest.approx(best, abs=0.01)
    assert math.isnan(metric(np.zeros_like(voice), voice, RATE))
    assert math.isnan(metric(voice, np.zeros_like(voice), RATE))
    assert math.isnan(metric(voice[:3_000], voice[:3_000], RATE))


@pytest.mark.parametrize(("metric", "package"), [(stoi, "pystoi"), (pesq_wb, "pesq")])
def test_a_missing_package_is_named_with_its_remedy(metric, package, voice, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingDependencyError, match=rf"{package}.*pip install"):
        metric(voice, voice, RATE)


@pytest.mark.parametrize("metric", [stoi, pesq_wb, pesq_nb])
def test_stereo_is_refused(metric):
    with pytest.raises(AudioError, match="mono"):
        metric(np.zeros((2, 100)), np.zeros((2, 100)), RATE)
