import json

import pytest

from moss_audio_tokenizer.errors import InputError
from moss_audio_tokenizer.manifest import ManifestEntry, manifest_lines, read_manifest


def write(tmp_path, text: str | bytes) -> str:
    path = tmp_path / "manifest.jsonl"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return str(path)


def test_only_a_path_is_required_and_it_is_relative_to_the_manifest(tmp_path):
    entries = read_manifest(write(tmp_path, '{"path": "a/b.wav"}\n\n{"path": "/c.wav"}'))
    assert entries[0] == ManifestEntry(tmp_path / "a" / "b.wav", "speech", "train", "a/b.wav")
    assert str(entries[1].path) == "/c.wav"


def test_paths_of_a_relative_manifest_are_absolute(tmp_path, monkeypatch):
    write(tmp_path, '{"path": "a.wav"}')
    monkeypatch.chdir(tmp_path)
    assert read_manifest("manifest.jsonl")[0].path == tmp_path / "a.wav"


def test_one_split_is_kept(tmp_path):
    path = write(tmp_path, '{"path": "a", "split": "valid"}\n{"path": "b", "domain": null}\n')
    assert [entry.path.name for entry in read_manifest(path, "valid")] == ["a"]
    assert [entry.domain for entry in read_manifest(path, "train")] == ["speech"]
    with pytest.raises(InputError, match=r"no entries of split 'test'.*train/speech, valid/speech"):
        read_manifest(path, "test")


def test_what_is_known_of_a_clip_is_kept(tmp_path):
    keys = '"text": "hello", "speaker": "ada", "language": "en", "seconds": 2'
    lines = [f'{{"path": "a", {keys}}}', f'{{"path": "b", {keys}, "task": "caption"}}']
    first, second = read_manifest(write(tmp_path, "\n".join(lines)))
    assert (first.text, first.speaker, first.language) == ("hello", "ada", "en")
    assert (first.task, second.task) == ("asr", "caption")
    assert (first.seconds, type(first.seconds)) == (2.0, float)


@pytest.mark.parametrize("text", ["null", '""'])
def test_a_clip_without_a_text_has_no_task(tmp_path, text):
    line = f'{{"path": "a", "text": {text}, "task": "asr", "seconds": null, "speaker": null}}'
    (entry,) = read_manifest(write(tmp_path, line))
    assert (entry.text, entry.task, entry.seconds, entry.speaker) == ("", "", 0.0, "")


def test_lines_are_given_with_what_is_wrong_with_them(tmp_path):
    path = write(tmp_path, '{"path": "a", "license": "CC0"}\n\nnonsense\n{}')
    found = dict(manifest_lines(path))
    assert list(found) == [1, 3, 4]
    entry, keys = found[1]
    assert (entry.name, keys["license"]) == ("a", "CC0")
    assert "line 3 is not JSON" in str(found[3])
    assert isinstance(found[4], InputError)


def test_text_may_hold_line_separators_of_unicode(tmp_path):
    line = json.dumps({"path": "a", "text": "one\u2028two\x85three"}, ensure_ascii=False)
    assert len(read_manifest(write(tmp_path, line))) == 1


def test_windows_line_ends_and_byte_order_marks_are_borne(tmp_path):
    path = write(tmp_path, b'\xef\xbb\xbf{"path": "a"}\r\n{"path": "b"}\r\n')
    assert [entry.path.name for entry in read_manifest(path)] == ["a", "b"]


@pytest.mark.parametrize("text", ["", "\n \n"])
def test_an_empty_manifest_is_refused(tmp_path, text):
    with pytest.raises(InputError, match="is empty"):
        read_manifest(write(tmp_path, text))


@pytest.mark.parametrize("name", ["", "nowhere.jsonl", "."])
def test_a_missing_manifest_is_refused_with_the_key_to_set(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"set data\.manifest=PATH"):
        read_manifest(name)


def test_a_sound_file_is_no_manifest(tmp_path):
    with pytest.raises(InputError, match="cannot be read as text"):
        read_manifest(write(tmp_path, b"RIFF\xff\xfe\x00\x80WAVE"))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("path.wav", "line 2 is not JSON"),
        ("[" * 100_000, "line 2 is not JSON"),
        ('["a.wav"]', "line 2 holds list"),
        ("{}", "line 2 has 'path' = None"),
        ('{"path": 3}', "line 2 has 'path' = 3"),
        ('{"path": ""}', "line 2 has 'path' = ''"),
        ('{"path": "a", "domain": 7}', "line 2 has 'domain' = 7"),
        ('{"path": "a", "split": ["train"]}', "line 2 has 'split'"),
        ('{"path": "a", "text": [7]}', r"line 2 has 'text' = \[7\]; expected text"),
        ('{"path": "a", "language": []}', "line 2 has 'language'"),
        ('{"path": "a", "speaker": {}}', "line 2 has 'speaker'"),
        (
            '{"path": "a", "text": "x", "task": "tts"}',
            "'task' = 'tts'; expected one of asr, ms_asr",
        ),
        ('{"path": "a", "text": "x", "task": 1}', "line 2 has 'task' = 1"),
        (r'{"path": "\ud800.flac"}', r"line 2 has 'path' = '\\ud800\.flac'; .* lone surrogates"),
        (r'{"path": "a", "domain": "\udcff"}', "lone surrogates"),
        ('{"path": "a", "seconds": "3 s"}', "line 2 has 'seconds' = '3 s'; expected a number"),
        ('{"path": "a", "seconds": -1}', "line 2 has 'seconds' = -1"),
        ('{"path": "a", "seconds": NaN}', "line 2 has 'seconds' = nan"),
        ('{"path": "a", "seconds": true}', "line 2 has 'seconds' = True"),
    ],
)
def test_a_wrong_line_is_named(tmp_path, line, message):
    with pytest.raises(InputError, match=message):
        read_manifest(write(tmp_path, '{"path": "a"}\n' + line))


@pytest.mark.parametrize("split", ["../../evil", "a/b", ".hidden", "x" * 300, "a\\nb"])
def test_a_split_that_is_no_name_is_refused(tmp_path, split):
    line = json.dumps({"path": "a.wav", "split": split})
    with pytest.raises(InputError, match=r"'split' = .*; expected a short name"):
        read_manifest(write(tmp_path, line))
