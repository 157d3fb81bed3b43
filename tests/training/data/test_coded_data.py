"""Batches of codes: purity, ranks, joining, versions, stored codes, and what cannot be read."""

import itertools
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from level_codec import LAYERS, STEP, LevelCodec
from small_sounds import RATE

from moss_audio_tokenizer.audio import load_audio
from moss_audio_tokenizer.codes import AudioCodes
from moss_audio_tokenizer.codes.shards import CodedClip, head_values, write_shard
from moss_audio_tokenizer.errors import (
    CodesFileError,
    ConfigError,
    InputError,
    ModelMismatchError,
    TrainingError,
)
from moss_audio_tokenizer.training.data.coded_data import CodedBatch, CodedData
from moss_audio_tokenizer.training.data.data_config import CodesDataConfig

FRAME_RATE = RATE / STEP
JOINED = {"max_join": 3, "join_share": 0.7, "text_seconds": (0.3, 4.0)}


def said(number: int, **keys) -> dict:
    return {"text": f"number {number}", "speaker": "ab"[number % 2]} | keys


def told(count: int, **keys) -> list[tuple]:
    """Clips of two speakers, 0.5 to 1.5 s long; the last is for validation."""
    lengths = np.linspace(0.5, 1.5, count).round(3)
    clips = [(f"{n}.wav", float(s), said(n, **keys)) for n, s in enumerate(lengths)]
    return [*clips, ("valid.wav", 0.7, said(99, split="valid"))]


@pytest.fixture
def make_coded(write_data):
    """CodedData of a manifest (twenty clips by default); keywords change the recipe."""

    def make(manifest=None, seed=3, rank=0, world=1, report=lambda _: None, by=None, **changes):
        if manifest is None and "sources" not in changes:
            manifest = write_data(*told(20))
        joins = {key: changes.pop(key) for key in ("join_share",) if key in changes}
        values = {"manifest": str(manifest or ""), "batch_seconds": 6.0} | changes
        codec = by or (LevelCodec() if values.get("codec") != "" else None)
        return CodedData(CodesDataConfig(**values), seed, rank, world, report, codec, **joins)

    return make


@pytest.fixture
def stored(write_data):
    """Write the manifest of twenty clips again, of .moss files; returns its path."""

    def write(codec=None, **changes) -> Path:
        codec = codec or LevelCodec()
        folder = Path(write_data(*told(20))).parent
        lines = []
        for line in (folder / "manifest.jsonl").read_text().splitlines():
            item = json.loads(line)
            codes = encoded(codec, folder / item["path"])
            item["path"] = item["path"].replace(".wav", ".moss")
            codes.save(folder / item["path"])
            lines.append(json.dumps({**item, **changes}))
        (folder / "codes.jsonl").write_text("\n".join(lines))
        return folder / "codes.jsonl"

    return write


@pytest.fixture
def sharded(write_data, tmp_path):
    """Write the twenty clips as shards of codes, .moss files and WebDataset; returns the folder."""

    def write(codec=None, formats=("moss", "webdataset")) -> Path:
        codec = codec or LevelCodec()
        folder = Path(write_data(*told(20))).parent
        clips = []
        for line in (folder / "manifest.jsonl").read_text().splitlines():
            item = json.loads(line)
            keys = {name: item[name] for name in ("text", "speaker")}
            codes = encoded(codec, folder / item["path"])
            split = item.get("split", "train")
            clips.append(CodedClip(codes, item["path"], task="asr", split=split, **keys))
        shards = tmp_path / "coded" / "shards"
        shards.mkdir(parents=True)
        parts = {
            "train-0": (formats[0], clips[:12]),
            "train-1": (formats[1], clips[12:-1]),
            "valid-0": (formats[0], clips[-1:]),
        }
        head = codec.info
        for name, (shard_format, part) in parts.items():
            path = write_shard(shards, name, shard_format, head, part)
            facts = {"file": path.name, "clips": len(part), "head": head_values(head)}
            facts |= {"name": name, "split": name.partition("-")[0]}
            (shards / f"{name}.json").write_text(json.dumps(facts))
        return shards.parent

    return write


def encoded(codec, path) -> AudioCodes:
    audio = load_audio(path, RATE, 1)
    info = codec.info
    return AudioCodes(
        codec.encode(audio),
        RATE,
        audio.shape[1],
        downsample_rate=info.downsample_rate,
        codebook_size=info.codebook_size,
        model=info.identity,
    )


