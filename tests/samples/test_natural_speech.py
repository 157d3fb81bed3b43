import json
import sys
from datetime import datetime, timedelta, timezone
from types import SimpleNamespace

import natural_speech
import numpy as np
import pytest
import soundfile as sf
from natural_plan import TEST_VOICES
from natural_speech import Dataset, Limits, main, next_time
from natural_voices import PEAK, RATE, crop_silence, japanese_phonemes

from moss_audio_tokenizer.manifest import read_manifest

TEXTS = "A quiet house.\nA loud street.\n\nA long way home.\n"


class FakeVoices:
    """A tone for every clip; it may fail after some."""

    def __init__(self, fails_after=None):
        self.spoken, self.fails_after = [], fails_after

    def speak(self, clip):
        if self.fails_after is not None and len(self.spoken) >= self.fails_after:
            raise KeyboardInterrupt
        self.spoken.append(clip.number)
        tone = np.sin(np.arange(RATE) / (20 + clip.number))
        return np.pad(0.5 * tone, RATE).astype(np.float32)


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs the script with fake voices; gives the numbers of the clips that it spoke."""
    texts = tmp_path / "texts.txt"
    texts.write_text(TEXTS, encoding="utf-8")

    def run(*arguments, fails_after=None):
        voices = FakeVoices(fails_after)
        monkeypatch.setattr(natural_speech, "make_voices", lambda options: voices)
        main([str(texts), str(tmp_path / "speech"), *arguments])
        return voices.spoken

    return run


def test_clips_are_whole_and_the_package_reads_the_manifest(run, tmp_path):
    run("--clips", "5")
    entries = read_manifest(tmp_path / "speech/manifest.jsonl", split="train", domain="speech")
    assert len(entries) == 5
    for entry in entries:
        info = sf.info(entry.path)
        assert (info.samplerate, info.channels) == (RATE, 1)
        assert info.duration == pytest.approx(entry.seconds, abs=1e-3)
        assert entry.text in TEXTS
        assert entry.speaker
        assert entry.language == "en"


def test_a_stopped_run_continues_with_the_same_plan(run, tmp_path):
    folder = tmp_path / "speech"
    with pytest.raises(KeyboardInterrupt):
        run("--clips", "6", fails_after=2)
    # As when the run is killed inside a line and inside a clip.
    with (folder / "manifest.jsonl").open("a") as file:
        file.write('{"path": "0000/0000')
    (folder / "0000/000002.partial").write_bytes(b"fLaC")
    assert run("--clips", "6") == [2, 3, 4, 5]
    rows = [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]
    assert [row["path"] for row in rows] == [f"0000/{number:06d}.flac" for number in range(6)]
    assert not list(folder.rglob("*.partial"))
    assert run("--clips", "6") == []


def test_a_folder_of_another_plan_is_refused(run):
    run("--clips", "1")
    with pytest.raises(SystemExit, match="other settings"):
        run("--clips", "2", "--seed", "9")


def test_clips_are_sorted_into_folders(run, tmp_path, monkeypatch):
    monkeypatch.setattr(natural_speech, "CLIPS_PER_FOLDER", 2)
    run("--clips", "5")
    names = sorted(path.name for path in (tmp_path / "speech").iterdir() if path.is_dir())
    assert names == ["0000", "0001", "0002"]


def test_hours_limit_the_audio(run, tmp_path):
    run("--hours", str(3 / 3600))
    dataset = read_manifest(tmp_path / "speech/manifest.jsonl")
    assert 3 <= sum(entry.seconds for entry in dataset) < 4.5


def test_the_test_set_is_by_the_test_speakers_and_ends(run, tmp_path):
    assert len(run("--test-speakers")) == 12
    entries = read_manifest(tmp_path / "speech/manifest.jsonl", split="test")
    assert {entry.speaker for entry in entries} == set(TEST_VOICES)


def test_a_time_that_has_come_stops_before_the_first_clip(run):
    assert run("--until", "2001-01-01T00:00") == []


def test_a_clock_time_is_in_the_next_day():
    ahead = next_time("00:00") - datetime.now(timezone.utc)
    assert timedelta(0) < ahead <= timedelta(days=1)


def test_limits_count_what_the_folder_has():
    assert Limits(clips=2).reached(2, 0)
    assert Limits(hours=1).reached(0, 3600)
    assert not Limits().reached(10**6, 1e9)


def test_silence_around_a_clip_is_cropped_and_peaks_are_limited():
    speech = 2 * np.ones(RATE, np.float32)
    cropped = crop_silence(np.pad(speech, 2 * RATE))
    assert len(cropped) == pytest.approx(1.3 * RATE, abs=10)
    assert np.abs(cropped).max() == pytest.approx(PEAK)
    assert len(crop_silence(np.zeros(RATE, np.float32))) == 0


def test_a_clip_without_sound_is_skipped(run, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(FakeVoices, "speak", lambda self, clip: np.zeros(RATE, np.float32))
    run("--test-speakers")
    assert "skipped" in capsys.readouterr().out
    assert not (tmp_path / "speech/manifest.jsonl").exists()


def test_an_empty_dataset_has_nothing(tmp_path):
    dataset = Dataset(tmp_path / "new", {"seed": 0})
    assert dataset.numbers == set()
    assert dataset.seconds == 0


def test_japanese_is_written_in_symbols_that_kokoro_knows(monkeypatch):
    heard = []

    def phonemize(text, *_, **__):
        heard.append(text)
        return "tɕ\u02c8idʑä "

    monkeypatch.setitem(sys.modules, "phonemizer", SimpleNamespace(phonemize=phonemize))
    assert japanese_phonemes("はなは どこへ、いくは") == "ʨiʥa"
    assert heard == ["はなわ どこえ、いくわ"]
