"""Runs over a small data set: their result, resuming them, and what they refuse."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from bulk_codec import FRAME, LAYERS, RATE, ToyChoice
from short_clips import SMALL, write_clips

from moss_audio_tokenizer.audio import load_audio
from moss_audio_tokenizer.bulk import Tokenizing, tokenize
from moss_audio_tokenizer.codes.shards import read_shards
from moss_audio_tokenizer.errors import BulkError, CodesError, InputError


def run(manifest, output, choice=None, workers=1, resume=False, **keys):
    settings = Tokenizing(str(manifest), **(SMALL | keys))
    return tokenize(settings, output, choice or ToyChoice(), workers=workers, resume=resume)


def test_two_workers_write_the_same_bytes_and_say_how_far_they_are(
    manifest, finished, tmp_path, contents
):
    seen = []
    settings = Tokenizing(str(manifest), **SMALL)
    summary = tokenize(settings, tmp_path / "out", ToyChoice(), advance=seen.append)
    assert seen[-1].hours_done == pytest.approx(summary["hours"])
    assert contents(tmp_path / "out") == contents(finished)


def test_every_clip_is_coded_once_with_all_that_is_known_of_it(manifest, finished):
    summary = json.loads((finished / "summary.json").read_text())
    assert (summary["clips"], summary["errors"]) == (28, 2)
    clips = list(read_shards(finished))
    assert sorted(clip.name for clip in clips) == sorted(
        f"{number:04d}.wav" for number in range(30) if number not in (3, 17)
    )
    for clip in clips:
        audio = load_audio(manifest.parent / clip.name)
        codes = ToyChoice().open("encoder").encode(audio)
        assert np.array_equal(clip.codes.codes, codes)
        assert clip.codes.num_samples == audio.shape[1]
        assert clip.text == f"clip {int(clip.name[:4])}"
        assert (clip.speaker, clip.task, clip.extra) == ("ada", "asr", '{"licence": "CC0"}')


def test_corrupt_inputs_and_wrong_lines_are_listed(tmp_path):
    manifest = write_clips(tmp_path / "data", 5, corrupt=(3,))
    with manifest.open("a") as file:
        file.write('\n{"path": "none.wav"}\nno json\n')
    summary = run(manifest, tmp_path / "out")
    lines = (tmp_path / "out" / "errors.jsonl").read_text().splitlines()
    errors = [json.loads(line) for line in lines]
    assert summary["errors"] == len(errors) == 3
    assert errors[0]["line"] == 7
    assert [error["path"] for error in errors[1:]] == ["0003.wav", "none.wav"]
    assert "cut short" in errors[1]["error"]


def test_the_summary_and_the_manifests_add_up(finished):
    clean = finished
    summary = json.loads((clean / "summary.json").read_text())
    manifests = [json.loads(path.read_text()) for path in (clean / "shards").glob("_*.json")]
    assert summary["shards"] == len(manifests)
    for key in ("clips", "frames", "bytes"):
        assert summary[key] == sum(item[key] for item in manifests)
    for item in manifests:
        assert item["model"] == {
            "name": "toy",
            "revision": "toy-1",
            "dtype": "fp32",
            "device": "cpu",
            "backend": "toy",
        }
        assert item["batching"] == {"policy": "exact", "seconds": 2.0}
        assert item["head"]["axis_order"] == ["num_quantizers", "frames"]
        assert item["bytes"] == (clean / "shards" / item["file"]).stat().st_size


@pytest.mark.parametrize("shard_format", ["webdataset", "moss"])
def test_other_formats_hold_the_same(manifest, finished, tmp_path, shard_format):
    run(manifest, tmp_path / "out", shard_format=shard_format)
    ours, theirs = read_shards(tmp_path / "out"), read_shards(finished)
    assert [clip.facts for clip in ours] == [clip.facts for clip in theirs]
    assert all(a.codes == b.codes for a, b in zip(ours, theirs, strict=True))


def test_fewer_layers(manifest, tmp_path):
    summary = run(manifest, tmp_path / "out", num_quantizers=2)
    shards = read_shards(tmp_path / "out")
    assert shards.head.num_quantizers == 2
    assert {clip.codes.num_quantizers for clip in shards} == {2}
    assert summary["kbps"] == pytest.approx(2 * 4 * RATE / FRAME / 1000)


def test_a_worker_that_is_killed_costs_nothing(manifest, finished, tmp_path, contents):
    run(manifest, tmp_path / "out", ToyChoice(fatal=str(tmp_path / "died")), workers=2)
    assert (tmp_path / "died").exists()
    assert contents(tmp_path / "out") == contents(finished)


def test_workers_that_always_die_end_the_run(manifest, tmp_path):
    choice = ToyChoice(fatal=str(tmp_path / "died"), always_fatal=True)
    with pytest.raises(BulkError, match=r"died 3 times.*--resume"):
        run(manifest, tmp_path / "out", choice)


KILLED = """
import sys
from moss_audio_tokenizer.bulk import Tokenizing, tokenize
from bulk_codec import ToyChoice
if __name__ == "__main__":
    settings = Tokenizing(sys.argv[1], shard_hours=2 / 3600, batch_seconds=2.0)
    tokenize(settings, sys.argv[2], ToyChoice(delay=0.02), workers=2, resume=True)
