"""Losses of harmonics: zero for equals, blind to what they are to ignore, finite everywhere."""

import math

import numpy as np
import pytest
import torch

from moss_audio_tokenizer.training.codec.losses import (
    NUM_MEL_WINDOWS,
    NUM_PHASE_WINDOWS,
    InstantaneousFrequencyLoss,
    MelLoss,
    PhaseLoss,
    StftLoss,
)

RATE = 24_000


def hertz_to_mel(hertz: float) -> float:
    """Slaney's scale: linear below 1 kHz, logarithmic above."""
    if hertz < 1000.0:
        return hertz * 3 / 200
    return 15.0 + 27.0 * math.log(hertz / 1000.0) / math.log(6.4)


def mel_to_hertz(mel: float) -> float:
    if mel < 15.0:
        return mel * 200 / 3
    return 1000.0 * 6.4 ** ((mel - 15.0) / 27.0)


def slaney_filters(length: int, num_mels: int, rate: int) -> np.ndarray:
    """Triangles of area one, entry by entry: (mels, bins)."""
    top = hertz_to_mel(rate / 2)
    edges = [mel_to_hertz(top * index / (num_mels + 1)) for index in range(num_mels + 2)]
    filters = np.zeros((num_mels, length // 2 + 1))
    for band in range(num_mels):
        low, centre, high = edges[band : band + 3]
        for index in range(length // 2 + 1):
            hertz = index * rate / length
            slope = min((hertz - low) / (centre - low), (high - hertz) / (high - centre))
            filters[band, index] = max(0.0, slope) * 2 / (high - low)
    return filters


def slow_log_mel(signal: np.ndarray, length: int, filters: np.ndarray) -> np.ndarray:
    """Frame by frame in float64: reflect, cut, window, transform."""
    padded = np.pad(signal, length // 2, mode="reflect")
    window = np.array([0.5 - 0.5 * math.cos(2 * math.pi * n / length) for n in range(length)])
    columns = []
    for start in range(0, len(padded) - length + 1, length // 4):
        spectrum = np.abs(np.fft.rfft(padded[start : start + length] * window))
        columns.append(filters @ spectrum / math.sqrt((window**2).sum()))
    return np.log10(np.maximum(np.stack(columns, 1), 1e-5))


def slow_mel_loss(estimate: np.ndarray, reference: np.ndarray) -> float:
    total = 0.0
    for exponent, num_mels in zip(range(5, 12), (5, 10, 20, 40, 80, 160, 320), strict=True):
        filters = slaney_filters(2**exponent, num_mels, RATE)
        distances = [
            np.abs(
                slow_log_mel(left, 2**exponent, filters) - slow_log_mel(right, 2**exponent, filters)
            )
            for left, right in zip(estimate, reference, strict=True)
        ]
        total += float(np.mean(distances))
    return total


def make_signals(rows: int = 2, samples: int = 3840) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    time = np.arange(samples) / RATE
    tones = np.stack([np.sin(2 * np.pi * 330 * (row + 1) * time) for row in range(rows)])
    reference = 0.3 * tones + 0.01 * random.standard_normal((rows, samples))
    return reference + 0.05 * random.standard_normal((rows, samples)), reference


def test_mel_loss_is_that_of_a_slow_reference():
    estimate, reference = make_signals()
    loss = MelLoss(RATE)
    value = float(loss(torch.from_numpy(estimate)[:, None], torch.from_numpy(reference)[:, None]))
    assert value == pytest.approx(slow_mel_loss(estimate, reference), abs=1e-4)


def test_identical_signals_have_no_distance():
    _, reference = make_signals()
    audio = torch.from_numpy(reference).float()
    assert float(MelLoss(RATE)(audio, audio)) == 0.0


@pytest.mark.parametrize("kind", [MelLoss, PhaseLoss])
def test_drawn_windows_stand_for_all_of_them(kind):
    estimate, reference = (torch.from_numpy(item) for item in make_signals())
    loss = kind(RATE)
    count = {MelLoss: NUM_MEL_WINDOWS, PhaseLoss: NUM_PHASE_WINDOWS}[kind]
    whole = float(loss(estimate, reference))
    alone = [float(loss(estimate, reference, drawn=[place])) for place in range(count)]
    assert np.mean(alone) == pytest.approx(whole, rel=1e-5)
    assert len({round(value, 3) for value in alone}) == count
    assert float(loss(estimate, reference, drawn=range(count))) == pytest.approx(whole)


@pytest.mark.parametrize("other", ["silence", "sound"])
def test_the_gradient_is_finite_at_silence(other):
    silence = torch.zeros(1, 1, 3840, requires_grad=True)
    reference = torch.from_numpy(make_signals(1)[1])[None] if other == "sound" else silence.detach()
    loss = MelLoss(RATE)(silence, reference)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(silence.grad).all()


def test_the_reference_gets_no_gradient():
    estimate, reference = (torch.from_numpy(item).requires_grad_() for item in make_signals())
    MelLoss(RATE)(estimate, reference).backward()
    assert estimate.grad.abs().sum() > 0
    assert reference.grad is None


def test_a_louder_signal_is_as_far_at_every_level_above_the_floor():
    noise = torch.randn(1, 3840, generator=torch.Generator().manual_seed(0))
    loss = MelLoss(RATE)
    for level in (1.0, 0.1):
        distance = float(loss(noise * level * 2, noise * level))
        assert distance == pytest.approx(7 * math.log10(2), rel=1e-3)


def test_it_computes_in_float32_whatever_it_is_given():
    estimate, reference = (torch.from_numpy(item) for item in make_signals())
    loss = MelLoss(RATE)
    assert loss(estimate.bfloat16(), reference).dtype == torch.float32
    assert not list(loss.parameters())
    assert not loss.state_dict()


def slow_phase_distance(estimate: np.ndarray, reference: np.ndarray, length: int) -> float:
    """The definition, frame by frame and band by band, in float64."""
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(length) / length)
    window /= np.sqrt((window**2).sum())
    hertz = np.fft.rfftfreq(length, 1 / RATE)
    bands = [(hertz >= low) & (hertz < min(low + 100, 650)) for low in range(0, 650, 100)]

    def energies(signal: np.ndarray) -> np.ndarray:
        padded = np.pad(signal, length // 2, mode="reflect")
        starts = range(0, len(signal) + 1, length // 4)
        spectra = [np.fft.rfft(padded[start : start + length] * window) for start in starts]
        powers = np.abs(np.array(spectra)) ** 2
        return np.array([powers[:, band].sum(1) for band in bands if band.any()])

    error, energy = energies(estimate - reference), energies(reference)
    floor = 0.01 * energy.mean() + 1e-5
    return float(np.sqrt((error + floor) / (energy + floor)).mean())


def test_the_phase_loss_is_its_definition():
    estimate, reference = make_signals()
    found = PhaseLoss(RATE, 650.0)(
        torch.from_numpy(estimate)[:, None], torch.from_numpy(reference)[:, None]
    )
    expected = np.mean(
        [
            sum(slow_phase_distance(e, r, length) for length in (512, 1024, 2048))
            for e, r in zip(estimate, reference, strict=True)
        ]
    )
    assert float(found) == pytest.approx(expected, rel=1e-4)


def test_the_phase_loss_hears_what_mel_magnitudes_do_not():
    time = torch.arange(4800) / RATE
    tone, opposite = torch.sin(2 * torch.pi * 200 * time), -torch.sin(2 * torch.pi * 200 * time)
    tone, opposite = tone[None, None], opposite[None, None]
    loss = PhaseLoss(RATE)
    silent = float(loss(0 * tone, tone))
    assert float(loss(tone, tone)) < 0.8 * silent < silent
    assert silent <= 3.0
    assert float(loss(opposite, tone)) > 1.2 * silent
    assert float(MelLoss(RATE)(opposite, tone)) == pytest.approx(0.0, abs=1e-3)


def test_rows_of_the_phase_loss_count_by_their_weights():
    estimate, reference = (torch.from_numpy(item)[:, None] for item in make_signals())
    loss = PhaseLoss(RATE)
    rows = len(reference)
    alone = [
        float(loss(estimate[row : row + 1], reference[row : row + 1])) / rows for row in range(rows)
    ]
    found = loss(estimate, reference, weights=torch.linspace(0, 1, rows))
    expected = sum(row / (rows - 1) * value for row, value in enumerate(alone))
    assert float(found) == pytest.approx(expected, rel=1e-4)


def test_the_phase_loss_is_calm_in_silence():
    silence = torch.zeros(1, 1, 4800)
    noise = (
        1e-3 * torch.randn(1, 1, 4800, generator=torch.Generator().manual_seed(0))
    ).requires_grad_()
    loss = PhaseLoss(RATE)(noise, silence)
    loss.backward()
    assert float(loss.detach()) < 4.0
    assert torch.isfinite(noise.grad).all()


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
