"""Shards that were altered or made to harm, and shards as other tools read them."""

import json
import tarfile

import numpy as np
import pandas
import pyarrow.parquet
import pytest
from bulk_codec import ToyChoice
from short_clips import SMALL

from moss_audio_tokenizer.bulk import Tokenizing, detokenize, tokenize
from moss_audio_tokenizer.codes.shards import read_shards
from moss_audio_tokenizer.errors import CodesFileError


def test_pandas_and_pyarrow_read_the_folder_of_shards(finished):
    clips = list(read_shards(finished))
    for table in (
        pandas.read_parquet(finished / "shards"),
        pyarrow.parquet.read_table(finished / "shards").to_pandas(),
    ):
        assert sorted(table["name"]) == sorted(clip.name for clip in clips)
        first = table[table["name"] == clips[0].name].iloc[0]
        assert np.array_equal(np.stack(first["codes"]), clips[0].codes.codes)


def test_folders_of_earlier_versions_are_read_and_resumed(manifest, finished, clean):
    for path in (clean / "shards").glob("_*.json"):
        path.rename(path.with_name(path.name[1:]))
    assert [clip.name for clip in read_shards(clean)] == [c.name for c in read_shards(finished)]
    settings = Tokenizing(str(manifest), **SMALL)
    assert tokenize(settings, clean, ToyChoice(), workers=1, resume=True)["clips"] == 28
    assert not list((clean / "shards").glob("_*.json"))


@pytest.mark.parametrize("name", ["../../clean/shards/train-000000", "/x", "other", 7, None])
def test_a_shard_that_names_another_path_is_refused(clean, tmp_path, name):
    path = clean / "shards" / "_train-000000.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"name": name}))
    before = set(tmp_path.rglob("*"))
    with pytest.raises(CodesFileError, match="no manifest of a shard"):
        detokenize(clean, tmp_path / "home" / "out", ToyChoice(), workers=1)
    assert set(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    "changes",
    [
        {"clips": "many"},
        {"clips": -1},
        {"clips": 10**400},
        {"clips": 1.5},
        {"seconds": "1"},
        {"seconds": 10**400},
        {"split": ["train"]},
        {"head": {}},
        {"head": None},
        {"file": 3},
        {"file": "x" * 5000},
        {"file": "a\0b"},
    ],
)
def test_manifests_with_wrong_values_are_refused(clean, changes):
    path = clean / "shards" / "_train-000000.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(CodesFileError):
        len(read_shards(clean))


@pytest.mark.parametrize("value", [None, True, -1, 0, 1.5, 10**400, "x", [], {"a": {}}])
def test_heads_with_wrong_values_are_refused(clean, value):
    path = clean / "shards" / "_train-000000.json"
    manifest = json.loads(path.read_text())
    for key in manifest["head"]:
        wrong = ["x"] if (key, value) == ("model", "x") else value
        path.write_text(json.dumps(manifest | {"head": manifest["head"] | {key: wrong}}))
        with pytest.raises(CodesFileError, match="does not describe codes"):
            read_shards(clean)


@pytest.mark.parametrize("shard_format", ["webdataset", "moss"])
def test_one_damaged_clip_costs_itself(manifest, tmp_path, shard_format):
    settings = Tokenizing(str(manifest), shard_format=shard_format, shard_hours=1.0)
    tokenize(settings, tmp_path / "codes", ToyChoice(), workers=1)
    (shard,) = (p for p in (tmp_path / "codes" / "shards").glob("train-*") if p.suffix != ".json")
    if shard_format == "moss":
        path, place = shard / "00000001.moss", -3
    else:
        with tarfile.open(shard) as tar:
            member = tar.getmember("00000001.moss")
        path, place = shard, member.offset_data + member.size - 3
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)
    shards = read_shards(tmp_path / "codes", ["train"])
    with pytest.raises(CodesFileError, match=r"00000001\.moss"):
        shards[1]
    assert [shards[number].name for number in (0, 2)]
    summary = detokenize(tmp_path / "codes", tmp_path / "sound", ToyChoice(), workers=1)
    assert (summary["clips"], summary["errors"]) == (27, 1)
    (error,) = map(json.loads, (tmp_path / "sound" / "errors.jsonl").read_text().splitlines())
    assert error["clip"] == 1
    lines = (tmp_path / "sound" / "manifest.jsonl").read_text().splitlines()
    assert len(lines) == len(list((tmp_path / "sound").rglob("*.flac"))) == 27
