"""Plans: every clip once, and the same plan however the inputs are listed."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from short_clips import write_clips

from moss_audio_tokenizer.bulk.shard_plan import (
    Tokenizing,
    cut_batches,
    plan_shards,
    read_planned,
    write_planned,
)
from moss_audio_tokenizer.errors import BulkError, InputError
from moss_audio_tokenizer.sources.recordings import find_recordings


@given(st.lists(st.floats(0, 50), max_size=40), st.floats(0.1, 60))
def test_batches_hold_every_clip_once_and_no_more_than_they_may(seconds, limit):
    batches = cut_batches(seconds, limit)
    assert sorted(place for batch in batches for place in batch) == list(range(len(seconds)))
    for batch in batches:
        padded = len(batch) * max(seconds[place] for place in batch)
        assert len(batch) == 1 or padded <= limit


def test_batches_are_of_about_one_length():
    assert cut_batches([5.0, 1.0, 5.0, 1.0, 40.0], 10.0) == [[1, 3], [0, 2], [4]]


def lines_of(manifest):
    return find_recordings(manifest, (), "speech")[0]


def test_a_plan_does_not_depend_on_the_order_of_the_list(manifest):
    settings = Tokenizing(str(manifest), shard_hours=2 / 3600)
    lines = lines_of(manifest)
    plan = list(plan_shards(lines, settings))
    random.Random(1).shuffle(lines)
    assert list(plan_shards(lines, settings)) == plan
    names = [clip.entry.name for shard in plan for clip in shard.clips]
    assert sorted(names) == [f"{number:04d}.wav" for number in range(30)]
    assert len(plan) > 3
    assert all({clip.entry.split for clip in shard.clips} == {shard.split} for shard in plan)
    assert plan[0].name == "train-000000"
    assert plan[-1].name == f"valid-{len(plan) - 1:06d}"


def test_shards_are_full_by_seconds_or_by_clips(manifest):
    lines = lines_of(manifest)
    for shard in list(plan_shards(lines, Tokenizing("", shard_hours=2 / 3600)))[:-2]:
        assert shard.seconds - shard.clips[-1].seconds < 2.0 <= shard.seconds + 1e-6
    by_clips = plan_shards(lines, Tokenizing("", shard_clips=4))
    assert max(len(shard.clips) for shard in by_clips) == 4


def test_unstated_lengths_are_guessed_from_sizes(manifest):
    (shard,) = plan_shards(find_recordings(manifest.parent, (), "music")[0], Tokenizing(""))
    assert all(clip.seconds > 0 for clip in shard.clips)
    assert {clip.entry.domain for clip in shard.clips} == {"music"}


def test_names_of_shards_are_names_of_files(tmp_path):
    manifest = write_clips(tmp_path / "data", 10)
    text = manifest.read_text().replace('"valid"', '"a b"')
    manifest.write_text(text)
    names = [shard.name for shard in plan_shards(lines_of(manifest), Tokenizing(""))]
    assert names == ["a-b-000000", "train-000001"]


def test_a_plan_survives_its_file(manifest, tmp_path):
    for shard in plan_shards(lines_of(manifest), Tokenizing("", shard_hours=2 / 3600)):
        write_planned(tmp_path, shard)
        assert read_planned(tmp_path, shard.name) == shard
    (tmp_path / "train-000000.json").write_text("{}")
    with pytest.raises(BulkError, match="not part of a plan"):
        read_planned(tmp_path, "train-000000")


@pytest.mark.parametrize(
    ("key", "value"),
    [("shard_format", "zip"), ("batching", "some"), ("shard_hours", 0.0), ("batch_seconds", -1.0)],
)
def test_settings_that_cannot_be_are_refused(key, value):
    with pytest.raises(InputError, match="expected"):
        Tokenizing("", **{key: value})
