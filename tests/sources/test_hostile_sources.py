"""Data sets with something wrong in them: it costs itself only, and is counted."""

import io
import json
import os
import tarfile

import numpy as np
import pyarrow as pa
import pytest
import soundfile

from moss_audio_tokenizer.audio import load_audio
from moss_audio_tokenizer.errors import InputError
from moss_audio_tokenizer.manifest import manifest_lines
from moss_audio_tokenizer.sources.recordings import find_recordings, open_entry

RATE = 8000


def sound(level: float = 0.5) -> bytes:
    data = io.BytesIO()
    soundfile.write(data, np.full(800, level), RATE, format="WAV", subtype="FLOAT")
    return data.getvalue()


def level_of(line) -> float:
    with open_entry(line.entry) as source:
        return float(load_audio(source)[0, 400])


def add(tar: tarfile.TarFile, name: str, data: bytes, **headers: str) -> None:
    header = tarfile.TarInfo(name)
    header.size, header.pax_headers = len(data), headers
    tar.addfile(header, io.BytesIO(data))


def find(folder):
    return find_recordings(folder, (), "speech")


def test_sounds_of_one_sample_are_recordings_of_their_own(tmp_path):
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        for number in (1, 2, 3):
            add(tar, f"spk1.utt{number}.wav", sound(number / 10))
            add(tar, f"spk1.utt{number}.txt", f"text {number}".encode())
        for name, level in [("a.wav", 0.4), ("b.input.wav", 0.5), ("b.target.wav", 0.6)]:
            add(tar, name, sound(level))
        add(tar, "b.json", b'{"speaker": 17}')
        add(tar, "a.wav", sound(0.7))
    lines, errors = find(tmp_path)
    assert errors == []
    assert [round(level_of(line), 3) for line in lines] == [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7]
    assert [line.entry.text for line in lines[:3]] == ["text 1", "text 2", "text 3"]
    assert [line.entry.speaker for line in lines[3:]] == ["", "17", "17", ""]
    assert len({line.entry.name for line in lines}) == 7
    again, _ = find(tmp_path)  # from the index beside it
    assert again == lines


def test_sound_of_every_kind_in_a_tar_counts(tmp_path):
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        add(tar, "a.wav", sound())
        add(tar, "b.m4a", b"\0\0\0\x18ftypM4A ")
        add(tar, "c.WMA", b"none")
    lines, errors = find(tmp_path)
    assert [line.entry.name for line in lines] == ["x.tar/a.wav", "x.tar/b.m4a", "x.tar/c.WMA"]
    assert errors == []


