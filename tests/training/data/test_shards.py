"""Shards: their index, what is damaged in them, and training on them."""

import io
import json
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
from small_sounds import RATE, ramp

from moss_audio_tokenizer.errors import AudioFileError, InputError
from moss_audio_tokenizer.files import PartOfFile
from moss_audio_tokenizer.sources import tar_shards
from moss_audio_tokenizer.sources.tar_shards import read_shards
from moss_audio_tokenizer.training.data.audio_rows import Clip, load_clips
from moss_audio_tokenizer.training.data.clip_sources import find_clips
from moss_audio_tokenizer.training.data.data_config import DataConfig


def loaded(entries) -> tuple[list[Clip], list[str]]:
    """Clips, and a line for each that cannot be read."""
    found = load_clips(entries, RATE, 1)
    clips = [item for item in found if isinstance(item, Clip)]
    return clips, [item for item in found if isinstance(item, str)]


def sound(seed: int, seconds: float = 0.5) -> bytes:
    data = io.BytesIO()
    soundfile.write(data, ramp(seed, seconds), RATE, format="FLAC", subtype="PCM_16")
    return data.getvalue()


def write_tar(path: Path, members: dict[str, bytes]) -> Path:
    path.parent.mkdir(exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, data in members.items():
            header = tarfile.TarInfo(name)
            header.size = len(data)
            archive.addfile(header, io.BytesIO(data))
    return path


def clip(key: str, seed: int, **keys) -> dict[str, bytes]:
    return {f"{key}.flac": sound(seed), f"{key}.json": json.dumps(keys).encode()}


@pytest.fixture
def folder(tmp_path) -> Path:
    """Two shards: two transcribed training clips and one of music, one validation clip."""
    first = clip("a", 0, text="one", seconds=0.5) | clip("b", 1, text="two", language="de")
    write_tar(tmp_path / "web" / "x-0.tar", first)
    second = clip("sub/c.d", 2, domain="music") | clip("v", 3, split="valid", speaker="ada")
    write_tar(tmp_path / "web" / "x-1.tar", second)
    return tmp_path / "web"


def no_report(line: str) -> None:
    raise AssertionError(line)


def test_shards_say_what_their_json_says(folder):
    entries = read_shards(folder, "train", no_report)
    names = ["x-0.tar/a.flac", "x-0.tar/b.flac", "x-1.tar/sub/c.d.flac"]
    assert [entry.name for entry in entries] == names
    first = entries[0]
    assert (first.text, first.task, first.seconds, first.domain) == ("one", "asr", 0.5, "speech")
    assert entries[1].language == "de"


def test_clips_of_shards_are_read_at_random(folder):
    entries = read_shards(folder, None, no_report)
    found, unreadable = loaded(entries)
    assert unreadable == []
    for seed, item in enumerate(found):
        np.testing.assert_allclose(item.samples[0] / 32768, ramp(seed, 0.5), atol=1e-4)


def test_only_clips_with_sound_are_listed(tmp_path):
    members = {"a.txt": b"text", "b.json": b"{}", "c.wav": sound(1)}
    write_tar(tmp_path / "web" / "x.tar", members)
    (entry,) = read_shards(tmp_path / "web", "train", no_report)
    assert entry.name == "x.tar/c.wav"


def test_the_index_is_kept_beside_and_renewed_with_the_tar(folder, monkeypatch):
    before = read_shards(folder, "train", no_report)
    assert (folder / "x-0.tar.index.json").is_file()
    scan = tar_shards._scan
    monkeypatch.setattr(tar_shards, "_scan", None)
    assert read_shards(folder, "train", no_report) == before
    monkeypatch.setattr(tar_shards, "_scan", scan)
    write_tar(folder / "x-0.tar", clip("new", 5))
    assert read_shards(folder, "train", no_report)[0].name == "x-0.tar/new.flac"


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"identity": 3}', "\0" * 10])
def test_a_damaged_index_is_made_again(folder, content):
    before = read_shards(folder, None, no_report)
    (folder / "x-0.tar.index.json").write_text(content)
    assert read_shards(folder, None, no_report) == before


def test_a_folder_that_cannot_be_written_does_without_an_index(folder, monkeypatch):
    def refuse(*arguments, **options):
        raise PermissionError("read-only")

    monkeypatch.setattr(tar_shards, "write_file", refuse)
    assert len(read_shards(folder, "train", no_report)) == 3
    assert not list(folder.glob("*.json"))


@pytest.mark.parametrize("kept", [0.3, 0.6, 0.75])
def test_the_rest_of_a_cut_tar_is_skipped_and_named(tmp_path, kept):
    members = {name: data for seed in range(8) for name, data in clip(f"c{seed}", seed).items()}
    path = write_tar(tmp_path / "web" / "x.tar", members)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * kept)])
    lines = []
    entries = read_shards(path.parent, "train", lines.append)
    assert 0 < len(entries) < 8
    assert len(loaded(entries)[0]) == len(entries)
    (line,) = lines
    assert "x.tar behind its first" in line
    assert "cut short" in line


def test_a_tar_that_ends_between_two_members_is_noticed(tmp_path):
    path = write_tar(tmp_path / "web" / "x.tar", clip("a", 0) | clip("b", 1))
    with tarfile.open(path) as archive:
        end = archive.getmember("b.flac").offset
    os.truncate(path, end)
    lines = []
    assert len(read_shards(path.parent, "train", lines.append)) == 1
    assert "its end is missing" in lines[0]


