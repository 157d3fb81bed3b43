"""Preparing data sets: what is measured, what is written, and what is left when it fails."""

import errno
import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
from small_sounds import RATE, ramp

from moss_audio_tokenizer.audio import load_audio
from moss_audio_tokenizer.errors import AudioFileError, InputError
from moss_audio_tokenizer.sources.tar_shards import ShardWriter, read_shards
from moss_audio_tokenizer.training.data import preparing
from moss_audio_tokenizer.training.data.preparing import Preparation, prepare
from moss_audio_tokenizer.training.data.survey import measure


@pytest.fixture
def manifest(write_data) -> str:
    """Six clips: two splits, two domains, one transcribed, one twice, one damaged, a bad line."""
    path = Path(
        write_data(
            ("a.wav", 1.0, {"text": "one", "language": "en", "license": "CC0"}),
            ("b.wav", 2.0, {}),
            ("m.wav", 1.0, {"domain": "music"}),
            ("v.wav", 0.5, {"split": "valid"}),
            ("cut.wav", 0.5, {}),
            ("again.wav", 1.0, {"split": "valid"}),
        )
    )
    home = path.parent
    (home / "again.wav").write_bytes((home / "a.wav").read_bytes())
    (home / "cut.wav").write_bytes((home / "cut.wav").read_bytes()[:-100])
    path.write_text(path.read_text() + "\nnonsense\n")
    return str(path)


def members(folder: Path) -> dict[str, bytes]:
    found = {}
    for path in sorted((folder / "shards").glob("*.tar")):
        with tarfile.open(path) as archive:
            for member in archive:
                found[f"{path.name}/{member.name}"] = archive.extractfile(member).read()
    return found


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_what_is_written_and_measured(manifest, tmp_path):
    summary = prepare(Preparation(manifest), tmp_path / "out")
    assert (summary["clips"], summary["errors"]) == (5, 2)
    assert summary["hours"] == pytest.approx(5.5 / 3600)
    groups = {(group["split"], group["domain"], group["language"]) for group in summary["groups"]}
    assert groups == {
        ("train", "speech", "en"),
        ("train", "speech", None),
        ("train", "music", None),
        ("valid", "speech", None),
    }
    assert summary["transcribed_clips"] == 1
    assert summary["sampling_rates"] == {"8000": 5}
    assert summary["duplicates"] == {
        "count": 1,
        "first": [["a.wav", "again.wav"]],
        "across_splits": 1,
    }
    assert json.loads((tmp_path / "out" / "summary.json").read_text()) == summary
    errors = [
        json.loads(line) for line in (tmp_path / "out" / "errors.jsonl").read_text().splitlines()
    ]
    assert {error["path"] for error in errors} == {None, "cut.wav"}
    assert {error["line"] for error in errors} == {None, 7}


def test_shards_hold_the_samples_and_the_keys(manifest, tmp_path):
    prepare(Preparation(manifest), tmp_path / "out")
    found = members(tmp_path / "out")
    assert [name for name in found if name.endswith("flac")] == [
        *(f"train-000000.tar/0000000{index}.flac" for index in range(3)),
        *(f"valid-000000.tar/0000000{index}.flac" for index in range(2)),
    ]
    np.testing.assert_array_equal(
        load_audio(io.BytesIO(found["train-000000.tar/00000001.flac"])),
        load_audio(Path(manifest).parent / "b.wav"),
    )
    assert json.loads(found["train-000000.tar/00000000.json"]) == {
        "path": "a.wav",
        "text": "one",
        "language": "en",
        "license": "CC0",
        "domain": "speech",
        "split": "train",
        "seconds": 1.0,
        "sample_rate": RATE,
        "channels": 1,
    }


def test_the_bytes_are_the_same_every_time(manifest, tmp_path):
    for name in ("one", "two"):
        prepare(Preparation(manifest, audio_format="opus"), tmp_path / name, workers=3)
    assert files(tmp_path / "one") == files(tmp_path / "two")


@pytest.mark.parametrize("limits", [{"shard_seconds": 1.5}, {"shard_megabytes": 0.03}])
def test_full_shards_are_followed_by_others(manifest, tmp_path, limits):
    summary = prepare(Preparation(manifest, **limits), tmp_path / "out")
    assert len(summary["shards"]) > 2
    assert sum(shard["clips"] for shard in summary["shards"]) == 5
    names = [shard["name"] for shard in summary["shards"]]
    assert names[:2] == ["train-000000.tar", "train-000001.tar"]
    assert len(read_shards(tmp_path / "out", None)) == 5


def test_rates_channels_and_splits_are_as_asked_for(manifest, tmp_path):
    wanted = Preparation(manifest, ("train",), sampling_rate=16_000, channels=2)
    summary = prepare(wanted, tmp_path / "out")
    assert {group["split"] for group in summary["groups"]} == {"train"}
    sound = members(tmp_path / "out")["train-000000.tar/00000000.flac"]
    samples, rate = soundfile.read(io.BytesIO(sound))
    assert (samples.shape, rate) == ((16_000, 2), 16_000)


def test_files_are_copied_as_they_are(manifest, tmp_path):
    prepare(Preparation(manifest, audio_format="copy"), tmp_path / "out")
    copied = members(tmp_path / "out")["train-000000.tar/00000000.wav"]
    assert copied == (Path(manifest).parent / "a.wav").read_bytes()


def test_duplicates_are_left_out_if_asked(manifest, tmp_path):
    prepare(Preparation(manifest, drop_duplicates=True), tmp_path / "out")
    assert sum(name.endswith("flac") for name in members(tmp_path / "out")) == 4


