"""Data sets of short clips, some of them corrupt, and settings that make several shards of them."""

import json

import numpy as np
import soundfile
from bulk_codec import RATE

SMALL = {"shard_hours": 2 / 3600, "batch_seconds": 2.0}


def write_clips(folder, count, corrupt=()):
    """Clips of 0.1 to 0.6 s with a manifest; returns its path."""
    folder.mkdir(exist_ok=True)
    random = np.random.default_rng(0)
    lines = []
    for number in range(count):
        path = folder / f"{number:04d}.wav"
        samples = random.uniform(-0.5, 0.5, int(random.integers(800, 4800)))
        soundfile.write(path, samples, RATE, subtype="PCM_16")
        if number in corrupt:
            path.write_bytes(path.read_bytes()[:200])
        split = "valid" if number % 10 == 9 else "train"
        item = {"path": path.name, "text": f"clip {number}", "speaker": "ada", "split": split}
        lines.append(json.dumps(item | {"seconds": len(samples) / RATE, "licence": "CC0"}))
    (folder / "manifest.jsonl").write_text("\n".join(lines))
    return folder / "manifest.jsonl"
