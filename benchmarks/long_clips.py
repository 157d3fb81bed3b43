"""Cost and memory of whole clips by their length: 10 s, 60 s and 20 minutes.

`python benchmarks/long_clips.py [--threads 2]` measures a 22 M parameter codec (24 kHz mono,
windows of 10 s) with random weights, each length in a process of its own, and prints a Markdown
table. Seconds are the median of several runs; CPU seconds are less disturbed by other programs.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from statistics import median

from moss_audio_tokenizer.config import preset

LENGTHS_SECONDS = (10, 60, 1200)


def measure(work: Callable[[], object], runs: int) -> tuple[float, float]:
    """Median wall and CPU seconds of ``work``, after one run to warm up."""
    times = []
    for _ in range(runs + 1):
        wall, cpu = time.perf_counter(), time.process_time()
        work()
        times.append((time.perf_counter() - wall, time.process_time() - cpu))
    walls, cpus = zip(*times[1:], strict=True)
    return median(walls), median(cpus)


def measure_length(seconds: int, threads: int) -> dict[str, float]:
    """Encode and decode a clip of noise; costs are per second of audio."""
    import torch

    from moss_audio_tokenizer import MossAudioTokenizerConfig, MossAudioTokenizerModel

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    model = MossAudioTokenizerModel(MossAudioTokenizerConfig.from_codec_config(preset("nano-24k")))
    audio = torch.randn(1, seconds * model.sampling_rate) * 0.1
    codes = torch.randint(1024, (16, 1, round(seconds * 12.5)))
    runs = 9 if seconds <= 10 else 3 if seconds <= 60 else 1
    encode_wall, encode_cpu = measure(lambda: model.encode(audio), runs)
    decode_wall, decode_cpu = measure(lambda: model.decode(codes), runs)
    return {
        "seconds": seconds,
        "encode_rtf": encode_wall / seconds,
        "decode_rtf": decode_wall / seconds,
        "encode_cpu": encode_cpu / seconds,
        "decode_cpu": decode_cpu / seconds,
        "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
    }


def in_own_process(seconds: int, threads: int) -> dict[str, float]:
    """`measure_length` in a fresh process, for its own peak of memory."""
    command = [sys.executable, __file__, "--threads", str(threads), "--one", str(seconds)]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    result: dict[str, float] = json.loads(output)
    return result


def table(rows: list[dict[str, float]]) -> str:
    """Markdown, with each CPU cost as a ratio to the shortest clip's."""
    lines = [
        "| clip | encode RTF (CPU, ratio) | decode RTF (CPU, ratio) | peak memory |",
        "| --- | --- | --- | --- |",
    ]
    for row in rows:
        cells = [
            f"{row[f'{side}_rtf']:.4f} ({row[f'{side}_cpu']:.4f}, "
            f"{row[f'{side}_cpu'] / rows[0][f'{side}_cpu']:.2f} x)"
            for side in ("encode", "decode")
        ]
        lines.append(f"| {row['seconds']:g} s | {' | '.join(cells)} | {row['peak_gb']:.2f} GB |")
    return "\n".join(lines)


def main() -> None:
    """Parse the command line and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--one", type=int, help="measure this length only, in this process")
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure_length(options.one, options.threads)))
    else:
        print(table([in_own_process(seconds, options.threads) for seconds in LENGTHS_SECONDS]))


if __name__ == "__main__":
    main()
