"""Steps of streams in onnxruntime beside PyTorch: latency of one frame past every window.

`python benchmarks/onnx_steps.py [--threads 2] [--neighbors 1] [--model bundled]` exports each
model as it is and with an int8 decoder, and times steps of 1 frame in turns, so that a machine
that slows down slows all of them. Prints medians and, by the clock, 99th percentiles; neighbors
are other processes that keep a core busy. Needs the torch and export extras.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from moss_audio_tokenizer.codes import StreamingCodec
from moss_audio_tokenizer.config import TransformerStage, preset
from moss_audio_tokenizer.export.onnx_export import export_onnx
from moss_audio_tokenizer.hf.torch_codec import TorchCodec
from moss_audio_tokenizer.onnx.tokenizer import OnnxCodec
from moss_audio_tokenizer.runtime import inference_codec
from moss_audio_tokenizer.runtime.hardware import use_threads

_TURNS = 12


def stepper(codec: StreamingCodec, side: str, streams: int) -> Callable[[], object]:
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


def in_turns(steps: dict[str, Callable[[], object]], count: int) -> dict[str, str]:
    """Processor median, clock median and 99th percentile of each, in alternating runs."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in steps}
    for _ in range(_TURNS):
        for name, step in steps.items():
            step()
            for _ in range(count):
                busy, start = time.process_time(), time.perf_counter()
                step()
                times[name].append((time.process_time() - busy, time.perf_counter() - start))
    return {name: _summary(1e3 * np.array(found)) for name, found in times.items()}


def _summary(milliseconds: np.ndarray) -> str:
    busy, clock = milliseconds.T
    return f"{np.median(busy):.2f} / {np.median(clock):.2f} / {np.quantile(clock, 0.99):.0f}"


@contextmanager
def busy_neighbors(count: int) -> Iterator[None]:
    """Other processes that keep a core busy each."""
    command = [sys.executable, "-c", "while True: pass"]
    processes = [subprocess.Popen(command) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def codecs_of(name: str, folder: Path, threads: int) -> dict[str, StreamingCodec]:
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
    parser.add_argument("--neighbors", type=int, default=0, help="busy processes beside this one")
    parser.add_argument("--steps", type=int, default=20, help="in each turn")
    options = parser.parse_args()
    use_threads(options.threads)
    inference_codec.step_graph = lambda *_: None  # the column "torch" is PyTorch's own steps
    print(f"{options.threads} thread(s), {options.neighbors} busy neighbor(s); milliseconds of a")
    print("1-frame step past every window: processor median / clock median / clock p99\n")
    print("| model | side | streams | torch | onnx | onnx, int8 decoder |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name in options.model or ["bundled", "nano-24k"]:
        with tempfile.TemporaryDirectory() as folder:
            codecs = codecs_of(name, Path(folder), options.threads)
            for side in ("encode", "decode"):
                for streams in options.streams or [1]:
                    steps = {key: stepper(codec, side, streams) for key, codec in codecs.items()}
                    with busy_neighbors(options.neighbors):
                        found = in_turns(steps, options.steps)
                    cells = " | ".join(found[key] for key in codecs)
                    print(f"| {name} | {side} | {streams} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
