"""Steps of streams in onnxruntime beside PyTorch: latency of one frame past every window.

`python benchmarks/onnx_steps.py [--threads 2] [--model bundled] [--model nano-24k]` exports each
model as it is and with an int8 decoder, and times steps of 1 frame in turns, so that a machine
that slows down slows all of them. Needs the torch and export extras.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np

from moss_audio_tokenizer.config import TransformerStage, preset
from moss_audio_tokenizer.evaluation.speed import TimedCodec
from moss_audio_tokenizer.export.folder import export_onnx
from moss_audio_tokenizer.hf.torch_codec import TorchCodec
from moss_audio_tokenizer.onnx.codec import OnnxCodec
from moss_audio_tokenizer.runtime.hardware import use_threads

_TURNS = 12


def stepper(codec: TimedCodec, side: str, streams: int) -> Callable[[], object]:
    """A step of 1 frame of some streams that are past every window already."""
    stages = [s for s in codec.config.encoder if isinstance(s, TransformerStage)]
    window = max(stage.context_seconds for stage in stages) * codec.info.frame_rate
    random = np.random.default_rng(0)
    if side == "encode":
        stream = codec.encoder_stream(streams, 1)
        chunk = 0.1 * random.standard_normal((codec.info.num_channels, codec.info.downsample_rate))
        chunk = chunk.astype(np.float32)
    else:
        stream = codec.decoder_stream(streams, 1)
        chunk = random.integers(codec.info.codebook_size, size=(codec.info.num_quantizers, 1))
    chunks = {stream.open(): chunk for _ in range(streams)}
    for _ in range(int(window) + 2):
        stream.step(chunks)
    return lambda: stream.step(chunks)


def in_turns(
    steps: dict[str, Callable[[], object]], count: int, clock: Callable[[], float]
) -> dict[str, float]:
    """The median milliseconds of each, measured in alternating stretches."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(_TURNS):
        for name, step in steps.items():
            step()
            for _ in range(count):
                start = clock()
                step()
                times[name].append(1e3 * (clock() - start))
    return {name: median(found) for name, found in times.items()}


def codecs_of(name: str, folder: Path, threads: int) -> dict[str, TimedCodec]:
    """A model or preset in every runtime that is compared."""
    source: str | Path = name
    if name == "bundled" or Path(name).is_dir():
        torch = TorchCodec.from_pretrained(name)
    else:
        torch = TorchCodec.untrained(preset(name))
        source = folder / "source"
        torch.model.save_pretrained(source)
    export_onnx(source, folder / "plain")
    export_onnx(source, folder / "int8", decoder="int8")
    return {
        "torch": torch,
        "onnx": OnnxCodec.from_pretrained(folder / "plain", num_threads=threads),
        "onnx, int8 decoder": OnnxCodec.from_pretrained(folder / "int8", num_threads=threads),
    }


def main() -> None:
    """Parse the command line and print a Markdown table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", action="append", help="folder, 'bundled' or preset; repeatable")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--streams", type=int, action="append", help="repeatable (default: 1)")
    parser.add_argument("--steps", type=int, default=20, help="a turn")
    options = parser.parse_args()
    use_threads(options.threads)
    # One thread's own time does not depend on who else uses the machine.
    alone = options.threads == 1
    clock = time.process_time if alone else time.perf_counter
    kind = "processor" if alone else "wall-clock"
    print(f"{options.threads} thread(s), median {kind} ms of a 1-frame step past every window\n")
    print("| model | side | streams | torch | onnx | onnx, int8 decoder |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name in options.model or ["bundled", "nano-24k"]:
        with tempfile.TemporaryDirectory() as folder:
            codecs = codecs_of(name, Path(folder), options.threads)
            for side in ("encode", "decode"):
                for streams in options.streams or [1]:
                    steps = {key: stepper(codec, side, streams) for key, codec in codecs.items()}
                    found = in_turns(steps, options.steps, clock)
                    cells = " | ".join(f"{found[key]:.2f}" for key in codecs)
                    print(f"| {name} | {side} | {streams} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