def same(first: CodedBatch, second: CodedBatch) -> bool:
    return first.names == second.names and all(
        np.array_equal(one.codes, other.codes) and one.segments == other.segments
        for one, other in zip(first.rows, second.rows, strict=True)
    )


def rows_of(data: CodedData, steps: int = 16) -> list:
    return [row for step in range(steps) for row in data.batch(step).rows]


def test_a_batch_depends_on_seed_and_step_alone(make_coded):
    changes = JOINED | {"versions": 3}
    first, second = make_coded(**changes), make_coded(**changes)
    second.batch(40)
    assert same(first.batch(9), second.batch(9))
    assert not same(first.batch(9), first.batch(10))
    assert not same(first.batch(9), make_coded(seed=4, **changes).batch(9))


def test_a_row_is_the_codes_of_a_clip_and_its_text(make_coded, write_data):
    folder = Path(write_data(*told(20, text=" two\nwords "))).parent
    for row in make_coded(folder / "manifest.jsonl").batch(0).rows:
        expected = encoded(LevelCodec(), folder / row.name)
        assert row.codes.dtype == np.uint16
        assert np.array_equal(row.codes, expected.codes)
        assert row.text == "two words"
        assert [(one.text, one.frames) for one in row.segments] == [(row.text, row.num_frames)]


def test_batches_begin_at_any_step(make_coded):
    data = make_coded()
    taken = list(itertools.islice(data.batches(17), 3))
    assert all(same(batch, data.batch(17 + place)) for place, batch in enumerate(taken))


def test_steps_have_about_the_seconds_that_are_asked_for_in_rows_of_one_length(make_coded):
    data = make_coded(batch_seconds=8.0, **JOINED)
    batches = [data.batch(step) for step in range(64)]
    assert np.mean([batch.audio_seconds for batch in batches]) == pytest.approx(8.0, abs=0.5)
    assert max(batch.audio_seconds for batch in batches) < 13
    ratios = [
        max(row.num_frames for row in batch.rows) / min(row.num_frames for row in batch.rows)
        for batch in batches
    ]
    assert np.median(ratios) < 1.25


def test_steps_have_about_the_tokens_that_are_asked_for(make_coded):
    data = make_coded(batch_seconds=0.0, batch_tokens=200, **JOINED)
    sizes = []
    for step in range(64):
        rows = data.batch(step).rows
        texts = sum(len(segment.text) for row in rows for segment in row.segments)
        sizes.append(texts + sum(row.num_frames for row in rows))
    assert np.mean(sizes) == pytest.approx(200, rel=0.05)
    assert max(sizes) < 300


@pytest.mark.parametrize("world", [2, 3])
def test_ranks_share_out_the_rows_of_one(make_coded, write_data, world):
    manifest, changes = write_data(*told(20)), JOINED | {"versions": 2}
    whole = make_coded(manifest, row_multiple=6, **changes)
    changes["row_multiple"] = 6 // world
    ranks = [make_coded(manifest, rank=rank, world=world, **changes) for rank in range(world)]
    for step in (0, 7, 1 << 41):
        batch, parts = whole.batch(step), [data.batch(step) for data in ranks]
        rows = tuple(row for part in parts for row in part.rows)
        assert same(CodedBatch(rows, FRAME_RATE), batch)
        assert all(same(batch.part(rank, world), part) for rank, part in enumerate(parts))


def test_a_batch_that_cannot_be_shared_out_says_what_to_set(make_coded):
    batch = make_coded().batch(0)
    with pytest.raises(TrainingError, match=r"make data\.row_multiple a multiple of 97"):
        batch.part(0, 97)


def test_clips_of_one_speaker_are_joined_in_the_order_of_their_texts(make_coded, write_data):
    folder = Path(write_data(*told(20), ("alone.wav", 0.6, {"text": "nobody"}))).parent
    rows = rows_of(make_coded(folder / "manifest.jsonl", **JOINED))
    assert {len(row.segments) for row in rows} == {1, 2, 3}
    for row in rows:
        names = row.name.split(" + ")
        assert len(set(names)) == len(names) == len(row.segments)
        parts = [encoded(LevelCodec(), folder / name).codes for name in names]
        assert np.array_equal(row.codes, np.concatenate(parts, axis=1))
        assert [segment.frames for segment in row.segments] == [part.shape[1] for part in parts]
        assert row.text == " ".join(segment.text for segment in row.segments)
        if "alone.wav" in names:
            assert names == ["alone.wav"]
            assert row.speaker == ""
        else:
            numbers = [int(name.split(".")[0]) for name in names]
            assert [segment.text for segment in row.segments] == [f"number {n}" for n in numbers]
            assert {"ab"[number % 2] for number in numbers} == {row.speaker}


