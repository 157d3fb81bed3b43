"""Pitch: known notes, glides, noise, silence, what counts as a miss, and what as a buzz."""

import math

import numpy as np
import pytest

from moss_audio_tokenizer.errors import AudioError
from moss_audio_tokenizer.metrics import buzz_share, gross_pitch_error
from moss_audio_tokenizer.metrics.pitch import track_pitch

RATE = 16_000


def voice(hertz, rate=RATE, seconds=1.0):
    """A buzz of harmonics up to 3 kHz, at one pitch or at one for every sample."""
    phase = 2 * np.pi * np.cumsum(np.broadcast_to(hertz, round(seconds * rate))) / rate
    count = int(3_000 / np.max(hertz))
    return 0.1 * sum(np.sin(k * phase) / k for k in range(1, count + 1))


@pytest.fixture
def noise():
    return 0.1 * np.random.default_rng(0).standard_normal(RATE)


@pytest.mark.parametrize("hertz", [62.0, 85.0, 120.0, 171.3, 250.0, 330.0, 490.0])
@pytest.mark.parametrize("rate", [8_000, 16_000, 24_000])
def test_a_note_is_found_within_five_cents(hertz, rate):
    track = track_pitch(voice(hertz, rate), rate)
    # A few frames at the ends feel the edge of the resampled clip.
    assert track.voiced.mean() > 0.95
    cents = 1200 * np.log2(track.hertz[track.voiced] / hertz)
    assert np.abs(cents).max() < 5.0


def test_a_glide_is_followed():
    hertz = np.linspace(110, 220, RATE)
    track = track_pitch(voice(hertz), RATE)
    # A frame's two windows span 512 samples and a period: their middle is what is measured.
    middle = np.minimum(np.arange(len(track.hertz)) * 160 + 256 + 50, RATE - 1)
    assert track.voiced.all()
    np.testing.assert_allclose(track.hertz, hertz[middle], rtol=0.01)


def test_noise_and_silence_are_not_voiced(noise):
    assert track_pitch(noise, RATE).voiced.mean() < 0.02
    silence = track_pitch(np.zeros(RATE), RATE)
    assert not silence.voiced.any()
    assert np.isnan(silence.hertz).all()


def test_a_faint_hum_behind_a_voice_is_not_voiced():
    quiet = 0.001 * voice(100)
    track = track_pitch(np.concatenate([voice(200), quiet]), RATE)
    assert not track.voiced[105:].any()


def test_identity_is_zero_and_so_are_gain_and_hoarseness(noise):
    reference = voice(np.linspace(110, 180, RATE))
    assert gross_pitch_error(reference, reference, RATE) == 0.0
    assert gross_pitch_error(reference, -0.3 * reference + 0.2 * noise, RATE) < 0.1


def test_one_note_for_every_other_is_an_error():
    reference = voice(np.concatenate([np.full(RATE // 2, 100.0), np.full(RATE // 2, 200.0)]))
    # Half of the frames are on the one note, a few more at the seam.
    assert gross_pitch_error(reference, voice(100.0), RATE) == pytest.approx(0.5, abs=0.03)
    assert gross_pitch_error(reference, voice(140.0), RATE) > 0.97


@pytest.mark.parametrize(("cents", "expected"), [(40, 0.0), (60, 1.0), (-60, 1.0), (1200, 1.0)])
def test_the_limit_is_a_quarter_tone(cents, expected):
    error = gross_pitch_error(voice(150.0), voice(150.0 * 2 ** (cents / 1200)), RATE)
    assert error == pytest.approx(expected, abs=0.02)


def test_noise_and_silence_miss_the_pitch(noise):
    assert gross_pitch_error(voice(150.0), noise, RATE) > 0.9
    assert gross_pitch_error(voice(150.0), np.zeros(RATE), RATE) == 1.0


def test_without_a_voiced_frame_it_is_undefined(noise):
    assert math.isnan(gross_pitch_error(noise[:400], noise, RATE))
    assert math.isnan(gross_pitch_error(np.zeros(RATE), voice(150.0), RATE))


def test_a_long_clip_is_tracked_in_blocks():
    long = np.tile(voice(125.0), 25)
    assert len(track_pitch(long, RATE).hertz) > 2048
    assert gross_pitch_error(long, long, RATE) == 0.0


def test_stereo_is_refused():
    with pytest.raises(AudioError, match="mono"):
        gross_pitch_error(np.zeros((2, 100)), np.zeros(100), RATE)


def test_buzz_share_counts_lines_of_the_patch_rate_beside_the_harmonics():
    time = np.arange(32_000) / 16_000
    voice = sum(np.sin(2 * np.pi * 130 * k * time) / k for k in range(1, 31))
    comb = sum(np.cos(2 * np.pi * 100 * k * time) for k in range(7, 41))
    assert buzz_share(voice, voice, 16_000) < 0.01
    lines = 100 * np.arange(7, 41)
    free = (np.abs(lines - 130 * np.rint(lines / 130)) > 32).sum()
    inside = (1 / np.arange(6, 31) ** 2).sum()
    for gain in (0.01, 0.1):
        expected = gain**2 * free / (inside + gain**2 * len(lines))
        assert buzz_share(voice, voice + gain * comb, 16_000) == pytest.approx(expected, rel=0.1)
    # A voice whose harmonics are the comb has nothing to add.
    same = sum(np.sin(2 * np.pi * 100 * k * time) / k for k in range(1, 40))
    assert buzz_share(same, same, 16_000) == pytest.approx(0.0, abs=1e-6)
    assert math.isnan(buzz_share(np.zeros(32_000), voice, 16_000))


TIME = np.arange(2 * RATE) / RATE
COMB = sum(np.cos(2 * np.pi * 100 * k * TIME) for k in range(7, 41))
DRIFTING = {
    "a slow swing": 130 * (1 + 0.02 * np.sin(2 * np.pi * 1.2 * TIME)),
    "a vibrato": 200 * (1 + 0.02 * np.sin(2 * np.pi * 4 * TIME)),
    "a rise of a fourth": 170 * np.exp(0.15 * TIME),
}


def harmonics(hertz):
    phase = 2 * np.pi * np.cumsum(hertz) / RATE
    return sum(np.sin(k * phase) / k for k in range(1, 16))


@pytest.mark.parametrize("name", DRIFTING)
def test_harmonics_of_a_drifting_pitch_are_no_buzz(name):
    voice = harmonics(DRIFTING[name])
    assert buzz_share(voice, voice, RATE) < 0.002


@pytest.mark.parametrize("name", DRIFTING)
@pytest.mark.parametrize("gain", [0.03, 0.1])
def test_a_comb_beside_a_drifting_pitch_is_counted(name, gain):
    voice = harmonics(DRIFTING[name])
    total = sum(1 / k**2 for k in range(1, 16) if 700 < k * DRIFTING[name].mean() < 4000)
    whole = gain**2 * 34 / (total + gain**2 * 34)
    # At this pitch a third to two thirds of the lines are harmonics, which do not count.
    found = buzz_share(voice, voice + gain * COMB, RATE)
    assert 0.3 * whole < found < 0.85 * whole
    assert found > 0.9 * buzz_share(voice, voice + 0.9 * gain * COMB, RATE)


def test_a_pitch_that_moves_by_more_than_4_percent_is_left_out():
    voice = harmonics(130 * (1 + 0.2 * np.sin(2 * np.pi * 5 * TIME)))
    assert math.isnan(buzz_share(voice, voice, RATE))
