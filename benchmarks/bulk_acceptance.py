"""The acceptance run of whole data sets: killed three times, resumed, and the same bytes.

    python benchmarks/bulk_acceptance.py [--clips 1000] [--engine local] [--engine ray]

Makes a data set of short noises, some of whose files are cut short, and tokenizes it with the
bundled model: once undisturbed by one local worker, then by two workers on each engine, where the
run and all its processes are killed (SIGKILL) at random moments between two shards and resumed.
Every file of the result must be equal to that of the first run, each clip coded once, and the
corrupt ones listed. Prints a line a check and a verdict; the exit status is 1 if one fails.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from moss_audio_tokenizer import save_audio
from moss_audio_tokenizer.codes.shards import read_shards

_RATE = 16_000
_PROGRAM = """
import sys
from moss_audio_tokenizer.bulk import Tokenizing, tokenize
if __name__ == "__main__":
    manifest, output, engine, workers, shard_clips = sys.argv[1:]
    settings = Tokenizing(manifest, shard_format="webdataset", shard_clips=int(shard_clips))
    tokenize(settings, output, engine=engine, workers=int(workers), resume=True)
"""
# Bounds a run that hangs; with Ray a cluster starts each time.
_LONGEST_SECONDS = 1800


class Run:
    """A run in a process group of its own, which can be started again and again.

    Args:
        arguments: of the program: manifest, output, engine, workers and clips a shard.
    """

    def __init__(self, *arguments: object) -> None:
        self.output = Path(str(arguments[1]))
        self._command = [sys.executable, "program.py", *map(str, arguments)]
        self._folder = self.output.parent
        (self._folder / "program.py").write_text(_PROGRAM, encoding="utf-8")

    @property
    def shards(self) -> int:
        """Shards that are whole."""
        return len(list(self.output.glob("shards/_*.json")))

    def start(self) -> subprocess.Popen[bytes]:
        """Begin or go on."""
        return subprocess.Popen(self._command, cwd=self._folder, start_new_session=True)

    def finish(self) -> None:
        """Go on to the end.

        Raises:
            CalledProcessError: it failed.
        """
        status = self.start().wait(_LONGEST_SECONDS)
        if status:
            raise subprocess.CalledProcessError(status, self._command)

    def kill_after(self, new_shards: int, delay_seconds: float) -> None:
        """Go on until so many shards more are there, a while longer, and no further."""
        process, wanted = self.start(), self.shards + new_shards
        deadline = time.monotonic() + _LONGEST_SECONDS
        while self.shards < wanted and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.005)
        time.sleep(delay_seconds)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def make_clips(folder: Path, count: int, corrupt: int) -> Path:
    """Noises of 0.2 to 0.6 s, some cut short; returns their manifest."""
    folder.mkdir()
    noise, lines = np.random.default_rng(0), []
    bad = set(np.linspace(0, count - 1, corrupt, dtype=int).tolist())
    for number in range(count):
        path = folder / f"{number:05d}.wav"
        samples = noise.uniform(-0.3, 0.3, (1, int(noise.integers(3200, 9600))))
        save_audio(path, samples.astype(np.float32), _RATE)
        if number in bad:
            path.write_bytes(path.read_bytes()[:1000])
        lines.append(json.dumps({"path": path.name, "seconds": samples.shape[1] / _RATE}))
    (folder / "manifest.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return folder / "manifest.jsonl"


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a run's result by its name, without its lock."""
    paths = (path for path in folder.rglob("*") if path.is_file() and path.name != "run.lock")
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def checks(clean: Path, killed: Path, clips: int, corrupt: int) -> dict[str, bool]:
    """What must hold of a run that was killed, each with whether it does."""
    summary = json.loads((killed / "summary.json").read_text(encoding="utf-8"))
    names = [clip.name for clip in read_shards(killed)]
    counts = (summary["clips"], summary["errors"])
    return {
        f"{counts[0]} clips and {counts[1]} errors": counts == (clips - corrupt, corrupt),
        "every clip once": len(names) == len(set(names)) == clips - corrupt,
        "all files equal to those of the clean run": contents(killed) == contents(clean),
    }


def accept(
    folder: Path, clips: int, corrupt: int, engines: Sequence[str], kills: int, seed: int = 0
) -> bool:
    """Do it all in an empty folder and print what was found; whether all checks hold."""
    manifest, chance = make_clips(folder / "data", clips, corrupt), random.Random(seed)  # noqa: S311
    shard_clips = max(1, clips // 60)
    Run(manifest, folder / "clean", "local", 1, shard_clips).finish()
    passed = True
    for engine in engines:
        run = Run(manifest, folder / engine, engine, 2, shard_clips)
        deaths, started = 0, time.perf_counter()
        for _ in range(kills):
            run.kill_after(chance.randint(1, 3), chance.uniform(0, 3e-4 * clips))
            deaths += not (run.output / "summary.json").exists()
        run.finish()
        print(f"{engine}: {time.perf_counter() - started:.0f} s")
        found = {f"killed {deaths} times before its end": deaths == kills}
        for what, holds in (found | checks(folder / "clean", run.output, clips, corrupt)).items():
            print(f"{engine}: {'ok' if holds else 'FAILED'}: {what}")
            passed = passed and holds
    print("accepted" if passed else "NOT accepted")
    return passed


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line; 0 if all is well."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--clips", type=int, default=1000)
    parser.add_argument("--corrupt", type=int, default=5)
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--engine", action="append", choices=("local", "ray"))
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    engines = options.engine or ("local",)
    with tempfile.TemporaryDirectory() as folder:
        sizes = (options.clips, options.corrupt, engines, options.kills, options.seed)
        return 0 if accept(Path(folder), *sizes) else 1


if __name__ == "__main__":
    raise SystemExit(main())