"""


def test_runs_that_are_killed_resume_to_the_same_bytes(manifest, finished, tmp_path, contents):
    output, program = tmp_path / "killed", tmp_path / "program.py"
    program.write_text(KILLED)
    here = str(Path(__file__).parent)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([here, *sys.path])}
    for _ in range(3):
        before = len(list(output.glob("shards/_*.json")))
        process = subprocess.Popen([sys.executable, program, manifest, output], env=environment)
        while len(list(output.glob("shards/_*.json"))) <= before and process.poll() is None:
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert not (output / "summary.json").exists()
    (output / "shards" / ".moss-left.partial").write_text("what a killed worker leaves")
    assert run(manifest, output, resume=True)["clips"] == 28
    assert contents(output) == contents(finished)


def test_what_a_worker_of_a_killed_run_leaves_during_the_next_is_swept(
    manifest, finished, tmp_path, contents
):
    (tmp_path / "out" / "shards").mkdir(parents=True)
    left = tmp_path / "out" / "shards" / ".moss-left.partial"
    run(manifest, tmp_path / "out", ToyChoice(litter=str(left)), resume=True)
    assert contents(tmp_path / "out") == contents(finished)


def test_what_is_damaged_between_runs_is_done_again(manifest, clean, tmp_path, contents):
    before = contents(clean)
    (clean / "shards" / "train-000001.parquet").write_bytes(b"half")
    (clean / "shards" / "_train-000002.json").write_text("{")
    (clean / "summary.json").unlink()
    run(manifest, clean, resume=True)
    assert contents(clean) == before


def test_a_run_that_is_complete_stays_as_it_is(manifest, clean):
    times = {path: path.stat().st_mtime_ns for path in (clean / "shards").iterdir()}
    summary = run(manifest, clean, resume=True)
    assert summary["clips"] == 28
    assert {path: path.stat().st_mtime_ns for path in (clean / "shards").iterdir()} == times


def test_folders_of_others_are_refused(manifest, clean, tmp_path):
    with pytest.raises(InputError, match="--resume"):
        run(manifest, clean)
    with pytest.raises(InputError, match="begun with another num_quantizers"):
        run(manifest, clean, resume=True, num_quantizers=1)
    with pytest.raises(InputError, match="begun with another model"):
        run(manifest, clean, ToyChoice(model="other"), resume=True)
    with pytest.raises(InputError, match="other files"):
        run(manifest, manifest.parent)


def test_one_run_at_a_time(manifest, clean):
    from moss_audio_tokenizer.bulk.tokenizing_folder import RunFolder

    with (
        RunFolder(clean).claimed(resume=True),
        pytest.raises(BulkError, match="in use by another"),
    ):
        run(manifest, clean, resume=True)


def test_what_cannot_be_is_refused(manifest, tmp_path):
    with pytest.raises(CodesError, match=f"expected 1 to {LAYERS}"):
        run(manifest, tmp_path / "a", num_quantizers=LAYERS + 1)
    with pytest.raises(InputError, match="expected local, ray"):
        tokenize(Tokenizing(str(manifest)), tmp_path / "b", ToyChoice(), engine="slurm")
    corrupt = write_clips(tmp_path / "bad", 2, corrupt=(0, 1))
    with pytest.raises(InputError, match=r"none of the 2 recordings.*cut short"):
        run(corrupt, tmp_path / "c")
