"""Losses of harmonics: zero for equals, blind to what they are to ignore, finite everywhere."""

import math

import pytest
import torch

from moss_audio_tokenizer.training.codec.losses import InstantaneousFrequencyLoss, StftLoss

RATE = 24_000
LOSSES = (
    StftLoss(RATE, (256, 512), (0.0, 0.0)),
    InstantaneousFrequencyLoss(RATE, (256, 512), (700.0, 0.0)),
)
KINDS = ("stft", "frequency")
both = pytest.mark.parametrize("loss", LOSSES, ids=KINDS)


def tone(hertz: float, phase: float = 0.0, samples: int = 6000) -> torch.Tensor:
    time = torch.arange(samples) / RATE
    return 0.3 * torch.sin(2 * math.pi * hertz * time + phase)[None, None]


def noise(seed: int, rows: int = 2, samples: int = 3000) -> torch.Tensor:
    return 0.1 * torch.randn(rows, 1, samples, generator=torch.Generator().manual_seed(seed))


@both
def test_equal_signals_have_no_distance_and_others_have_some(loss):
    audio = noise(0)
    assert float(loss(audio, audio)) == pytest.approx(0.0, abs=1e-3)
    assert float(loss(noise(1), audio)) > 0.3


@both
@pytest.mark.parametrize("silent", ["estimate", "reference", "both"])
def test_silence_has_finite_losses_and_gradients(loss, silent):
    estimate = torch.zeros(2, 1, 3000) if silent != "reference" else noise(0)
    reference = torch.zeros(2, 1, 3000) if silent != "estimate" else noise(1)
    estimate.requires_grad_()
    value = loss(estimate, reference)
    value.backward()
    assert torch.isfinite(value)
    assert torch.isfinite(estimate.grad).all()


@both
def test_padding_does_not_count(loss):
    lengths = torch.tensor([1500, 3000])
    reference, estimate = noise(0), noise(1)
    reference[0, :, 2600:] = 0
    other = estimate.clone()
    other[0, :, 2600:] = 0.5
    found = loss(estimate, reference, lengths)
    assert float(found) == pytest.approx(float(loss(other, reference, lengths)), rel=1e-5)
    assert float(found) != pytest.approx(float(loss(other, reference)), rel=1e-3)


@both
def test_rows_count_the_same_and_channels_are_rows(loss):
    reference, estimate = noise(0), noise(1)
    rows = [float(loss(estimate[row : row + 1], reference[row : row + 1])) for row in range(2)]
    assert float(loss(estimate, reference)) == pytest.approx(sum(rows) / 2, rel=1e-5)
    stereo = float(loss(estimate.transpose(0, 1), reference.transpose(0, 1)))
    assert stereo == pytest.approx(sum(rows) / 2, rel=1e-5)


@both
def test_the_band_is_all_that_counts(loss):
    limited = type(loss)(RATE, loss.window_lengths, (2000.0, 4000.0))
    reference = tone(3000)
    below = reference + tone(700)
    inside = reference + tone(2500)
    assert float(limited(below, reference)) < 0.1 * float(limited(inside, reference))


def test_magnitudes_tell_a_harmonic_from_its_neighbor():
    loss = StftLoss(RATE, (1024, 2048), (0.0, 0.0))
    near, far = (float(loss(tone(hertz), tone(3000))) for hertz in (3003, 3100))
    assert near < 0.5 * far


def test_phase_advances_do_not_depend_on_where_a_sinusoid_began():
    loss = InstantaneousFrequencyLoss(RATE, (1024, 2048), (700.0, 0.0))
    reference = tone(3000)
    assert float(loss(tone(3000, phase=2.0), reference)) < 0.05
    assert float(loss(tone(3025), reference)) > 5 * float(loss(tone(3005), reference))


def test_a_descent_finds_the_frequency():
    loss = InstantaneousFrequencyLoss(RATE, (1024,), (700.0, 0.0))
    hertz = torch.tensor(3010.0, requires_grad=True)
    time = torch.arange(6000) / RATE
    for _ in range(40):
        value = loss(0.3 * torch.sin(2 * math.pi * hertz * time)[None, None], tone(3000))
        (slope,) = torch.autograd.grad(value, hertz)
        with torch.no_grad():
            hertz -= 200 * slope
    assert float(hertz.detach()) == pytest.approx(3000, abs=1.0)