def test_joined_rows_are_no_longer_than_the_longest_that_is_wanted(make_coded):
    limits = {"max_join": 9, "join_share": 1.0, "text_seconds": (0.3, 2.5), "versions": 4}
    rows = rows_of(make_coded(**limits))
    slack = max(len(row.segments) for row in rows)
    assert slack >= 3
    assert max(row.num_frames for row in rows) <= 2.5 * FRAME_RATE + slack


def test_no_more_clips_are_drawn_for_a_row_than_its_voice_has(make_coded, write_data):
    manifest = write_data(*told(6))
    data = make_coded(manifest, max_join=64, join_share=1.0, text_seconds=(0.3, 9.0))
    sizes = [len(row.segments) for row in rows_of(data, 64)]
    assert set(sizes) == {2, 3}
    assert sizes.count(2) / len(sizes) == pytest.approx(0.5, abs=0.12)


def test_clips_of_two_sources_are_not_joined(make_coded, write_data):
    first = write_data(*told(6), folder="first")
    second = write_data(*((f"x{n}.wav", 0.6, said(n)) for n in range(6)), folder="second")
    changes = JOINED | {"join_share": 1.0}
    rows = rows_of(make_coded(sources=((first, 1.0), (second, 3.0)), **changes))
    kinds = [{name.startswith("x") for name in row.name.split(" + ")} for row in rows]
    assert all(len(kind) == 1 for kind in kinds)
    seconds = dict.fromkeys((True, False), 0.0)
    for row, (kind,) in zip(rows, kinds, strict=True):
        seconds[kind] += row.num_frames
    assert seconds[True] / sum(seconds.values()) == pytest.approx(0.75, abs=0.12)


def test_versions_differ_and_are_encoded_once(make_coded):
    codec = LevelCodec()
    data = make_coded(by=codec, versions=3)
    rows = rows_of(data, 128)
    versions = {}
    for row in rows:
        versions.setdefault(row.name, set()).add(row.codes.tobytes())
    assert {len(found) for found in versions.values()} == {3}
    assert codec.encoded == 60
    lengths = {row.num_frames for row in rows if row.name == "19.wav"}
    assert len(lengths) > 1
    assert all(1.5 / 1.1 * FRAME_RATE <= frames <= 1.5 / 0.9 * FRAME_RATE + 1 for frames in lengths)


def test_what_does_not_fit_in_memory_is_encoded_again(make_coded):
    codec = LevelCodec()
    data = make_coded(by=codec, cache_hours=0.0)
    first = data.batch(0)
    assert same(first, data.batch(0))
    assert codec.encoded == 2 * len(first.rows)


def test_clips_without_a_text_of_one_speaker_or_of_other_lengths_are_left_out(
    make_coded, write_data
):
    manifest = write_data(
        ("good.wav", 1.0, {"text": "yes"}),
        ("mute.wav", 1.0, {"text": "  "}),
        ("none.wav", 1.0, {}),
        ("heard.wav", 1.0, {"text": "a dog barks", "task": "caption"}),
        ("short.wav", 0.2, {"text": "no"}),
        ("long.wav", 2.5, {"text": "no"}),
    )
    data = make_coded(manifest, text_seconds=(0.3, 2.0))
    assert (data.num_clips, data.num_used) == (6, 1)
    assert {row.name for row in data.batch(0).rows} == {"good.wav"}
    with pytest.raises(TrainingError, match=r"none of the 6 .* 3 to 4 s; set data\.text_seconds"):
        make_coded(manifest, text_seconds=(3.0, 4.0))


def test_speakers_are_filtered_as_in_other_data(make_coded):
    data = make_coded(speakers=("a",))
    assert {row.speaker for row in rows_of(data)} == {"a"}
    with pytest.raises(TrainingError, match=r"set data\.speakers"):
        make_coded(speakers=("c",))


def test_stored_codes_are_what_the_codec_makes(make_coded, stored, sharded):
    encoding = make_coded(versions=1, **JOINED)
    for place in (stored(seconds=None), sharded()):
        codec = LevelCodec()
        data = make_coded(place, by=codec, **JOINED)
        assert data.num_clips == 20
        for step in range(4):
            made, read = encoding.batch(step), data.batch(step)
            assert [row.text for row in made.rows] == [row.text for row in read.rows]
            assert all(map(np.array_equal, *zip(*codes_of(made, read), strict=True)))
        assert [row.text for row in data.valid(5)] == ["number 99"]
        assert codec.encoded == 0


