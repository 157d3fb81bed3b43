"""`moss-audio bench`: how fast a model encodes and decodes on this machine, and how fast it could.

Owns the options and what is printed; `evaluation.speed` measures.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import InputError
from . import display, options
from .failures import needs_extra

if TYPE_CHECKING:
    from ..config.costs import Machine
    from ..evaluation.speed import ClipSpeed, StepSpeed


Untrained = Annotated[
    str | None,
    typer.Option(
        metavar="PRESET_OR_CONFIG",
        help="Measure fresh weights instead: a preset (v1, v2, nano, ...) or a config.json.",
    ),
]
ChunkFrames = Annotated[
    list[int] | None,
    typer.Option(
        min=1,
        max=1000,
        show_default="1, 2, 10",
        help="Frames in each step of a stream; repeatable.",
    ),
]
Streams = Annotated[
    list[int] | None,
    typer.Option(
        min=1, max=10_000, show_default="1, 4", help="Streams that step together; repeatable."
    ),
]
Seconds = Annotated[
    list[float] | None,
    options.at_least(0.08, "Lengths of whole clips in seconds; repeatable.", show_default="10"),
]
Dtype = Annotated[options.ComputeDtypeName, typer.Option(help="Precision to compute in.")]
Backend = Annotated[
    options.BackendName, typer.Option(help="What runs the model; onnx for what was exported.")
]
Output = Annotated[
    Path | None, options.output_option("DIR", "Also write bench.md and bench.json there.")
]


def bench(
    model: options.Model = "bundled",
    untrained: Untrained = None,
    chunk_frames: ChunkFrames = None,
    streams: Streams = None,
    seconds: Seconds = None,
    num_steps: Annotated[int, options.at_least(5, "Steps to time for each figure.")] = 120,
    dtype: Dtype = "fp32",
    threads: Annotated[int, options.at_least(1, "Threads on a CPU.")] = 2,
    backend: Backend = "torch",
    device: options.Device = "cpu",
    output: Output = None,
    as_json: options.Json = False,
) -> None:
    """Measure latency, real-time factors and memory, beside the machine's floor.

    Example: moss-audio bench --chunk-frames 1 --streams 1 --streams 8
    """
    if output is not None and output.exists() and not output.is_dir():
        raise InputError(
            f"{str(output)!r} is a file; expected a folder for bench.md and bench.json"
        )
    if backend == "onnx":
        codec, ceilings = _in_onnx(model, untrained, dtype, threads, device)
    else:
        codec, ceilings = _in_torch(model, untrained, dtype, threads, device)
    plan = (seconds or [10.0], chunk_frames or [1, 2, 10], streams or [1, 4], num_steps)
    machine, clips, steps = _measure(codec, ceilings, *plan)
    _report(machine, clips, steps, output, as_json)


def _in_onnx(
    model: str, untrained: str | None, dtype: str, threads: int, device: str
) -> "tuple[Any, Callable[[], Machine]]":
    """An exported model in onnxruntime, and how to measure the machine without PyTorch."""
    if untrained is not None or dtype != "fp32":
        raise InputError(
            "--backend onnx measures a model as it was exported; leave out --untrained and --dtype"
        )
    from ..evaluation.speed import measure_machine
    from ..onnx.tokenizer import OnnxCodec

    return OnnxCodec.from_pretrained(model, device, threads), lambda: measure_machine(threads)


def _in_torch(
    model: str, untrained: str | None, dtype: str, threads: int, device: str
) -> "tuple[Any, Callable[[], Machine]]":
    """A model in PyTorch, and how to measure the machine with that."""
    with needs_extra("torch", "running a model"):
        from ..hf.torch_codec import TorchCodec
        from ..runtime.hardware import measure_ceilings, use_threads
    use_threads(threads)
    if untrained is None:
        codec = TorchCodec.from_pretrained(model, device=device, compute_dtype=dtype)
    else:
        codec = TorchCodec.untrained(_configuration(untrained), device, dtype)
    return codec, lambda: measure_ceilings(codec.model.device, dtype)


def _configuration(name: str) -> Any:
    """A preset, or the codec of a released config.json."""
    from ..config import codec_config_from_released, preset

    path = Path(name)
    if not path.is_file():
        return preset(name)
    try:
        return codec_config_from_released(json.loads(path.read_text("utf-8")))
    except (ValueError, UnicodeDecodeError) as error:
        raise InputError(f"{name!r} is not a codec's config.json: {error}") from error


def _measure(
    codec: Any,
    ceilings: "Callable[[], Machine]",
    lengths: list[float],
    chunks: list[int],
    streams: list[int],
    num_steps: int,
) -> "tuple[Machine, list[ClipSpeed], list[StepSpeed]]":
    from ..evaluation.speed import measure_clips, measure_steps

    with display.progress("measuring", len(lengths) + len(chunks) * len(streams) + 1) as bar:
        machine = ceilings()
        bar.advance(bar.task_ids[0])
        clips: list[ClipSpeed] = []
        for length in lengths:
            clips += measure_clips(codec, codec.config, machine, length)
            bar.advance(bar.task_ids[0])
        steps: list[StepSpeed] = []
        for chunk in chunks:
            for count in streams:
                steps += measure_steps(codec, codec.config, machine, chunk, count, num_steps)
                bar.advance(bar.task_ids[0])
    return machine, clips, steps


def _report(
    machine: "Machine",
    clips: "list[ClipSpeed]",
    steps: "list[StepSpeed]",
    output: Path | None,
    as_json: bool,
) -> None:
    from ..evaluation import speed
    from ..files import write_file

    document = speed.as_json(machine, clips, steps)
    table = speed.as_markdown(machine, clips, steps)
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
        files = {"bench.json": json.dumps(document, indent=2) + "\n", "bench.md": table}
        for name, text in files.items():
            write_file(output / name, text)
    if as_json:
        display.print_json(document)
    else:
        display.print_line(table.rstrip())
