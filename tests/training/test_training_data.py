from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile

from moss_audio_tokenizer.errors import TrainingError
from moss_audio_tokenizer.manifest import ManifestEntry
from moss_audio_tokenizer.training.config import DataConfig
from moss_audio_tokenizer.training.data import Clip, CropSampler, load_clips

RATE = 1000


def make_clip(name: str, domain: str, samples: int, level: float = 0.1) -> Clip:
    random = np.random.default_rng(len(name))
    values = np.clip(random.standard_normal((1, samples)) * level, -1, 1) * 32767
    return Clip(ManifestEntry(Path(name), domain), values.astype(np.int16))


def make_sampler(clips: list[Clip] | None = None, seed: int = 3, **changes) -> CropSampler:
    clips = clips or [
        make_clip("a", "speech", 3000),
        make_clip("bb", "speech", 1000),
        make_clip("ccc", "music", 500),
    ]
    return CropSampler(clips, DataConfig(crop_seconds=0.2, **changes), RATE, seed)


def test_a_batch_depends_on_seed_and_step_alone():
    first, second = make_sampler(), make_sampler()
    second.batch(5)
    np.testing.assert_array_equal(first.batch(9), second.batch(9))
    assert not np.array_equal(first.batch(9), first.batch(10))
    assert not np.array_equal(first.batch(9), make_sampler(seed=4).batch(9))


def test_a_batch_is_float32_rows_of_the_crop_length():
    batch = make_sampler(batch_size=5).batch(0)
    assert batch.shape == (5, 1, 200)
    assert batch.dtype == np.float32


def test_domains_are_drawn_by_weight_and_clips_by_length():
    weights = (("speech", 3.0), ("music", 1.0), ("absent", 9.0))
    sampler = make_sampler(batch_size=20, domain_weights=weights)
    drawn = Counter(path.name for step in range(200) for path in sampler.files(step))
    shares = {name: count / drawn.total() for name, count in drawn.items()}
    assert shares == pytest.approx({"a": 0.75 * 0.75, "bb": 0.75 * 0.25, "ccc": 0.25}, abs=0.03)


def test_files_are_those_of_the_batch():
    clips = [make_clip("a", "speech", 400), make_clip("b", "speech", 400)]
    clips[0].samples[:] = 1000
    clips[1].samples[:] = -1000
    sampler = make_sampler(clips, batch_size=16)
    signs = ["a" if row.mean() > 0 else "b" for row in sampler.batch(7)]
    assert [path.name for path in sampler.files(7)] == signs
    assert len(set(signs)) == 2


def test_levels_lie_in_the_range_asked_for():
    sampler = make_sampler(batch_size=32, gain_db=(-30.0, -20.0))
    batch = np.concatenate([sampler.batch(step) for step in range(10)])
    levels = 20 * np.log10(np.sqrt(np.square(batch).mean((1, 2))))
    assert -30.1 < levels.min() < -29.0
    assert -21.0 < levels.max() < -19.9


def test_quiet_crops_are_raised_only_so_far():
    quiet = [make_clip("quiet", "speech", 400, level=1e-3)]
    batch = make_sampler(quiet, gain_db=(-10.0, -5.0), max_gain_db=6.0).batch(0)
    raised = np.sqrt(np.square(batch).mean()) / 1e-3
    assert raised == pytest.approx(2.0, rel=0.1)


def test_no_crop_clips_however_loud_it_should_be():
    peaky = make_clip("peaky", "speech", 400, level=0.01)
    peaky.samples[:, ::50] = 32_000
    batch = make_sampler([peaky], gain_db=(-1.0, 0.0), batch_size=16).batch(0)
    assert 0.98 < np.abs(batch).max() <= 0.99


def test_silence_stays_silent_and_finite():
    silent = Clip(ManifestEntry(Path("silent")), np.zeros((1, 400), np.int16))
    assert not make_sampler([silent]).batch(0).any()


def test_a_short_clip_is_padded_with_silence():
    batch = make_sampler([make_clip("short", "speech", 50)], batch_size=4).batch(0)
    assert batch[:, :, :50].any()
    assert not batch[:, :, 50:].any()


def test_stereo_keeps_its_channels():
    clip = Clip(ManifestEntry(Path("x")), np.full((2, 300), 100, np.int16))
    assert make_sampler([clip]).batch(0).shape == (8, 2, 200)


def test_clips_of_domains_without_a_share_are_counted():
    clips = [make_clip("a", "speech", 300), make_clip("b", "noise", 300)]
    assert make_sampler(clips).left_out == {"noise": 1}


@pytest.mark.parametrize("weights", [(("noise", 1.0),), (("speech", 0.0), ("noise", 1.0))])
def test_data_without_any_wanted_domain_are_refused(weights):
    with pytest.raises(TrainingError, match=r"shares to \['noise'\].*\['speech'\]"):
        make_sampler([make_clip("a", "speech", 300)], domain_weights=weights)


def test_clips_are_resampled_mixed_and_kept_in_order(tmp_path):
    for index, rate in enumerate((8000, 16_000)):
        tone = np.sin(np.arange(rate) * 440 * 2 * np.pi / rate) * 0.5
        soundfile.write(tmp_path / f"{index}.wav", np.stack((tone, tone), 1), rate)
    entries = [ManifestEntry(tmp_path / f"{index}.wav") for index in range(2)]
    clips, unreadable = load_clips(entries, 24_000, 1)
    assert unreadable == []
    assert [clip.entry for clip in clips] == entries
    assert [clip.samples.shape for clip in clips] == [(1, 24_000)] * 2
    assert np.abs(clips[0].samples).max() == pytest.approx(16_384, rel=0.02)


def test_what_cannot_be_read_is_named_and_skipped(tmp_path):
    good = np.full(2400, 0.1, np.float32)
    soundfile.write(tmp_path / "good.wav", good, 24_000)
    broken = good.copy()
    broken[7] = np.nan
    soundfile.write(tmp_path / "nan.wav", broken, 24_000, subtype="FLOAT")
    (tmp_path / "text.wav").write_text("no sound")
    (tmp_path / "empty.wav").write_bytes(b"")
    (tmp_path / "cut.flac").write_bytes(_flac(tmp_path, good)[:-200])
    # One sample at a high rate is none at a lower one, or one; either way nothing breaks.
    soundfile.write(tmp_path / "tiny.wav", good[:1], 192_000)
    bad = ["nan.wav", "text.wav", "empty.wav", "missing.wav", "cut.flac"]
    entries = [ManifestEntry(tmp_path / name) for name in ["good.wav", *bad, "tiny.wav"]]
    clips, unreadable = load_clips(entries, 24_000, 1)
    assert clips[0].entry.path.name == "good.wav"
    assert all(clip.samples.shape[1] > 0 for clip in clips)
    for name in bad:
        assert any(str(tmp_path / name) in line for line in unreadable), name


def _flac(folder: Path, samples: np.ndarray) -> bytes:
    soundfile.write(
        folder / "whole.flac", samples + 0.01 * np.random.default_rng(0).random(2400), 24_000
    )
    return (folder / "whole.flac").read_bytes()
