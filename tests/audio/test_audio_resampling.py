"""Resampling: a tone keeps its pitch and level, and lengths are right."""

import numpy as np
import pytest
from tones import tone

from moss_audio_tokenizer.audio import resample
from moss_audio_tokenizer.errors import AudioError

RATES = [8_000, 11_025, 16_000, 22_050, 24_000, 44_100, 48_000, 96_000, 192_000]


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("to_rate", [24_000, 48_000])
def test_a_tone_stays_the_same_tone(rate, to_rate):
    resampled = resample(tone(1000, rate=rate, channels=2), rate, to_rate)
    expected = tone(1000, rate=to_rate, channels=2)
    assert resampled.dtype == np.float32
    assert resampled.shape == expected.shape
    edge = to_rate // 20  # the filter sees silence beyond both ends
    assert np.abs(resampled - expected)[:, edge:-edge].max() < 2e-3


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("num_samples", [1, 2, 7, 1001])
def test_length_is_rounded_up(rate, num_samples):
    resampled = resample(np.ones(num_samples, np.float32), rate, 24_000)
    assert resampled.shape == (1, -(-num_samples * 24_000 // rate))
    assert resampled.flags.c_contiguous


def test_nothing_above_the_new_nyquist_frequency_folds_back():
    high = resample(tone(15_000, rate=48_000), 48_000, 24_000)
    assert np.abs(high[:, 1000:-1000]).max() < 1e-3


def test_equal_rates_change_nothing():
    samples = tone()
    assert resample(samples, 24_000, 24_000) is samples


@pytest.mark.parametrize("rate", [0, -1, 7_999, 192_001, 24_000.0, "24000", None, np.nan])
def test_impossible_rates_are_refused(rate):
    with pytest.raises(AudioError, match="sampling rate"):
        resample(tone(), rate, 24_000)
    with pytest.raises(AudioError, match="sampling rate"):
        resample(tone(), 24_000, rate)


def test_numpy_integers_are_rates():
    assert resample(np.zeros(10), np.int64(48_000), np.uint32(24_000)).shape == (1, 5)
