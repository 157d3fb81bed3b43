"""Manifests of public test sets, from tiny made-up folders of their layouts."""

from pathlib import Path

import pytest

from moss_audio_tokenizer.errors import InputError
from moss_audio_tokenizer.evaluation.datasets import DATASETS, read_test_items, write_manifest
from moss_audio_tokenizer.manifest import read_manifest


def touch(path, text=""):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")


def test_librispeech(tmp_path):
    chapter = tmp_path / "LibriSpeech" / "test-clean" / "61" / "70968"
    touch(chapter / "61-70968.trans.txt", "61-70968-0000 HE BEGAN\n61-70968-0001 GONE NOW\n")
    touch(chapter / "61-70968-0000.flac")
    output = tmp_path / "manifests" / "clean.jsonl"
    found = write_manifest("librispeech", tmp_path / "LibriSpeech", output)
    assert (found.num_clips, found.absent) == (1, ("61-70968-0001",))
    (clip,) = read_manifest(output, split="test-clean")
    assert clip.path.resolve() == (chapter / "61-70968-0000.flac").resolve()
    assert (clip.text, clip.language, clip.speaker) == ("He began", "en", "61")


def test_aishell2(tmp_path):
    test = tmp_path / "iOS" / "test"
    name, text = "IT0011W0001", "\u4f60\u597d"
    touch(test / "trans.txt", f"{name}\t{text}\n")
    touch(test / "wav.scp", f"{name}\twav/T0011/{name}.wav\n")
    touch(test / "wav" / "T0011" / f"{name}.wav")
    write_manifest("aishell2", tmp_path, tmp_path / "m.jsonl")
    (clip,) = read_manifest(tmp_path / "m.jsonl", split="test", domain="speech")
    assert (clip.text, clip.language, clip.speaker) == (text, "zh", "T0011")


def test_audioset_tells_what_is_absent(tmp_path):
    rows = '# YTID, start, end, labels\n--4gqARaEJE, 0.000, 10.000, "/m/1"\n'
    rows += 'abc, 30.000, 40.000, "/m/2"\ngone, 0.000, 10.000, "/m/3"\n'
    touch(tmp_path / "eval_segments.csv", rows)
    touch(tmp_path / "eval" / "--4gqARaEJE.wav")
    touch(tmp_path / "eval" / "abc_30.flac")
    found = write_manifest("audioset", tmp_path, tmp_path / "m.jsonl")
    assert (found.num_clips, found.absent) == (2, ("gone",))
    clips = read_manifest(tmp_path / "m.jsonl", split="eval", domain="sound")
    assert [clip.path.name for clip in clips] == ["--4gqARaEJE.wav", "abc_30.flac"]


def test_musdb(tmp_path):
    touch(tmp_path / "test" / "A - B" / "mixture.wav")
    touch(tmp_path / "test" / "A - B" / "vocals.wav")
    assert write_manifest("musdb", tmp_path, tmp_path / "m.jsonl").num_clips == 1
    (clip,) = read_manifest(tmp_path / "m.jsonl", split="test", domain="music")
    assert clip.path.name == "mixture.wav"


def test_seed_tts_eval_is_read_as_texts_with_prompts(tmp_path):
    touch(tmp_path / "en" / "meta.lst", "u1|Said before.|prompt-wavs/p.wav|To be said.\n")
    touch(tmp_path / "en" / "prompt-wavs" / "p.wav")
    write_manifest("seed-tts-eval", tmp_path, tmp_path / "m.jsonl")
    (item,) = read_test_items(tmp_path / "m.jsonl", split="en")
    assert (item.text, item.prompt_text, item.language) == ("To be said.", "Said before.", "en")
    assert item.prompt.is_file()


@pytest.mark.parametrize("name", DATASETS)
def test_another_layout_is_refused_in_one_line(name, tmp_path):
    touch(tmp_path / "folder" / "something.txt", "else")
    with pytest.raises(InputError, match=f"not laid out as {name}: expected") as caught:
        write_manifest(name, tmp_path / "folder", tmp_path / "m.jsonl")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "m.jsonl").exists()


TRANSCRIPT = "iOS/test/trans.txt"
SEGMENTS = "eval_segments.csv"


@pytest.mark.parametrize(
    ("name", "file", "content", "message"),
    [
        ("librispeech", "test-clean/1/2/1-2.trans.txt", "1-2-0 NO SOUND\n", "not laid out as"),
        ("librispeech", "test-clean/1/2/1-2.trans.txt", "\udcff", "cannot be read"),
        ("aishell2", TRANSCRIPT, "IT1 a\n", "not laid out as"),
        ("aishell2", "iOS/test/wav.scp", "IT1 wav/IT1.wav\n", "not laid out as"),
        ("audioset", SEGMENTS, "abc\n", "line 1 is 'abc'; expected YTID, start seconds"),
        ("audioset", SEGMENTS, "# x\nabc, soon, 3\n", "line 2 is 'abc, soon, 3'"),
        ("audioset", SEGMENTS, "abc, 0.000, 10.000\n", "not laid out as"),
        ("musdb", "test/A - B.stem.mp4", "", "not the .stem.mp4 files of MUSDB18"),
        ("seed-tts-eval", "en/meta.lst", "a|b\n", "line 1 is 'a|b'; expected name|prompt text"),
        ("seed-tts-eval", "en/meta.lst", "a|b|prompt-wavs/b.wav|c\n", "with prompt-wavs/"),
        ("seed-tts-eval", "meta.lst", "a|b|prompt-wavs/b.wav|c\n", "expected en/meta.lst"),
    ],
)
def test_a_folder_that_is_nearly_one_is_refused(name, file, content, message, tmp_path):
    path = tmp_path / "set" / file
    path.parent.mkdir(parents=True)
    path.write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(InputError) as caught:
        write_manifest(name, tmp_path / "set", tmp_path / "m.jsonl")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "m.jsonl").exists()


def test_a_relative_folder_is_read_as_its_absolute_one(tmp_path, monkeypatch):
    touch(tmp_path / "test-clean" / "61" / "70968" / "61-70968.trans.txt", "61-70968-0000 YES\n")
    touch(tmp_path / "test-clean" / "61" / "70968" / "61-70968-0000.flac")
    monkeypatch.chdir(tmp_path / "test-clean" / "61")
    write_manifest("librispeech", Path(), tmp_path / "m.jsonl")
    (clip,) = read_manifest(tmp_path / "m.jsonl", split="test-clean")
    assert clip.path.is_file()


def test_an_unknown_set_or_folder_is_refused(tmp_path):
    with pytest.raises(InputError, match="expected librispeech, aishell2"):
        write_manifest("vctk", tmp_path, tmp_path / "m.jsonl")
    with pytest.raises(InputError, match="is not a folder; expected MUSDB18-HQ"):
        write_manifest("musdb", tmp_path / "absent", tmp_path / "m.jsonl")
