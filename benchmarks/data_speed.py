"""How fast training data come: from memory, from files, and from shards, with and without workers.

    python benchmarks/data_speed.py MANIFEST [--shards FOLDER] [--workers 0 --workers 2]

Of batches of 16 crops of 1.28 s at 24 kHz mono: audio seconds a second, and what a step costs the
loop's own process; of batches of 60 s of whole utterances and crops: audio seconds a second.
Without a manifest, as `make bench` calls it, nothing is measured.
"""

import argparse
import itertools
import time
from collections.abc import Sequence

from moss_audio_tokenizer.training.data.audio_data import AudioData
from moss_audio_tokenizer.training.data.data_config import DataConfig

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
    print("| from | workers | crops, audio s/s | loop, CPU ms/step | utterances, audio s/s |")
    print("| --- | --- | --- | --- | --- |")
    for name, (path, hours) in places.items():
        for workers in [0] if name == "memory" else options.workers or [0, 2]:
            keys = {"manifest": path, "cache_hours": hours, "workers": workers}
            crops, loop = _speed(DataConfig(**keys, **_CROPS), options.steps)
            texts, _ = _speed(DataConfig(**keys, **_TEXTS), options.steps)
            print(f"| {name} | {workers} | {crops:,.0f} | {loop:.1f} | {texts:,.0f} |")
    return 0


def _speed(config: DataConfig, steps: int) -> tuple[float, float]:
    """Audio seconds a second after the first batch, and this process's CPU time of a step."""
    batches = AudioData(config, _RATE, 1, _FRAME_SAMPLES, seed=0).batches(0)
    next(batches)
    wall, own = time.perf_counter(), time.process_time()
    seconds = sum(float(batch.lengths.sum()) / _RATE for batch in itertools.islice(batches, steps))
    wall, own = time.perf_counter() - wall, time.process_time() - own
    batches.close()
    return seconds / wall, own / steps * 1000


if __name__ == "__main__":
    raise SystemExit(main())
