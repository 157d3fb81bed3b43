"""`moss-audio tokenize`, `detokenize` and `stats`: a whole data set to shards of codes, and back.

Owns options and looks; the work is `bulk`'s.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import display, loading, options

if TYPE_CHECKING:
    from ..bulk.tokenizing import Progress

_ERRORS_NAME = "errors.jsonl"
_NOT_SHOWN = ("head", "sha256", "speed", "hours")

DataSet = Annotated[
    str,
    typer.Argument(
        metavar="MANIFEST_OR_FOLDER",
        help="JSON-lines manifest; or a folder of sound files, of WebDataset shards, or of a "
        "Hugging Face data set (Parquet or Arrow).",
    ),
]
ShardFormat = Annotated[
    str, typer.Option("--format", metavar="FORMAT", help="parquet, webdataset, or moss (folders).")
]
Loaders = Annotated[
    int, options.at_least(1, "Threads of each worker that decode sound.", metavar="N")
]
Batching = Annotated[
    str | None,
    typer.Option(
        metavar="B",
        show_default="exact; together on a GPU",
        help="exact: every clip by itself; together: the clips of a batch at once, faster, "
        "and a few codes may round another way.",
    ),
]
BatchSeconds = Annotated[
    float | None,
    options.at_least(
        0.08,
        "Audio that is loaded, and computed together, at once.",
        metavar="S",
        show_default="16; 120 on a GPU",
    ),
]


def tokenize(
    source: DataSet,
    output: options.OutputFolder,
    model: options.Model = "bundled",
    num_quantizers: options.NumQuantizers = None,
    kbps: options.Kbps = None,
    engine: options.Engine = "local",
    resume: options.Resume = False,
    split: options.Splits = None,
    shard_format: ShardFormat = "parquet",
    workers: options.Workers = None,
    loaders: Loaders = 1,
    device: options.Device = "cpu",
    backend: options.Backend = None,
    compute_dtype: options.ComputeDtype = "fp32",
    attention: options.Attention = None,
    batching: Batching = None,
    batch_seconds: BatchSeconds = None,
    shard_hours: Annotated[float, typer.Option(metavar="H", help="Audio in a shard.")] = 0.5,
    shard_clips: Annotated[int, options.at_least(1, "Most clips in a shard.", metavar="N")] = 5000,
    domain: options.Domain = "speech",
    ray_address: options.RayAddress = "",
    gpus: options.Gpus = None,
    as_json: options.Json = False,
) -> None:
    """Turn a data set into shards of codes.

    A run that is killed at any moment resumes to the same shards, byte for byte.

    Example: moss-audio tokenize data/manifest.jsonl -o codes --workers 8
    """
    from ..bulk import Tokenizing, tokenize
    from ..bulk.shard_plan import CPU_BATCH_SECONDS, GPU_BATCH_SECONDS

    on_cpu = device == "cpu"
    choice = choose(model, device, compute_dtype, backend, attention)
    settings = Tokenizing(
        source,
        tuple(split or ()),
        domain,
        _layers(choice, "encoder", num_quantizers, kbps),
        shard_format,
        shard_hours,
        shard_clips,
        batch_seconds or (CPU_BATCH_SECONDS if on_cpu else GPU_BATCH_SECONDS),
        batching or ("exact" if on_cpu else "together"),
    )
    with display.progress("tokenizing") as bar:
        summary = tokenize(
            settings,
            output,
            choice,
            engine,
            workers or default_workers(device),
            loaders,
            resume,
            ray_options(ray_address, gpus, device, loaders),
            lambda progress: bar.update(bar.task_ids[0], description=_described(progress)),
        )
    _show(summary, output, as_json)


AudioFormat = Annotated[str, typer.Option("--format", metavar="FORMAT", help="flac or wav.")]


def detokenize(
    source: options.ShardsFolder,
    output: options.OutputFolder,
    model: options.Model = "bundled",
    num_quantizers: options.NumQuantizers = None,
    kbps: options.Kbps = None,
    engine: options.Engine = "local",
    resume: options.Resume = False,
    split: options.Splits = None,
    audio_format: AudioFormat = "flac",
    workers: options.Workers = None,
    device: options.Device = "cpu",
    backend: options.Backend = None,
    compute_dtype: options.ComputeDtype = "fp32",
    attention: options.Attention = None,
    ray_address: options.RayAddress = "",
    gpus: options.Gpus = None,
    as_json: options.Json = False,
) -> None:
    """Turn shards of codes back into sound, a file a clip, with a manifest.

    Example: moss-audio detokenize codes -o sound
    """
    from ..bulk import detokenize

    choice = choose(model, device, compute_dtype, backend, attention)
    with display.progress("detokenizing") as bar:
        summary = detokenize(
            source,
            output,
            choice,
            _layers(choice, "decoder", num_quantizers, kbps),
            audio_format,
            tuple(split or ()),
            engine,
            workers or default_workers(device),
            resume,
            ray_options(ray_address, gpus, device, 1),
            display.count_up(bar),
        )
    shown = {name: value for name, value in summary.items() if name != "hours"}
    shown["audio"] = display.duration(summary["hours"] * 3600)
    display.print_result(as_json, summary, shown)
    display.note_errors(summary["errors"], "clips could not be read", output / _ERRORS_NAME)


def choose(
    model: str,
    device: str,
    dtype: str,
    backend: options.BackendName | None,
    attention: options.AttentionName | None = None,
) -> Any:
    """What workers open; tests put a toy codec here."""
    from ..bulk import CodecChoice

    return CodecChoice(model, device, dtype, backend, attention)


def _layers(choice: Any, parts: str, num_quantizers: int | None, kbps: float | None) -> int:
    """Layers of codes; 0 for all. The model is opened only to turn a bitrate into layers."""
    if kbps is None:
        return num_quantizers or 0
    return loading.num_quantizers_of(num_quantizers, kbps, choice.open(parts).info) or 0


def default_workers(device: str) -> int:
    """A process for each core that this one may use; on a GPU one, which is enough to fill it."""
    from ..workers import usable_cores

    return usable_cores() if device == "cpu" else 1


def ray_options(address: str, gpus: float | None, device: str, cpus: int) -> Any:
    """Where actors of Ray run, and on what."""
    from ..bulk.job_engines import RayOptions

    share = gpus if gpus is not None else 0.0 if device == "cpu" else 1.0
    return RayOptions(address, float(cpus), share)


def _described(progress: "Progress") -> str:
    left = progress.seconds_left
    return (
        f"tokenizing: {progress.clips_so_far:,}/{progress.clips:,} clips, "
        f"{progress.hours_done:.2f} h of audio, shard {progress.shards_done}/{progress.shards}"
        + (f", {display.duration(left)} left" if left is not None else "")
    )


def _show(summary: dict[str, Any], output: Path, as_json: bool) -> None:
    shown = {name: value for name, value in summary.items() if name not in _NOT_SHOWN} | {
        "bytes": display.file_size(summary["bytes"]),
        "audio": display.duration(summary["hours"] * 3600),
        "speed": f"{summary['speed']['audio_hours_per_hour']:,.0f} times real time",
    }
    display.print_result(as_json, summary, shown)
    display.note_errors(summary["errors"], "recordings could not be used", output / _ERRORS_NAME)


Verify = Annotated[bool, typer.Option("--verify", help="Compare every shard with its hash first.")]


def stats(
    source: options.ShardsFolder,
    split: options.Splits = None,
    verify: Verify = False,
    as_json: options.Json = False,
) -> None:
    """Show hours, lengths, bitrates, and how the codebooks are used.

    Example: moss-audio stats codes
    """
    from ..bulk import shard_statistics

    with display.progress("counting") as bar:
        found = shard_statistics(source, tuple(split or ()), verify, display.count_up(bar))
    if as_json:
        display.print_json(found)
        return
    layers, groups = found.pop("layers"), found.pop("groups")
    display.print_facts(found)
    display.print_line("")
    named = [(group["split"], group["domain"], group["language"] or "-") for group in groups]
    sums = [(f"{group['clips']:,}", f"{group['hours']:.2f}") for group in groups]
    rows = [(*sum_, *names) for sum_, names in zip(sums, named, strict=True)]
    display.print_table(("clips", "hours", "split", "domain", "language"), rows)
    display.print_line("")
    numbers = [(f"{layer['bits']:.2f}", f"{layer['used']:.1%}") for layer in layers]
    by_layer = [(str(number), *row) for number, row in enumerate(numbers, 1)]
    display.print_table(("layer", "bits a code", "entries in use"), by_layer)