def test_a_folder_of_files_needs_no_manifest(manifest, tmp_path):
    summary = prepare(Preparation(str(Path(manifest).parent), domain="sound"), tmp_path / "out")
    assert (summary["clips"], summary["errors"]) == (5, 1)
    assert {group["domain"] for group in summary["groups"]} == {"sound"}


def test_webdataset_reads_the_shards(manifest, tmp_path):
    tars = pytest.importorskip("webdataset.tariterators")
    prepare(Preparation(manifest, ("train",)), tmp_path / "out")
    path = tmp_path / "out" / "shards" / "train-000000.tar"
    with path.open("rb") as stream:  # its own readers leave files open
        parts = tars.tar_file_expander([{"url": str(path), "stream": stream}])
        samples = list(tars.group_by_keys(parts))
    assert [sample["__key__"] for sample in samples] == [f"0000000{index}" for index in range(3)]
    assert json.loads(samples[0]["json"])["text"] == "one"
    assert load_audio(io.BytesIO(samples[0]["flac"])).shape == (1, RATE)


def test_training_reads_the_shards(manifest, tmp_path, make_data):
    prepare(Preparation(manifest), tmp_path / "out")
    batch = make_data(str(tmp_path / "out"), cache_hours=0.0).batch(0)
    assert {name.partition("/")[0] for name in batch.names} == {"train-000000.tar"}


def test_what_was_interrupted_starts_again_and_what_is_complete_stays(
    manifest, tmp_path, monkeypatch
):
    output, wanted = tmp_path / "out", Preparation(manifest, shard_seconds=1.0)
    examine, calls = preparing._examine, []

    def interrupted(line, options):
        calls.append(line)
        if len(calls) > 2:
            raise KeyboardInterrupt
        return examine(line, options)

    monkeypatch.setattr(preparing, "_examine", interrupted)
    with pytest.raises(KeyboardInterrupt):
        prepare(wanted, output, workers=1)
    assert "summary.json" not in files(output)
    assert not [name for name in files(output) if name.endswith(".partial")]
    monkeypatch.setattr(preparing, "_examine", examine)
    prepare(wanted, output)
    whole = files(output)
    with pytest.raises(InputError, match="holds other files"):
        prepare(wanted, output)
    assert files(output) == whole


def test_a_folder_of_something_else_is_left_alone(manifest, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match="holds other files"):
        prepare(Preparation(manifest), tmp_path / "out")
    assert (tmp_path / "out" / "thesis.txt").read_text() == "mine"


def test_nothing_usable_is_an_error(tmp_path):
    (tmp_path / "m.jsonl").write_text('{"path": "none.wav"}')
    with pytest.raises(InputError, match=r"none of the 1 recordings .*no such file"):
        prepare(Preparation(str(tmp_path / "m.jsonl")), tmp_path / "out")
    with pytest.raises(InputError, match="has nothing of the splits valid; it has train"):
        prepare(Preparation(str(tmp_path / "m.jsonl"), ("valid",)), tmp_path / "other")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="has no sound files"):
        prepare(Preparation(str(tmp_path / "empty")), tmp_path / "other")


@pytest.mark.parametrize(
    "values",
    [{"audio_format": "mp3"}, {"audio_format": "copy", "channels": 1}, {"shard_seconds": 0.0}],
)
def test_impossible_wishes_are_refused(values):
    with pytest.raises(InputError, match="got"):
        Preparation("x", **values)


def test_measures():
    loud = np.clip(np.sin(np.arange(RATE) * 0.05, dtype=np.float32) * 2, -1, 1)[None]
    quiet = (ramp(0, 1.0) * 0.1).astype(np.float32)[None]
    half = np.concatenate([np.zeros((1, RATE), np.float32), quiet], axis=1)
    assert measure(loud, RATE).clipped
    assert not measure(quiet, RATE).clipped
    assert measure(half, RATE).silent_share == pytest.approx(0.5, abs=0.02)
    assert measure(half * 0, RATE).loudness_dbfs == pytest.approx(-120)
    tone = 0.1 * np.sqrt(2) * np.sin(np.arange(RATE) * 0.3, dtype=np.float32)[None]
    assert measure(tone, RATE).loudness_dbfs == pytest.approx(-20, abs=0.05)
    assert measure(quiet[:, :2], RATE).seconds == 2 / RATE
    assert measure(quiet, RATE).digest != measure(quiet, 2 * RATE).digest


def test_a_full_disk_leaves_no_part_of_a_shard(manifest, tmp_path, monkeypatch):
    def full(self, name, data):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(ShardWriter, "_write", full)
    with pytest.raises(AudioFileError, match=r"train-000000\.tar.*No space left"):
        prepare(Preparation(manifest), tmp_path / "out")
    assert set(files(tmp_path / "out")) == {"prepare.json"}


def test_a_recording_that_is_listed_twice_counts_once(write_data, tmp_path):
    clips = [("a.wav", 1.0, {"text": "one"}), ("b.wav", 2.0, {})]
    path = Path(write_data(*clips, ("a.wav", 1.0, {"text": "a caption of it"})))
    lines = path.read_text().splitlines()
    again = json.dumps({"path": str(path.parent / "x" / ".." / "b.wav"), "split": "valid"})
    path.write_text("\n".join([*lines, *lines[:2], again]))
    summary = prepare(Preparation(str(path)), tmp_path / "out")
    assert (summary["clips"], summary["errors"]) == (3, 3)
    assert summary["hours"] == pytest.approx(4 / 3600)
    assert {group["split"] for group in summary["groups"]} == {"train"}
    errors = (tmp_path / "out" / "errors.jsonl").read_text().splitlines()
    assert [json.loads(line)["error"] for line in errors] == [
        "listed before, as 'a.wav', with the same text; left out",
        *["listed before, as 'b.wav', with the same text; left out"] * 2,
    ]