def codes_of(first: CodedBatch, second: CodedBatch) -> list[tuple]:
    return [(one.codes, other.codes) for one, other in zip(first.rows, second.rows, strict=True)]


def test_no_codec_is_needed_where_all_codes_are_stored(make_coded, stored, write_data):
    data = make_coded(stored(), codec="")
    assert data.info == LevelCodec().info
    assert data.batch(0).audio_seconds > 0
    with pytest.raises(ConfigError, match=r"data\.codec is empty"):
        make_coded(write_data(*told(3)), codec="")


def test_sound_and_codes_can_be_mixed(make_coded, stored, write_data):
    codec = LevelCodec()
    sources = ((str(stored()), 1.0), (write_data(*told(4), folder="sound"), 1.0))
    data = make_coded(by=codec, sources=sources, versions=2)
    names = {row.name.split(".")[1] for row in rows_of(data, 32)}
    assert names == {"moss", "wav"}
    assert codec.encoded == 8


def test_codes_of_another_model_are_refused(make_coded, stored, sharded):
    other = LevelCodec(identity="fedcba9876543210")
    for place in (stored(other), sharded(other)):
        with pytest.raises(ModelMismatchError, match=r"fedcba.*expected 0123.*set data\.codec"):
            make_coded(place)
        assert make_coded(place, codec="").info.identity == other.info.identity


def test_one_file_of_another_model_ends_the_run_when_it_is_drawn(make_coded, stored):
    manifest = stored()
    path = manifest.parent / "7.moss"
    replace(AudioCodes.load(path), model="fedcba9876543210").save(path)
    data = make_coded(manifest)
    with pytest.raises(ModelMismatchError, match=r"7\.moss' holds codes of another model"):
        rows_of(data)


def test_layers_are_those_that_all_sources_have(make_coded, stored):
    few = make_coded(str(stored(LevelCodec(layers=2))))
    assert few.info.num_quantizers == few.batch(0).rows[0].codes.shape[0] == 2
    assert make_coded().info.num_quantizers == LAYERS


def test_a_file_with_fewer_layers_than_the_others_is_skipped(make_coded, stored):
    manifest, lines = stored(), []
    path = manifest.parent / "7.moss"
    AudioCodes.load(path).first(1).save(path)
    rows = rows_of(make_coded(manifest, report=lines.append))
    assert "7.moss" not in {row.name for row in rows}
    assert len(lines) == 1
    assert "has 1 layers; expected at least 3" in lines[0]


@pytest.mark.parametrize("kind", ["sound", "codes"])
def test_a_file_that_cannot_be_read_is_named_once_and_replaced(make_coded, stored, kind):
    lines = []
    manifest = stored()
    broken = manifest.parent / ("7.wav" if kind == "sound" else "7.moss")
    broken.write_bytes(b"nothing of use")
    place = manifest.parent / "manifest.jsonl" if kind == "sound" else manifest
    changes = JOINED | {"max_unreadable_share": 0.1}
    data, again = (
        make_coded(place, report=report, **changes) for report in (lines.append, lambda _: None)
    )
    rows = rows_of(data)
    assert not any(broken.name in row.name.split(" + ") for row in rows)
    assert list(data.unreadable) == [str(broken)]
    assert len(lines) == 1
    assert same(again.batch(15), data.batch(15))


def test_too_many_broken_files_end_the_run(make_coded, stored):
    manifest = stored()
    for number in range(0, 20, 5):
        (manifest.parent / f"{number}.moss").write_bytes(b"nothing of use")
    with pytest.raises(TrainingError, match=r"cannot be read.*max_unreadable_share"):
        rows_of(make_coded(manifest, max_unreadable_share=0.1))
    assert rows_of(make_coded(manifest, max_unreadable_share=0.2))


def test_a_clip_that_is_longer_than_its_manifest_says_is_skipped(make_coded, write_data):
    clips = told(8)
    clips[3] = ("3.wav", 2.0, said(3))
    manifest = Path(write_data(*clips))
    lines = [json.loads(line) for line in manifest.read_text().splitlines()]
    lines[3]["seconds"] = 1.0
    manifest.write_text("\n".join(map(json.dumps, lines)))
    data = make_coded(manifest, max_unreadable_share=0.5)
    assert "3.wav" not in {row.name for row in rows_of(data)}
    (reason,) = data.unreadable.values()
    assert "is 2.00 s long, and its manifest says 1 s" in reason


