"""The colour of a sound: what it hears and what it does not."""

import numpy as np
import pytest

from moss_audio_tokenizer.evaluation.scoring_models import cosine, load_speaker_model
from moss_audio_tokenizer.metrics.signals import mfcc_statistics

RATE = 16_000


def voice(seed, seconds=1.0):
    """A buzz with the rhythm of syllables, and a little noise."""
    time = np.arange(round(seconds * RATE)) / RATE
    buzz = sum(np.sin(2 * np.pi * 110 * k * time) / k for k in range(1, 20))
    noise = np.random.default_rng(seed).standard_normal(len(time))
    return 0.1 * buzz * np.clip(np.sin(2 * np.pi * 3 * time), 0, 1) + 0.002 * noise


def test_loudness_and_silence_do_not_count():
    one = voice(0)
    assert mfcc_statistics(one, RATE).shape == (38,)
    assert cosine(mfcc_statistics(one, RATE), mfcc_statistics(0.5 * one, RATE)) == pytest.approx(
        1.0, abs=1e-3
    )
    padded = np.pad(one, RATE)
    assert cosine(mfcc_statistics(one, RATE), mfcc_statistics(padded, RATE)) > 0.98


def test_a_voice_is_nearer_to_itself_than_to_another():
    embed = load_speaker_model("mfcc")
    one, later, dull = voice(0), voice(0, 1.5), voice(0)
    spectrum = np.fft.rfft(dull)
    spectrum[len(spectrum) // 6 :] = 0
    dull = np.fft.irfft(spectrum)
    same, other = (cosine(embed(one, RATE), embed(sound, RATE)) for sound in (later, dull))
    assert same > 0.99 > other


def test_silence_has_no_voice():
    assert np.isnan(cosine(mfcc_statistics(np.zeros(RATE), RATE), mfcc_statistics(voice(0), RATE)))
