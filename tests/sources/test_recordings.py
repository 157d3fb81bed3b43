"""What a data set consists of: folders, lists beside sound files, shards and tables."""

import io
import json
import tarfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile

from moss_audio_tokenizer.audio import load_audio
from moss_audio_tokenizer.errors import AudioFileError, InputError
from moss_audio_tokenizer.sources.recordings import find_recordings, open_entry

RATE = 8000


def sound(seed: int) -> bytes:
    data = io.BytesIO()
    samples = np.random.default_rng(seed).uniform(-0.5, 0.5, 800 + 80 * seed)
    soundfile.write(data, samples, RATE, format="WAV", subtype="PCM_16")
    return data.getvalue()


def read(line):
    with open_entry(line.entry) as source:
        return load_audio(source)


def expected(seed):
    return load_audio(io.BytesIO(sound(seed)))


def table(count: int, **columns) -> pa.Table:
    audio = [{"bytes": sound(seed), "path": None} for seed in range(count)]
    return pa.table({"audio": audio, **columns})


@pytest.mark.parametrize("kind", ["parquet", "arrow"])
def test_tables_are_read_at_random(tmp_path, kind):
    columns = {"transcription": list("abcde"), "speaker_id": [1, 1, 2, 2, None]}
    path = tmp_path / "data" / f"train-00000-of-00001.{kind}"
    path.parent.mkdir()
    if kind == "parquet":
        pq.write_table(table(5, **columns), path, row_group_size=2)
    else:
        content = table(5, **columns)
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, content.schema) as out:
            out.write_table(content, max_chunksize=2)
    lines, errors = find_recordings(tmp_path, (), "speech")
    assert not errors
    assert [line.entry.text for line in lines] == list("abcde")
    assert [line.entry.speaker for line in lines] == ["1", "1", "2", "2", ""]
    assert lines[0].entry.name == f"data/train-00000-of-00001.{kind}/0"
    assert {(line.entry.split, line.entry.domain) for line in lines} == {("train", "speech")}
    for seed in (4, 0, 3, 1, 2):
        assert np.array_equal(read(lines[seed]), expected(seed))
    assert lines[3].entry.location.endswith(f".{kind}/3")


def test_rows_may_name_files_or_have_nothing(tmp_path):
    (tmp_path / "a.wav").write_bytes(sound(1))
    rows = [{"bytes": None, "path": "a.wav"}, {"bytes": None, "path": None}]
    pq.write_table(pa.table({"audio": pa.array(rows, pa.struct({"bytes": pa.binary(), "path": pa.string()}))}), tmp_path / "valid.parquet")  # fmt: skip  # noqa: E501
    lines, _ = find_recordings(tmp_path, ("valid",), "music")
    assert np.array_equal(read(lines[0]), expected(1))
    assert lines[0].entry.domain == "music"
    with pytest.raises(AudioFileError, match="has no sound"):
        read(lines[1])


def test_tables_that_are_damaged_or_without_sound(tmp_path):
    pq.write_table(pa.table({"text": ["a"]}), tmp_path / "texts.parquet")
    with pytest.raises(InputError, match="no sound files"):
        find_recordings(tmp_path, (), "speech")
    (tmp_path / "x.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(InputError, match="cannot be read as a table"):
        find_recordings(tmp_path, (), "speech")


def test_lists_beside_sound_files_describe_them(tmp_path):
    for place in ("one", "two"):
        (tmp_path / place).mkdir()
        (tmp_path / place / "a.wav").write_bytes(sound(0))
    (tmp_path / "one" / "metadata.csv").write_text("file_name,transcription\na.wav,hello\n")
    (tmp_path / "two" / "metadata.jsonl").write_text('{"file_name": "a.wav", "speaker": 7}\n')
    lines, errors = find_recordings(tmp_path, (), "speech")
    assert not errors
    assert [(line.entry.text, line.entry.speaker) for line in lines] == [("hello", ""), ("", "7")]
    (tmp_path / "two" / "metadata.jsonl").write_text("no json")
    lines, errors = find_recordings(tmp_path, (), "speech")
    assert len(lines) == 2
    assert "texts are left out" in errors[0]["error"]


def test_tar_files_and_manifests(tmp_path):
    with tarfile.open(tmp_path / "x-0.tar", "w") as archive:
        said = json.dumps({"text": "one", "split": "train"}).encode()
        for name, data in {"a.wav": sound(2), "a.json": said, "b.json": b"no"}.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    (line,), _ = find_recordings(tmp_path, (), "speech")
    assert line.entry.text == "one"
    assert np.array_equal(read(line), expected(2))
    with pytest.raises(InputError, match="nothing of the splits test"):
        find_recordings(tmp_path, ("test",), "speech")
    (tmp_path / "m.jsonl").write_text('{"path": "x.wav"}\n{}\n')
    lines, errors = find_recordings(tmp_path / "m.jsonl", (), "speech")
    assert (len(lines), len(errors)) == (1, 1)