def test_damaged_shards_are_refused_or_their_clips_skipped(make_coded, sharded):
    folder = sharded(formats=("moss", "moss"))
    damaged = sorted((folder / "shards" / "train-1.codes").rglob("*.moss"))[0]
    damaged.write_bytes(damaged.read_bytes()[:-1])
    data = make_coded(folder, max_unreadable_share=0.5)
    assert rows_of(data)
    assert any("train-1.codes" in reason for reason in data.unreadable.values())
    for path in (folder / "shards" / "train-1.codes").iterdir():
        path.unlink()
    with pytest.raises(CodesFileError, match=r"train-1"):
        make_coded(folder)


def test_validation_rows_are_whole_clips_as_they_are_spread_over_the_split(make_coded, write_data):
    clips = [(f"v{n}.wav", 0.5 + n / 20, said(n, split="valid")) for n in range(10)]
    folder = Path(write_data(*clips, *told(5)[:4])).parent
    (folder / "v9.wav").write_bytes(b"nothing of use")
    lines = []
    data = make_coded(folder / "manifest.jsonl", versions=4, report=lines.append, **JOINED)
    rows = data.valid(4)
    assert [row.name for row in rows] == ["v0.wav", "v3.wav", "v6.wav"]
    assert np.array_equal(rows[1].codes, encoded(LevelCodec(), folder / "v3.wav").codes)
    assert any("v9.wav" in line for line in lines)
    assert len(data.valid(100)) == 9
    assert data.valid(0) == []


def test_no_split_for_validation_gives_no_rows(make_coded, write_data):
    assert make_coded(write_data(*told(4)[:4])).valid(3) == []


def test_a_folder_without_shards_of_codes_is_taken_for_one_of_sound(make_coded, tmp_path):
    (tmp_path / "summary.json").write_text("{}")
    with pytest.raises(InputError, match="has no sound files"):
        make_coded(tmp_path)


def test_shards_without_the_split_say_what_they_have(make_coded, sharded):
    folder = sharded()
    for path in (folder / "shards").glob("train-*.json"):
        path.unlink()
    with pytest.raises(InputError, match=r"no codes of split 'train'; it has valid"):
        make_coded(folder)


def test_sound_is_encoded_by_the_model_of_the_recipe(write_data):
    from moss_audio_tokenizer.hf.torch_codec import TorchCodec

    folder = Path(write_data(*told(4))).parent
    config = CodesDataConfig(manifest=str(folder / "manifest.jsonl"), batch_seconds=2.0)
    data = CodedData(config, 0, report=lambda _: None)
    codec = TorchCodec.from_pretrained("bundled", parts="encoder")
    assert data.info == codec.info
    for row in data.batch(0).rows:
        audio = load_audio(folder / row.name, codec.info.sampling_rate, 1)
        assert np.array_equal(row.codes, codec.encode(audio))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"versions": 0}, "versions is 0"),
        ({"versions": 10_001}, "versions is 10001; expected 1 to 10000"),
        ({"max_join": 0}, "max_join is 0"),
        ({"max_join": 65}, "max_join is 65; expected 1 to 64"),
        ({"row_multiple": 0}, "row_multiple is 0"),
        ({"noise_db": (-3.0, 3.0)}, "noise_db is"),
        ({"text_seconds": (2.0, 1.0)}, "text_seconds is"),
        ({"gain_db": (-20.0, 6.0)}, "gain_db is"),
        ({"batch_seconds": 0.0}, "batch_seconds is"),
        ({"batch_tokens": 100}, "batch_seconds is 60.0; expected 0 where data.batch_tokens is set"),
        ({"batch_tokens": -1}, "batch_tokens is -1"),
        ({"manifest": "a", "sources": (("b", 1.0),)}, "use one of the two"),
    ],
)
def test_impossible_configurations_are_refused(values, message):
    with pytest.raises(ConfigError, match=message):
        CodesDataConfig(**values)


def test_a_text_that_nobody_can_say_in_the_clips_time_is_left_out(make_coded, write_data):
    clips = told(20)
    clips[3] = (*clips[3][:2], said(3, text="a b " * 200))
    lines: list[str] = []
    data = make_coded(write_data(*clips), report=lines.append)
    assert data.num_used == 19
    assert any(
        line.startswith("left out: 1 clips whose text is longer than their sound can say, such as ")
        for line in lines
    )
