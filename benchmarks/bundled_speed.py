"""How many times faster than real time the bundled model is, on one thread.

`taskset -c 0 python benchmarks/bundled_speed.py` takes 10 s of samples/hello.flac, repeated.
"""

import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import torch

from moss_audio_tokenizer import MossAudioTokenizerModel, load_audio

SECONDS = 10
RUNS = 9
SAMPLE = Path(__file__).parents[1] / "samples" / "hello.flac"


def speed(work: Callable[[], object]) -> float:
    """Seconds of audio a second of computing: median of several runs, after one to warm up."""
    work()
    times = []
    for _ in range(RUNS):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return SECONDS / median(times)


def main() -> None:
    """Measure and print."""
    torch.set_num_threads(1)
    model = MossAudioTokenizerModel.from_pretrained("bundled")
    speech = load_audio(SAMPLE, model.sampling_rate, channels=1)
    audio = np.tile(speech, (1, 2))[:, : SECONDS * model.sampling_rate]
    codes = model.encode(audio).audio_codes
    print(f"encode {speed(lambda: model.encode(audio)):.0f} x real time")
    print(f"decode {speed(lambda: model.decode(codes)):.0f} x real time")


if __name__ == "__main__":
    main()
