"""Versions of a recording: level, speed and noise, and whose they are."""

from pathlib import Path

import numpy as np
import pytest

from moss_audio_tokenizer.manifest import ManifestEntry
from moss_audio_tokenizer.training.data.coded_clips import Variation, Variations
from moss_audio_tokenizer.training.data.data_config import CodesDataConfig

RATE = 8000


def tone(frequency: float, seconds: float = 1.0) -> np.ndarray:
    times = np.arange(round(seconds * RATE)) / RATE
    return (0.3 * np.sin(2 * np.pi * frequency * times))[None].astype(np.float32)


def decibels(samples: np.ndarray) -> float:
    return 20 * np.log10(np.sqrt(np.mean(np.square(samples))))


def entry(name: str, speaker: str = "") -> ManifestEntry:
    return ManifestEntry(Path(name), name=name, speaker=speaker, seconds=2.2)


def made(seed=0, stored=(), **changes) -> Variations:
    config = CodesDataConfig(**changes)
    return Variations(config, seed, lambda one: one.name in stored)


@pytest.mark.parametrize("speed", [0.8, 1.0, 1.25])
def test_speed_changes_length_and_pitch_alike(speed):
    changed = Variation(speed, -20.0, 80.0, (0,)).applied(tone(400.0), RATE)
    assert changed.shape[1] == pytest.approx(RATE / speed, abs=1)
    spectrum = np.abs(np.fft.rfft(changed[0]))
    peak = np.argmax(spectrum) * RATE / changed.shape[1]
    assert peak == pytest.approx(400.0 * speed, abs=2.0)


def test_level_and_noise_are_as_asked():
    silent = Variation(1.0, -20.0, 200.0, (1,)).applied(tone(400.0), RATE)
    noisy = Variation(1.0, -20.0, 30.0, (1,)).applied(tone(400.0), RATE)
    assert decibels(silent) == pytest.approx(-20.0, abs=0.05)
    assert decibels(noisy - silent) == pytest.approx(-50.0, abs=0.3)
    assert noisy.dtype == np.float32


def test_nothing_leaves_full_scale():
    loud = Variation(1.0, 0.0, 0.0, (1,)).applied(tone(400.0), RATE)
    assert np.abs(loud).max() <= 1.0


def test_the_first_version_and_stored_codes_are_as_they_are():
    variations = made(stored=("codes.moss",))
    assert variations.of(entry("a.wav"), 0) is None
    assert variations.of(entry("codes.moss"), 3) is None
    assert variations.seconds(entry("codes.moss"), 3) == 2.2


def test_clips_of_a_speaker_sound_alike_in_a_version_but_for_the_noise():
    variations = made()
    first = variations.of(entry("a.wav", "ada"), 1)
    second = variations.of(entry("b.wav", "ada"), 1)
    assert (first.speed, first.level) == (second.speed, second.level)
    assert first.seed != second.seed
    others = [
        variations.of(entry("a.wav", "ada"), 2),
        variations.of(entry("a.wav", "bob"), 1),
        made(seed=1).of(entry("a.wav", "ada"), 1),
    ]
    assert len({first.speed, *(other.speed for other in others)}) == 4
    assert variations.of(entry("a.wav"), 1).speed != variations.of(entry("b.wav"), 1).speed


def test_draws_cover_their_ranges_and_lengths_follow():
    variations = made(gain_db=(-30.0, -10.0), noise_db=(20.0, 40.0))
    found = [variations.of(entry(f"{n}.wav"), 1) for n in range(300)]
    for name, low, high in (("speed", 0.9, 1.1), ("level", -30.0, -10.0), ("noise_db", 20.0, 40.0)):
        values = [getattr(one, name) for one in found]
        assert low <= min(values) < low + 0.05 * (high - low)
        assert high >= max(values) > high - 0.05 * (high - low)
    one = entry("1.wav")
    assert variations.seconds(one, 1) == pytest.approx(2.2 / variations.of(one, 1).speed)
