"""What bf16 and fp16 cost in codes and gain in time, on sound files.

`python benchmarks/precision.py FILE... [--threads 2] [--untrained nano-24k]` encodes each file in
float32, bf16 and fp16 with the bundled model, or with a preset's random weights, and prints, for
each precision, the share of codes that differ, the signal-to-noise ratio of decoding the same codes
against float32, and times as ratios to float32, taken in turns: whole clips, and one stream's steps
of one frame.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

import numpy as np
import torch

from moss_audio_tokenizer import load_audio
from moss_audio_tokenizer.config import preset
from moss_audio_tokenizer.hf.torch_codec import TorchCodec

DTYPES = ("fp32", "bf16", "fp16")
_TURNS = 5


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
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--untrained", metavar="PRESET")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    codecs = {dtype: open_codec(options.untrained, dtype) for dtype in DTYPES}
    info = codecs["fp32"].info
    clips = [load_audio(path, info.sampling_rate, info.num_channels) for path in options.files]
    exact = [codecs["fp32"].encode(clip) for clip in clips]
    audio = [codecs["fp32"].decode(codes) for codes in exact]
    times = times_in_turns(codecs, clips, exact)
    print("| precision | codes changed | layer 1 | audio SNR | encode | decode | 1-frame step |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for dtype, codec in codecs.items():
        codes = [codec.encode(clip) for clip in clips]
        changed = np.concatenate([(a != b) for a, b in zip(exact, codes, strict=True)], axis=1)
        ratios = [decibels(a, codec.decode(c)) for a, c in zip(audio, exact, strict=True)]
        gains = (times["fp32"] / times[dtype]).tolist()
        print(
            f"| {dtype} | {changed.mean():.2%} | {changed[0].mean():.2%} | "
            f"{'equal' if dtype == 'fp32' else f'{median(ratios):.0f} dB'} | "
            + " | ".join(f"{gain:.2f} x" for gain in gains)
            + " |"
        )
    step = 1e3 * times["fp32"][2]
    print(f"\nA step takes {step:.2f} ms in float32.")


def open_codec(preset_name: str | None, dtype: str) -> TorchCodec:
    """The bundled model, or a preset with the same random weights for every precision."""
    if preset_name is None:
        return TorchCodec.from_pretrained("bundled", compute_dtype=dtype)
    torch.manual_seed(0)
    codec = TorchCodec.untrained(preset(preset_name))
    codec.model.set_compute_dtype(dtype)
    return codec


def times_in_turns(
    codecs: dict[str, TorchCodec], clips: Sequence[np.ndarray], codes: Sequence[np.ndarray]
) -> dict[str, np.ndarray]:
    """Medians of encoding and decoding all clips, and of a step of decoding."""
    found: dict[str, list[tuple[float, float, float]]] = {dtype: [] for dtype in codecs}
    for _ in range(_TURNS):
        for dtype, codec in codecs.items():
            codec.encode(clips[0])  # so that no turn pays for what the one before left in caches
            found[dtype].append(
                (
                    seconds(lambda codec=codec: [codec.encode(clip) for clip in clips]),
                    seconds(lambda codec=codec: [codec.decode(item) for item in codes]),
                    step_seconds(codec, codes[0]),
                )
            )
    return {dtype: np.median(turns, axis=0) for dtype, turns in found.items()}


if __name__ == "__main__":
    main()
