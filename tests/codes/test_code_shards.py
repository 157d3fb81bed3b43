"""Shards of codes: read back as they were, at random and in order, or refused."""

import json
import sys

import numpy as np
import pytest

from moss_audio_tokenizer.codes import AudioCodes, CodecInfo
from moss_audio_tokenizer.codes.shard_formats import read_head
from moss_audio_tokenizer.codes.shards import (
    SHARD_FORMATS,
    CodedClip,
    head_values,
    read_shards,
    shard_path,
    write_shard,
)
from moss_audio_tokenizer.errors import CodesFileError, InputError, MissingDependencyError

HEAD = CodecInfo("0123456789abcdef", 8000, 1, 400, 4, 1024)


def clips(count, seed=0, **keys):
    random = np.random.default_rng(seed)
    made = []
    for number in range(count):
        frames = int(random.integers(1, 9))
        codes = AudioCodes.of_codec(
            HEAD, random.integers(0, 1024, (4, frames)), 400 * frames - number % 400
        )
        made.append(CodedClip(codes, f"{seed}-{number}", f"täxt {number}", "asr", **keys))
    return made


@pytest.fixture(params=SHARD_FORMATS)
def shard_format(request):
    return request.param


@pytest.fixture
def write(tmp_path, shard_format):
    """Write shards as `tokenize` does, with their manifests."""

    def written(*shards, head=HEAD):
        for number, content in enumerate(shards):
            name = f"train-{number:06d}"
            path = write_shard(tmp_path, name, shard_format, head, content)
            split = content[0].split if content else "train"
            item = {
                "file": path.name,
                "split": split,
                "clips": len(content),
                "head": head_values(head),
            }
            (tmp_path / f"{name}.json").write_text(json.dumps(item))
        return tmp_path

    return written


def equal(ours, theirs):
    pairs = zip(ours, theirs, strict=True)
    return all(a.codes == b.codes and a.facts == b.facts for a, b in pairs)


def test_clips_are_read_in_order_and_at_random(write):
    parts = [clips(300), clips(5, seed=1, speaker="ada", extra='{"a": 1}')]
    shards = read_shards(write(*parts))
    whole = [*parts[0], *parts[1]]
    assert len(shards) == 305
    assert shards.head == HEAD
    assert equal(shards, whole)
    assert list(shards.facts()) == [clip.facts for clip in whole]
    for place in (299, 300, 0, 304, 256, -1):
        assert equal([shards[place]], [whole[place]])
    assert equal(shards[298:302], whole[298:302])
    with pytest.raises(IndexError, match="there are 305"):
        shards[305]


def test_shards_of_splits_and_names(write):
    folder = write(clips(2), clips(3, split="valid"), [])
    assert {clip.split for clip in read_shards(folder, ["valid"])} == {"valid"}
    assert len(read_shards(folder)) == 5
    assert len(read_shards(folder, names=["train-000000"])) == 2
    with pytest.raises(InputError, match="it has train, valid"):
        read_shards(folder, ["test"])


def test_the_same_clips_are_the_same_bytes(tmp_path, shard_format):
    first = write_shard(tmp_path, "a", shard_format, HEAD, clips(20))
    second = write_shard(tmp_path, "b", shard_format, HEAD, clips(20))
    files = [sorted(path.iterdir()) if path.is_dir() else [path] for path in (first, second)]
    assert [p.read_bytes() for p in files[0]] == [p.read_bytes() for p in files[1]]


def test_a_code_in_parquet_takes_about_its_bits(tmp_path):
    codes = AudioCodes.of_codec(
        HEAD, np.random.default_rng(0).integers(0, 1024, (4, 20_000)), 8_000_000
    )
    path = write_shard(tmp_path, "a", "parquet", HEAD, [CodedClip(codes, "long")])
    assert path.stat().st_size < 1.1 * codes.codes.size * 10 / 8


def test_altered_shards_are_refused(write, shard_format):
    folder = write(clips(40))
    path = shard_path(folder, "train-000000", shard_format)
    path = path / "00000007.moss" if path.is_dir() else path
    whole = path.read_bytes()
    for place in np.linspace(0, len(whole) - 1, 60).astype(int):
        damaged = bytearray(whole)
        damaged[place] ^= 0x40
        path.write_bytes(damaged)
        try:
            found = list(read_shards(folder))
        except CodesFileError:
            continue
        # What is not covered by a checksum may be names and texts, never codes.
        assert all(a.codes == b.codes for a, b in zip(found, clips(40), strict=True))


def test_truncated_shards_are_refused(write, shard_format):
    folder = write(clips(40))
    path = shard_path(folder, "train-000000", shard_format)
    path = path / "00000007.moss" if path.is_dir() else path
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(CodesFileError, match=r"whole copy|cut short|again"):
        list(read_shards(folder))


def test_folders_without_whole_shards_are_refused(write, tmp_path):
    with pytest.raises(InputError, match="moss-audio tokenize"):
        read_shards(tmp_path)
    manifest = write(clips(1)) / "train-000000.json"
    text = manifest.read_text()
    manifest.write_text("{}")
    with pytest.raises(CodesFileError, match="no manifest"):
        read_shards(tmp_path)
    item = json.loads(text)
    item["head"]["axis_order"] = ["frames", "num_quantizers"]
    manifest.write_text(json.dumps(item))
    with pytest.raises(CodesFileError, match="axes"):
        read_shards(tmp_path)
    manifest.write_text(json.dumps(json.loads(text) | {"file": "gone.parquet"}))
    with pytest.raises(CodesFileError, match="is not there"):
        read_shards(tmp_path)


def test_shards_of_two_models_are_not_one_set(write):
    folder = write(clips(1), clips(1))
    manifest = folder / "train-000001.json"
    manifest.write_text(manifest.read_text().replace("0123456789abcdef", "fedcba9876543210"))
    with pytest.raises(CodesFileError, match="different models"):
        read_shards(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": None}, "model is not a text"),
        ({"codebook_size": 0}, "codebook_size is not a number from 1 to"),
        ({"identity": "0123456789abcdef"}, "identity is not a number"),
        ({"a\nb": 1}, "unexpected keyword argument"),
    ],
)
def test_a_head_that_describes_no_codes_is_refused_in_a_line(change, message):
    assert read_head(head_values(HEAD), "x") == HEAD
    values = {key: it for key, it in (head_values(HEAD) | change).items() if it is not None}
    with pytest.raises(
        CodesFileError, match=rf"^x does not describe codes \(.*{message}"
    ) as caught:
        read_head(values, "x")
    assert "\n" not in str(caught.value)


def test_without_pyarrow_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingDependencyError, match=r"moss-audio-tokenizer\[bulk\]"):
        write_shard(tmp_path, "a", "parquet", HEAD, clips(1))
