"""How fast whole data sets become codes: against a plain loop over files, on each runtime.

    python benchmarks/bulk_speed.py MANIFEST [--clips 400] [--longest 3.0] [--workers 2]

The loop is what people write by hand: load, encode and save a file, then the next, in PyTorch on
as many threads as it takes. Every way is a program of its own, started anew in every round, the
ways in turns, so that a machine that slows down slows all of them; figures are medians. "Whole"
is from the start of a program to its end, "steady" from the first result on. CPU time is that of
the program and all its workers, from start to end: where other programs run it says more than the
clock. Without a manifest, as `make bench` calls it, nothing is measured.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

_LOOP = """
import json, sys, time
from pathlib import Path
import torch
from moss_audio_tokenizer import AudioCodes, load_audio
from moss_audio_tokenizer.hf.torch_codec import TorchCodec
manifest, output, threads = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
torch.set_num_threads(threads)
codec = TorchCodec.from_pretrained("bundled", parts="encoder")
info = codec.info
output.mkdir()
lines = manifest.read_text().splitlines()
for number, line in enumerate(lines):
    audio = load_audio(json.loads(line)["path"], info.sampling_rate, info.num_channels)
    codes = codec.encode(audio)
    AudioCodes(codes, info.sampling_rate, audio.shape[1], model=info.identity).save(
        output / f"{number}.moss")
    if number == 0:
        start, before = time.perf_counter(), audio.shape[1]
seconds = sum(json.loads(line)["seconds"] for line in lines) - before / info.sampling_rate
print(seconds / (time.perf_counter() - start))
"""
_BULK = """
import json, sys, time
from moss_audio_tokenizer.bulk import CodecChoice, Tokenizing, tokenize
if __name__ == "__main__":
    manifest, output, batching, engine, backend, workers, hours = sys.argv[1:]
    started = []
    def advance(progress):
        started.append((time.perf_counter(), progress.done_seconds))
    settings = Tokenizing(manifest, batching=batching, shard_hours=float(hours))
    choice = CodecChoice(backend=backend)
    tokenize(settings, output, choice, engine, int(workers), advance=advance)
    (first, before), (last, after) = started[0], started[-1]
    print((after - before) / max(last - first, 1e-9))
"""


class Figures(NamedTuple):
    """What one run took.

    Attributes:
        wall: seconds from start to end.
        cpu: seconds of CPU time, of the program and its children.
        steady: audio seconds a second, from the first result on.
    """

    wall: float
    cpu: float
    steady: float


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("manifest", nargs="?")
    parser.add_argument("--clips", type=int, default=400)
    parser.add_argument("--longest", type=float, default=3.0)
    parser.add_argument("--workers", type=int, action="append")
    parser.add_argument("--shards", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--loop-threads", type=int, action="append")
    parser.add_argument("--ray", action="store_true")
    options = parser.parse_args(arguments)
    if options.manifest is None:
        print("no MANIFEST given: nothing to measure (see --help)")
        return 0
    with tempfile.TemporaryDirectory() as folder:
        _measure(options, Path(folder))
    return 0


def _measure(options: argparse.Namespace, folder: Path) -> None:
    items = _short_clips(Path(options.manifest), options.clips, options.longest)
    seconds = sum(float(item["seconds"]) for item in items)
    manifest = folder / "manifest.jsonl"
    manifest.write_text("".join(json.dumps(item) + "\n" for item in items))
    print(f"{len(items)} clips, {seconds:.0f} s, {os.cpu_count()} cores, {_load()} at the start")
    ways = _ways(options, seconds / 3600 / options.shards)
    found: dict[str, list[Figures]] = {name: [] for name in ways}
    for turn in range(options.rounds):
        for name, (program, keys) in ways.items():
            output = folder / f"{name}, {turn}"
            found[name].append(_run(program, manifest, output, *keys))
            print(f"{name}: {found[name][-1]}", file=sys.stderr)
    _print(found, seconds)
    print(f"{_load()} at the end")


def _ways(options: argparse.Namespace, hours: float) -> dict[str, tuple[str, tuple[object, ...]]]:
    """The programs to compare, each with its arguments after manifest and output."""
    ways: dict[str, tuple[str, tuple[object, ...]]] = {
        f"loop, {threads} threads": (_LOOP, (threads,))
        for threads in options.loop_threads or (os.cpu_count() or 1, 1)
    }
    for engine in ["local", "ray"] if options.ray else ["local"]:
        for backend in ("torch", "onnx"):
            for batching in ("exact", "together"):
                for workers in options.workers or (os.cpu_count() or 1,):
                    name = f"{engine}, {backend}, {batching}, {workers} workers"
                    ways[name] = (_BULK, (batching, engine, backend, workers, hours))
    return ways


def _print(found: dict[str, list[Figures]], seconds: float) -> None:
    first = next(iter(found.values()))
    print("| way | audio s/s, whole | x loop | steady | x loop | audio s / CPU s | x loop |")
    print("| --- " * 7 + "|")
    for name, figures in found.items():
        cells = []
        for key, scale in (("wall", seconds), ("steady", None), ("cpu", seconds)):
            mine, loop = (median(getattr(item, key) for item in runs) for runs in (figures, first))
            speed, times = (scale / mine, loop / mine) if scale else (mine, mine / loop)
            cells += [f"{speed:.1f}", f"{times:.2f}"]
        print(f"| {name} | {' | '.join(cells)} |")


def _short_clips(manifest: Path, count: int, longest: float) -> list[dict[str, object]]:
    items = [json.loads(line) for line in manifest.read_text().splitlines()]
    short = [item for item in items if item.get("seconds") and item["seconds"] <= longest]
    where = manifest.parent.absolute()
    return [item | {"path": str(where / item["path"]), "split": "train"} for item in short[:count]]


def _run(program: str, *arguments: object) -> Figures:
    environment = os.environ.copy()
    environment.pop("OMP_NUM_THREADS", None)
    with tempfile.NamedTemporaryFile("w", suffix=".py") as file:
        file.write(program)
        file.flush()
        command = [sys.executable, file.name, *map(str, arguments)]
        before, start = os.times(), time.perf_counter()
        done = subprocess.run(
            command, env=environment, stdout=subprocess.PIPE, text=True, check=True
        )
        wall, after = time.perf_counter() - start, os.times()
    cpu = after.children_user + after.children_system
    cpu -= before.children_user + before.children_system
    return Figures(wall, cpu, float(done.stdout.split()[-1]))


def _load() -> str:
    return f"load {os.getloadavg()[0]:.1f}"


if __name__ == "__main__":
    raise SystemExit(main())
