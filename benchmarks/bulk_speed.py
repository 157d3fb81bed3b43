"""How fast whole data sets become codes: against a plain loop over files, exact and together.

    python benchmarks/bulk_speed.py MANIFEST [--clips 400] [--longest 3.0] [--workers 2] [--ray]

The loop is what people write by hand: load, encode and save a file, then the next, on as many
threads as PyTorch takes. Both start their programs anew and both are timed as a whole, and from
the first result on (less the loading of PyTorch and the model). Audio seconds for each second of
CPU time say more where other programs run: N workers on idle cores do N times as many a second.
Without a manifest, as `make bench` calls it, nothing is measured.
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

_LOOP = """
import json, sys, time
from pathlib import Path
import torch
from moss_audio_tokenizer import AudioCodes, load_audio
from moss_audio_tokenizer.model.numpy_codec import TorchCodec
manifest, output, threads = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
torch.set_num_threads(threads)
codec = TorchCodec.from_pretrained("bundled", parts="encoder")
info = codec.info
start, own = time.perf_counter(), time.process_time()
for number, line in enumerate(manifest.read_text().splitlines()):
    audio = load_audio(json.loads(line)["path"], info.sampling_rate, info.num_channels)
    codes = codec.encode(audio)
    AudioCodes(codes, info.sampling_rate, audio.shape[1], model=info.identity).save(
        output / f"{number}.moss")
print(time.perf_counter() - start, time.process_time() - own)
"""
_BULK = """
import json, sys, time
from moss_audio_tokenizer.bulk import Tokenizing, tokenize
if __name__ == "__main__":
    manifest, output, batching, engine, workers, hours = sys.argv[1:]
    started = []
    def advance(progress):
        started.append((time.perf_counter(), progress.done_seconds))
    settings = Tokenizing(manifest, batching=batching, shard_hours=float(hours))
    summary = tokenize(settings, output, engine=engine, workers=int(workers), advance=advance)
    (first, before), (last, after) = started[0], started[-1]
    steady = (after - before) / max(last - first, 1e-9)
    print(json.dumps(summary["speed"] | {"steady": steady}))
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("manifest", nargs="?")
    parser.add_argument("--clips", type=int, default=400)
    parser.add_argument("--longest", type=float, default=3.0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--shards", type=int, default=12)
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
    seconds = sum(item["seconds"] for item in items)
    manifest = folder / "manifest.jsonl"
    manifest.write_text("".join(json.dumps(item) + "\n" for item in items))
    print(f"{len(items)} clips, {seconds:.0f} s, {os.cpu_count()} cores, {_load()} at the start")
    print("| way | audio s/s, whole | audio s/s, steady | audio s / CPU s | wall lost | CPU lost |")
    print("| --- | --- | --- | --- | --- | --- |")
    for threads in options.loop_threads or (options.workers, 1):
        output = folder / f"loop-{threads}"
        output.mkdir()
        wall, text = _timed(_LOOP, manifest, output, threads)
        steady, own = map(float, text.split())
        name = f"loop, {threads} threads"
        speeds = (seconds / wall, seconds / steady, seconds / own)
        print(f"| {name} | {' | '.join(f'{speed:.1f}' for speed in speeds)} | - | - |")
    hours = seconds / 3600 / options.shards
    for engine in ["local", "ray"] if options.ray else ["local"]:
        for batching in ("exact", "together"):
            output = folder / f"{engine}-{batching}"
            keys = (batching, engine, options.workers, hours)
            wall, text = _timed(_BULK, manifest, output, *keys)
            speed = json.loads(text.splitlines()[-1])
            own = speed["audio_seconds_per_cpu_second"]
            lost = f"{speed['share_lost']:.1%} | {speed['cpu_share_lost']:.1%}"
            name = f"{engine}, {batching}, {options.workers} workers"
            print(f"| {name} | {seconds / wall:.1f} | {speed['steady']:.1f} | {own:.1f} | {lost} |")
    print(f"{_load()} at the end")


def _short_clips(manifest: Path, count: int, longest: float) -> list[dict[str, object]]:
    items = [json.loads(line) for line in manifest.read_text().splitlines()]
    short = [item for item in items if item.get("seconds") and item["seconds"] <= longest]
    where = manifest.parent.absolute()
    return [item | {"path": str(where / item["path"]), "split": "train"} for item in short[:count]]


def _timed(program: str, *arguments: object) -> tuple[float, str]:
    environment = os.environ.copy()
    environment.pop("OMP_NUM_THREADS", None)
    with tempfile.NamedTemporaryFile("w", suffix=".py") as file:
        file.write(program)
        file.flush()
        start = time.perf_counter()
        done = subprocess.run(
            [sys.executable, file.name, *map(str, arguments)],
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        return time.perf_counter() - start, done.stdout


def _load() -> str:
    return f"load {os.getloadavg()[0]:.1f}"


if __name__ == "__main__":
    raise SystemExit(main())
