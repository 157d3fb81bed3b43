"""How fast training data come: from memory, from files, and from shards, with and without workers.

    python benchmarks/data_speed.py MANIFEST [--shards FOLDER] [--workers 0 --workers 2]

Audio seconds a second of batches of 16 crops of 1.28 s at 24 kHz mono, and of batches of 60 s of
whole utterances and crops. Without a manifest, as `make bench` calls it, nothing is measured.
"""

import argparse
import itertools
import time
from collections.abc import Sequence

from moss_audio_tokenizer.training.data import DataConfig, TrainingData

_RATE, _FRAME_SAMPLES = 24_000, 1920
_CROPS = {"crop_seconds": 1.28, "batch_size": 16}
_TEXTS = {"text_share": 0.6, "batch_seconds": 60.0}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("manifest", nargs="?")
    parser.add_argument("--shards")
    parser.add_argument("--workers", type=int, action="append")
    parser.add_argument("--steps", type=int, default=150)
    options = parser.parse_args(arguments)
    if options.manifest is None:
        print("no MANIFEST given: nothing to measure (see --help)")
        return 0
    places = {"memory": (options.manifest, 4.0), "manifest": (options.manifest, 0.0)}
    if options.shards:
        places["shards"] = (options.shards, 0.0)
    print("| from | workers | s to start | crops, audio s/s | with utterances, audio s/s |")
    print("| --- | --- | --- | --- | --- |")
    for name, (path, hours) in places.items():
        for workers in [0] if name == "memory" else options.workers or [0, 2]:
            keys = {"manifest": path, "cache_hours": hours, "workers": workers}
            start, crops = _speed(DataConfig(**keys, **_CROPS), options.steps)
            _, texts = _speed(DataConfig(**keys, **_TEXTS), options.steps)
            print(f"| {name} | {workers} | {start:.1f} | {crops:,.0f} | {texts:,.0f} |")
    return 0


def _speed(config: DataConfig, steps: int) -> tuple[float, float]:
    """Seconds until the data are ready, and audio seconds a second after the first batch."""
    begun = time.perf_counter()
    data = TrainingData(config, _RATE, 1, _FRAME_SAMPLES, seed=0)
    ready = time.perf_counter() - begun
    batches = data.batches(0)
    next(batches)
    begun = time.perf_counter()
    seconds = sum(float(batch.lengths.sum()) / _RATE for batch in itertools.islice(batches, steps))
    speed = seconds / (time.perf_counter() - begun)
    batches.close()
    return ready, speed


if __name__ == "__main__":
    raise SystemExit(main())
