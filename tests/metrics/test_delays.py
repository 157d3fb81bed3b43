"""Delays: exact where waveforms agree, to a few milliseconds where only envelopes do."""

import numpy as np
import pytest

from moss_audio_tokenizer.metrics.signals import find_delay, without_delay

RATE = 16_000


@pytest.fixture(scope="module")
def speech():
    """Bursts of coloured noise, no two alike."""
    random = np.random.default_rng(3)
    bursts = [
        np.convolve(random.standard_normal(length), random.standard_normal(9), "same")
        for length in random.integers(800, 4_000, 12)
    ]
    return 0.05 * np.concatenate([np.pad(burst, (0, 700)) for burst in bursts])


@pytest.mark.parametrize("delay", [0, 1, -1, 37, 320, 1104, -200])
def test_a_shifted_waveform_is_found_to_the_sample(speech, delay):
    late = without_delay(speech, -delay, len(speech))
    noise = 0.01 * np.random.default_rng(0).standard_normal(len(late))
    assert find_delay(speech, 0.5 * late + noise) == delay
    assert find_delay(speech, -late) == delay


def vocoded(speech):
    """The same envelopes with another waveform: every short stretch has its signs drawn anew."""
    signs = np.repeat(np.random.default_rng(1).choice([-1.0, 1.0], len(speech) // 8 + 1), 8)
    return speech * signs[: len(speech)]


@pytest.mark.parametrize("delay", [0, 320, 640])
def test_a_vocoder_is_found_by_its_envelopes(speech, delay):
    late = without_delay(vocoded(speech), -delay, len(speech))
    assert find_delay(speech, late) == pytest.approx(delay, abs=80)


def test_a_small_lag_of_a_vocoder_is_left_alone(speech):
    assert find_delay(speech, without_delay(vocoded(speech), -40, len(speech))) == 0


@pytest.mark.parametrize("num_samples", [1, 10, 600])
def test_short_and_silent_clips_have_no_delay(num_samples):
    clip = np.sin(np.arange(num_samples) + 1.0)
    assert find_delay(clip, clip) == 0
    assert find_delay(clip, np.zeros(num_samples)) == 0


def test_taking_a_delay_away():
    clip = np.arange(1.0, 6.0)
    np.testing.assert_array_equal(without_delay(clip, 2, 4), [3, 4, 5, 0])
    np.testing.assert_array_equal(without_delay(clip, -2, 4), [0, 0, 1, 2])
