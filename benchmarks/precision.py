"""What bf16 and fp16 cost in codes and gain in time: the bundled model on sound files.

`python benchmarks/precision.py FILE... [--threads 2]` encodes each file in float32, bf16 and fp16
and prints, for each precision, the share of codes that differ, the signal-to-noise ratio of
decoding the same codes against float32, and times as ratios to float32, taken in turns.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import torch

from moss_audio_tokenizer import load_audio
from moss_audio_tokenizer.model.numpy_codec import TorchCodec

DTYPES = ("fp32", "bf16", "fp16")


def seconds(work: Callable[[], object]) -> float:
    """Duration of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def decibels(reference: np.ndarray, estimate: np.ndarray) -> float:
    """Signal-to-noise ratio."""
    noise = np.square(reference - estimate).sum()
    return float(10 * np.log10(np.square(reference).sum() / max(noise, 1e-20)))


def step_seconds(codec: TorchCodec, codes: np.ndarray) -> float:
    """Median of decoding the codes frame by frame in a stream."""
    stream = codec.decoder_stream(1, 1)
    slot = stream.open()
    frames = range(codes.shape[1])
    return median(
        seconds(lambda frame=frame: stream.step({slot: codes[:, frame : frame + 1]}))
        for frame in frames
    )


def main() -> None:
    """Parse the command line and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    codecs = {d: TorchCodec.from_pretrained("bundled", compute_dtype=d) for d in DTYPES}
    info = codecs["fp32"].info
    clips = [load_audio(path, info.sampling_rate, info.num_channels) for path in options.files]
    exact = [codecs["fp32"].encode(clip) for clip in clips]
    audio = [codecs["fp32"].decode(codes) for codes in exact]
    runs = {
        dtype: [
            seconds(lambda codec=codec: [codec.encode(clip) for clip in clips]) for _ in range(5)
        ]
        for dtype, codec in codecs.items()
    }
    print("| precision | codes changed | layer 1 | audio SNR | encode | 1-frame decode step |")
    print("| --- | --- | --- | --- | --- | --- |")
    steps = {dtype: step_seconds(codec, exact[0]) for dtype, codec in codecs.items()}
    for dtype, codec in codecs.items():
        codes = [codec.encode(clip) for clip in clips]
        changed = np.concatenate([(a != b) for a, b in zip(exact, codes, strict=True)], axis=1)
        ratios = [decibels(a, codec.decode(c)) for a, c in zip(audio, exact, strict=True)]
        print(
            f"| {dtype} | {changed.mean():.2%} | {changed[0].mean():.2%} | "
            f"{'equal' if dtype == 'fp32' else f'{median(ratios):.0f} dB'} | "
            f"{median(runs['fp32']) / median(runs[dtype]):.2f} x | "
            f"{steps['fp32'] / steps[dtype]:.2f} x |"
        )


if __name__ == "__main__":
    main()