@pytest.mark.parametrize(
    ("name", "headers"), [("b.wav", {"size": "x"}), ("b.wav", {"GNU.sparse.map": "1,2,3"})]
)
def test_a_damaged_header_of_a_tar_costs_the_rest_of_it(tmp_path, name, headers):
    with tarfile.open(tmp_path / "x.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        add(tar, "a.wav", sound())
        add(tar, name, sound(), **headers)
    with tarfile.open(tmp_path / "y.tar", "w") as tar:
        add(tar, "c.wav", sound())
    lines, errors = find(tmp_path)
    assert {"x.tar/a.wav", "y.tar/c.wav"} <= {line.entry.name for line in lines}
    assert len(errors) == 1


def test_names_that_are_not_utf8(tmp_path):
    with tarfile.open(
        tmp_path / "x.tar", "w", format=tarfile.GNU_FORMAT, encoding="latin-1"
    ) as tar:
        add(tar, "tschüß.wav", sound(0.25))
    lines, errors = find(tmp_path)
    assert [line.entry.name for line in lines] == ["x.tar/tsch\\xfc\\xdf.wav"]
    assert (errors, level_of(lines[0])) == ([], 0.25)
    folder = tmp_path / "files"
    folder.mkdir()
    with open(os.fsencode(folder) + b"/b\xe4d.wav", "wb") as file:  # noqa: PTH123 - bytes
        file.write(sound(0.25))
    lines, errors = find(folder)
    assert [line.entry.name for line in lines] == ["b\\xe4d.wav"]
    assert (errors, level_of(lines[0])) == ([], 0.25)


def test_all_refused_in_a_tar_tells_why(tmp_path):
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        add(tar, "a.wav", sound())
        add(tar, "a.json", b'{"task": 1}')
        add(tar, "a.txt", b"text")
    with pytest.raises(InputError, match=r"the first problem: .*'task'"):
        find(tmp_path)


def test_compressed_tars_are_refused_with_a_remedy(tmp_path):
    (tmp_path / "x.tar.gz").write_bytes(b"")
    with pytest.raises(InputError, match="gunzip"):
        find(tmp_path)


def test_all_that_looks_like_sound_in_a_folder_is_listed(tmp_path):
    names = ["a.wav", "b.m4a", "c.aiff", "d.w64", "e.oga", "f.WMA", "g.webm"]
    for name in names:
        (tmp_path / name).write_bytes(sound())
    os.mkfifo(tmp_path / "h.wav")
    (tmp_path / "i.wav").symlink_to("nowhere")
    (tmp_path / "folder.wav").mkdir()
    (tmp_path / "notes.txt").write_text("")
    lines, _ = find(tmp_path)
    assert [line.entry.name for line in lines] == [*names, "h.wav", "i.wav"]


@pytest.fixture
def listed(tmp_path):
    """Two recordings and a list beside them; returns what is found."""

    def find_with(name: str, content: bytes):
        for clip in ("a.wav", "b.wav"):
            (tmp_path / clip).write_bytes(sound())
        (tmp_path / name).write_bytes(content)
        return find(tmp_path)

    return find_with


LONG = b"x" * 200_000


@pytest.mark.parametrize(
    ("name", "content", "texts", "num_errors"),
    [
        ("metadata.csv", b"file_name,text\na.wav," + LONG + b"\n", ["", ""], 1),
        ("metadata.csv", b"file_name;text\na.wav;one\nb.wav;two\n", ["one", "two"], 0),
        ("metadata.csv", b"file_name\ttext\na.wav\tone\n", ["one", ""], 0),
        ("metadata.csv", b"name,text\na.wav,one\n", ["", ""], 1),
        ("metadata.csv", b"file_name,text\na.wav,\xff\n", ["", ""], 1),
        ("metadata.csv", b"file_name,text,split\na.wav,one,train/clean\n", [""], 1),
        ("metadata.jsonl", b'[1]\n{"file_name": "b.wav", "text": "two"}\n', ["", "two"], 1),
        ("metadata.jsonl", b'{"file_name"\n"x"\n{"file_name": "a.wav", "text": 1}', ["1", ""], 2),
        ("metadata.jsonl", b"[" * 100_000, ["", ""], 1),
    ],
)
def test_wrong_rows_of_lists_beside_sound_files(listed, name, content, texts, num_errors):
    lines, errors = listed(name, content)
    assert [line.entry.text for line in lines] == texts
    assert len(errors) == num_errors


@pytest.mark.parametrize(
    "line",
    [
        '{"path": "a.wav", "seconds": 1' + "0" * 400 + "}",
        '{"path": "a\\u0000b.wav"}',
        '{"path": "a.wav", "seconds": "long"}',
        '{"path": "a.wav", "seconds": true}',
        '{"path": "a.wav", "speaker": true}',
        '{"path": "a.wav", "speaker": [1]}',
        '{"path": "a.wav", "seconds": -1}',
        '{"path": "\\udce4.wav"}',
        "[" * 100_000,
    ],
)
def test_a_wrong_line_of_a_manifest_costs_itself(tmp_path, line):
    path = tmp_path / "m.jsonl"
    path.write_text('{"path": "x.wav"}\n' + line + '\n{"path": "y.wav"}\n', encoding="utf-8")
    good, bad, last = (found for _, found in manifest_lines(path))
    assert good[0].name == "x.wav"
    assert last[0].name == "y.wav"
    assert isinstance(bad, InputError)
    assert len(str(bad)) < 1000


def test_numbers_are_taken_as_text_and_text_as_numbers(tmp_path):
    path = tmp_path / "m.jsonl"
    rows = [
        {"audio_filepath": "x.wav", "duration": 2.5, "speaker": 17, "text": 42},
        {"path": "y.wav", "seconds": "3.2"},
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    (_, (first, _)), (_, (second, _)) = manifest_lines(path)
    assert (first.name, first.seconds, first.speaker, first.text) == ("x.wav", 2.5, "17", "42")
    assert second.seconds == 3.2


def test_a_damaged_table_is_refused_and_not_a_crash(tmp_path):
    rows = pa.table({"audio": [{"bytes": sound(), "path": "x"}] * 8, "text": ["some words"] * 8})
    good = tmp_path / "good.arrow"
    with pa.OSFile(str(good), "wb") as file, pa.ipc.new_stream(file, rows.schema) as out:
        out.write_table(rows)
    data = good.read_bytes()
    place = data.index(np.arange(0, 90, 10, dtype="<i4").tobytes())  # offsets of the texts
    altered = data[: place + 16] + (1 << 30).to_bytes(4, "little") + data[place + 20 :]
    (tmp_path / "bad.arrow").write_bytes(altered)
    lines, errors = find(tmp_path)
    assert len(lines) == 8
    (error,) = errors
    assert "bad.arrow cannot be read as a table" in error["error"]
