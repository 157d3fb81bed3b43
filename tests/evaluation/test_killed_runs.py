"""Runs over a manifest that are killed: their processes end, and their folders can go on."""

import os
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
from toy_codecs import Slow, byte_codec

from moss_audio_tokenizer.evaluation import Plan, run_evaluation, write_results
from moss_audio_tokenizer.manifest import read_manifest

pytest.importorskip("pystoi")

FEW = ("si_sdr", "stoi", "mel_distance")
TIMEOUT_SECONDS = 60
IMPORTS = """
import sys
from functools import partial
from pathlib import Path
from toy_codecs import Sleepy, Slow, byte_codec
from moss_audio_tokenizer.evaluation import Plan, run_evaluation
from moss_audio_tokenizer.manifest import read_manifest

"""
SLEEPING = """
if __name__ == "__main__":
    folder = Path(sys.argv[2])
    clips = read_manifest(sys.argv[1], domain="speech", split="valid")[:2]
    plan = Plan(clips, [partial(Sleepy, folder)], ("si_sdr",), jobs=2)
    run_evaluation(plan, folder, lambda *_: None)
"""
WORKING = """
if __name__ == "__main__":
    clips = read_manifest(sys.argv[1], split="valid")
    openers = [partial(byte_codec, 1, 2), Slow]
    plan = Plan(clips, openers, ("si_sdr", "stoi", "mel_distance"), jobs=int(sys.argv[3]))
    run_evaluation(plan, Path(sys.argv[2]), lambda *_: None)
"""


def kill_when(program, arguments, is_time, folder):
    """Run a program, and kill it when a function says that it is time."""
    path = folder / "program.py"
    path.write_text(IMPORTS + program, encoding="utf-8")
    paths = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    killed = subprocess.Popen(
        [sys.executable, path, *arguments], env=os.environ | {"PYTHONPATH": paths}
    )
    wait_until(is_time, seconds=0.01)
    killed.kill()
    killed.wait()


def wait_until(is_time, seconds):
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while not is_time():
        assert time.monotonic() < deadline
        time.sleep(seconds)


def is_alive(pid):
    try:
        # A process that has ended but was not waited for is a zombie: dead all the same.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.skipif(not Path("/proc/self/stat").is_file(), reason="no /proc to look into")
def test_when_a_run_is_killed_its_processes_end_too(manifest, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    kill_when(SLEEPING, [manifest, folder], lambda: len(list(folder.glob("*.pid"))) == 2, tmp_path)
    pids = [path.stem for path in folder.glob("*.pid")]
    wait_until(lambda: not any(map(is_alive, pids)), seconds=0.05)


def files_of(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.*")}


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_killed_run_that_goes_on_leaves_the_files_of_a_whole_one(manifest, tmp_path, jobs):
    pytest.importorskip("matplotlib")
    results = tmp_path / "killed" / "results.jsonl"
    kill_when(
        WORKING,
        [manifest, results.parent, str(jobs)],
        lambda: results.is_file() and results.stat().st_size,
        tmp_path,
    )
    # As files are called until they are whole; this one may not have been hit.
    (results.parent / "audio").mkdir(exist_ok=True)
    (results.parent / "audio" / ".moss-0123.partial").touch()
    clips = read_manifest(manifest, split="valid")
    plan = Plan(clips, [partial(byte_codec, 1, 2), Slow], FEW, num_examples=4)
    calls = []
    for name in ("killed", "whole"):
        outcome = run_evaluation(plan, tmp_path / name, lambda done, total: calls.append(done))
        write_results(tmp_path / name, outcome, clips, "title", "command")
    assert 0 < calls[0] < 8
    assert files_of(tmp_path / "killed") == files_of(tmp_path / "whole")