@pytest.mark.parametrize("content", [b"", b"no tar" * 300, bytes(100)])
def test_what_is_no_tar_is_skipped_and_named(folder, content):
    (folder / "y.tar").write_bytes(content)
    lines = []
    assert read_shards(folder, "train", lines.append)
    assert "y.tar" in lines[0]
    for path in folder.glob("*.tar"):
        path.write_bytes(content)
    with pytest.raises(InputError, match="nothing readable"):
        read_shards(folder, "train", lines.append)


@pytest.mark.parametrize(
    ("text", "message"),
    [(b"{", "is not JSON"), (b"[]", "holds list"), (b'{"domain": 3}', "'domain' = 3")],
)
def test_a_clip_with_a_wrong_json_is_skipped_and_named(tmp_path, text, message):
    members = clip("a", 0) | {"b.flac": sound(1), "b.json": text}
    write_tar(tmp_path / "web" / "x.tar", members)
    lines = []
    (entry,) = read_shards(tmp_path / "web", "train", lines.append)
    assert entry.name == "x.tar/a.flac"
    assert message in lines[0]
    assert "x.tar/b.json" in lines[0]


def test_a_tar_that_shrinks_later_is_an_unreadable_clip(folder):
    entries = read_shards(folder, "train", no_report)
    os.truncate(folder / "x-0.tar", 700)
    _, unreadable = loaded(entries[:1])
    assert "x-0.tar/a.flac' is cut short" in unreadable[0]


def test_folders_without_shards_or_the_split_are_refused(tmp_path, folder):
    with pytest.raises(InputError, match=r"has no shards.*manifest"):
        read_shards(tmp_path, "train", no_report)
    with pytest.raises(InputError, match=r"split 'test': train, valid"):
        read_shards(folder, "test", no_report)


def test_shards_below_the_folder_are_found(folder):
    home = folder.parent / "home"
    home.mkdir()
    folder.rename(home / "shards")
    assert len(read_shards(home, "valid", no_report)) == 1


def test_shards_and_manifests_mix_and_filter(folder, write_data, make_data):
    manifest = write_data(("m.wav", 0.5, {"text": "three"}), ("n.wav", 0.5, {"language": "de"}))
    sources = ((str(folder), 1.0), (manifest, 1.0))
    data = make_data(sources=sources, batch_size=30, cache_hours=0.0)
    names = {name for step in range(10) for name in data.batch(step).names}
    assert {"x-0.tar/a.flac", "x-0.tar/b.flac", "m.wav", "n.wav"} <= names
    data = make_data(sources=sources, languages=("de",))
    assert set(data.batch(0).names) == {"x-0.tar/b.flac", "n.wav"}
    valid = find_clips(DataConfig(sources=sources), "valid", no_report)
    assert [entry.speaker for entry in valid] == ["ada"]
    assert find_clips(DataConfig(sources=sources), "test", no_report) == []


def test_rows_of_shards_are_those_of_files(folder, make_data):
    kept, read = (make_data(str(folder), cache_hours=hours).batch(4) for hours in (1.0, 0.0))
    assert kept.names == read.names
    np.testing.assert_allclose(kept.audio, read.audio, atol=1e-6)


def test_missing_archives_are_our_errors(folder):
    entries = read_shards(folder, "train", no_report)
    (folder / "x-0.tar").unlink()
    _, unreadable = loaded(entries[:1])
    assert "cannot be read" in unreadable[0]
    assert AudioFileError.__name__ not in unreadable[0]


def test_a_crop_of_a_long_recording_reads_little_of_the_shard(tmp_path, make_data, monkeypatch):
    write_tar(tmp_path / "web" / "x.tar", {"a.flac": sound(0, 60.0)})
    data = make_data(str(tmp_path / "web"), cache_hours=0.0, batch_size=1)
    read = PartOfFile.readinto
    counts = []

    def counted(self, buffer):
        counts.append(read(self, buffer))
        return counts[-1]

    monkeypatch.setattr(PartOfFile, "readinto", counted)
    assert data.batch(0).lengths.tolist() == [1600]
    assert 0 < sum(counts) < len(sound(0, 60.0)) / 2


@pytest.mark.parametrize("seed", [0, 1])
def test_damaged_sound_in_a_shard_is_named_by_shard_and_member(tmp_path, seed):
    members = {"a.flac": sound(seed)[:-200], "b.flac": b"no sound" * 50, "c.flac": sound(seed)}
    write_tar(tmp_path / "web" / "x.tar", members)
    entries = read_shards(tmp_path / "web", "train", no_report)
    found, unreadable = loaded(entries)
    assert [clip.entry.name for clip in found] == ["x.tar/c.flac"]
    assert "x.tar/a.flac" in unreadable[0]
    assert "x.tar/b.flac" in unreadable[1]


def test_a_part_of_a_file_is_a_file(tmp_path):
    data = bytes(range(200))
    (tmp_path / "x").write_bytes(data)
    with (tmp_path / "x").open("rb", buffering=0) as file:
        part = io.BufferedReader(PartOfFile(file, 50, 100, "part"), 16)
        assert part.read() == data[50:150]
        assert part.seek(-10, os.SEEK_END) == 90
        assert part.read(5) == data[140:145]
        assert part.seek(3, os.SEEK_CUR) == 98
        assert part.read() == data[148:150]
        assert part.seek(500) == 500
        assert part.read(1) == b""
