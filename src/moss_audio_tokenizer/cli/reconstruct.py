"""`moss-audio reconstruct`: sound through codes and back, at one bitrate or several.

Owns the names of the outputs and what is printed; the report is `evaluation`'s.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import AudioFileError, InputError
from . import display, loading, options
from .failures import needs_extra, require_packages
from .file_jobs import (
    AUDIO_SUFFIXES,
    Job,
    check_outputs,
    find_inputs,
    is_pipe,
    load_sound,
    make_folders,
    notes,
    plan,
    work_through,
    write_to_pipe,
)

if TYPE_CHECKING:
    import numpy as np

    from ..codes import Codec, CodecInfo

_REPORT_SUFFIXES = (".html", ".htm")
_IN_TABLE = {"stoi": "STOI", "mel_distance": "mel distance"}


@dataclass(frozen=True)
class Version:
    """One reconstruction: what the first layers alone give back, measured if there is a report."""

    num_quantizers: int
    kbps: float
    output: Path
    audio: "np.ndarray"
    metrics: Mapping[str, float] = field(default_factory=dict)
    replaced: bool = False


@dataclass(frozen=True)
class _Result:
    """A recording as the model takes it, and what became of it.

    Attributes:
        source: the sound file.
        codec: the facts of the codec.
        samples: (channels, samples).
        mixed: what a result says of the channels, if they were mixed to mono.
        versions: by ascending number of layers.
    """

    source: Path
    codec: "CodecInfo"
    samples: "np.ndarray"
    mixed: dict[str, int]
    versions: Sequence[Version]


Report = Annotated[
    Path | None,
    typer.Option(
        "--report",
        metavar="HTML",
        readable=False,
        show_default="none",
        help="Also write a page with players, spectrograms and quality figures "
        "(needs the eval extra).",
    ),
]


Output = Annotated[
    str,
    options.output_option(
        "OUT",
        "Sound file to write, .wav or .flac; a folder (one that exists, or ends in /); or "
        "- for standard output. Several bitrates become OUT-8.wav, OUT-16.wav, ...",
    ),
]


def reconstruct(
    inputs: options.AudioInputs,
    output: Output,
    num_quantizers: options.SeveralNumQuantizers = None,
    kbps: options.SeveralKbps = None,
    model: options.Model = "bundled",
    device: options.Device = "cpu",
    backend: options.Backend = None,
    compute_dtype: options.ComputeDtype = "fp32",
    attention: options.Attention = None,
    report: Report = None,
    domain: options.Domain = "speech",
    as_json: options.Json = False,
) -> None:
    """Hear what the codec makes of a recording: encode and decode in one go.

    Example: moss-audio reconstruct song.flac -o out.wav -n 8,16,32

    As a page to listen to: moss-audio reconstruct song.flac -o out.wav --kbps 1,2,4 --report a.html
    """
    from ..audio import SOUND_SUFFIXES

    counts = list(options.quantizer_counts(num_quantizers))
    rates = options.numbers(kbps, float, "--kbps")
    found = find_inputs(inputs, SOUND_SUFFIXES, "sound files")
    several = len(counts) + len(rates) > 1
    jobs = plan(found, output, AUDIO_SUFFIXES, is_stem=several)
    _check(jobs, report, len(counts) + len(rates), as_json)
    with display.progress("loading the model"):
        codec = loading.load_codec(
            model, "all", device, backend=backend, compute_dtype=compute_dtype, attention=attention
        )
    layers = loading.several_num_quantizers(counts, rates, codec.info)
    outputs = [_output_of(job.output, count, several) for job in jobs for count in layers or [0]]
    check_outputs(outputs, [job.source for job in jobs])
    if len(jobs) > 1:

        def work(job: Job) -> dict[str, Any]:
            result = _reconstruct(codec, job, layers, several, lambda _: nullcontext())
            replaced = any(version.replaced for version in result.versions)
            written = {"output": str(result.versions[-1].output)}
            return _described(result) | written | ({"replaced": True} if replaced else {})

        work_through(jobs, "reconstructing", work, as_json)
        return
    with display.progress("encoding", 1 + max(1, len(layers))) as bar:
        result = _reconstruct(codec, jobs[0], layers, several, partial(display.one_of, bar))
    if report:
        result = _measured(result, domain)
        _write_report(report, model, result)
    if as_json:
        display.print_json(_described(result) | {"report": str(report) if report else None})
    elif not is_pipe(jobs[0].output):
        _print(result, report)


def _check(jobs: Sequence[Job], report: Path | None, num_versions: int, as_json: bool) -> None:
    """All checks that need no model."""
    to_pipe = is_pipe(jobs[0].output)
    if to_pipe and (num_versions > 1 or as_json):
        raise InputError("-o - takes one sound; give one bitrate, and no --json")
    if report is None:
        return
    if report.suffix.lower() not in _REPORT_SUFFIXES:
        raise InputError(f"--report {str(report)!r} should end in .html")
    if len(jobs) > 1:
        raise InputError(f"--report shows one recording; got {len(jobs)}")
    check_outputs([report], [jobs[0].source])
    require_packages("eval", "--report", "matplotlib", "pystoi")


def _reconstruct(
    codec: "Codec",
    job: Job,
    layers: Sequence[int],
    several: bool,
    step: Callable[[str], AbstractContextManager[None]],
) -> _Result:
    """Encode once with the most layers; fewer layers are the first of these codes."""
    info = codec.info
    audio, mixed = load_sound(job.source, info)
    layers = layers or [info.num_quantizers]
    versions = []
    with step("encoding"):
        codes = codec.encode(audio, num_quantizers=layers[-1])
    for count in layers:
        with step(f"decoding {count} layers"):
            decoded = codec.decode(codes[:count])[:, : audio.shape[1]]
        output = _output_of(job.output, count, several)
        kbps = info.bitrate(count) / 1000
        versions.append(Version(count, kbps, output, decoded, replaced=output.is_file()))
    _save(versions, info.sampling_rate)
    return _Result(job.source, info, audio, mixed, versions)


def _output_of(output: Path, num_quantizers: int, several: bool) -> Path:
    return output.with_stem(f"{output.stem}-{num_quantizers}") if several else output


def _save(versions: Sequence[Version], sampling_rate: int) -> None:
    from ..audio import encode_audio, save_audio

    if is_pipe(versions[0].output):
        write_to_pipe(encode_audio(versions[0].audio, sampling_rate, ".wav"))
        return
    make_folders(version.output for version in versions)
    for version in versions:
        save_audio(version.output, version.audio, sampling_rate)


def _measured(result: _Result, domain: str) -> _Result:
    """The same with metrics of every version."""
    from ..evaluation.metric_registry import DEFAULT_METRICS, measure, metrics_of

    names, rate = metrics_of(domain, DEFAULT_METRICS), result.codec.sampling_rate
    with display.progress("measuring"):
        versions = [
            replace(version, metrics=measure(result.samples, version.audio, rate, names))
            for version in result.versions
        ]
    return replace(result, versions=versions)


def _write_report(path: Path, model: str, result: _Result) -> None:
    from ..evaluation import exhibits
    from ..files import write_file

    name, rate = f"{model} ({result.codec.identity})", result.codec.sampling_rate
    shown = [
        exhibits.Version(
            exhibits.quantizers(one.num_quantizers), one.kbps, one.audio, rate, one.metrics
        )
        for one in result.versions
    ]
    title, command = result.source.name, display.command_line()
    with needs_extra("eval", "--report"), display.progress("writing the report"):
        page = exhibits.build_report(title, command, name, result.samples, shown)
    make_folders([path])
    write_file(path, page, AudioFileError)
    display.note_large_page(path, "that of a shorter recording is smaller")


def _described(result: _Result) -> dict[str, Any]:
    num_samples, rate = result.samples.shape[1], result.codec.sampling_rate
    return {
        "input": str(result.source),
        "model": result.codec.identity,
        "sampling_rate": rate,
        "num_samples": num_samples,
        "duration_seconds": num_samples / rate,
        "kbps": result.versions[-1].kbps,
        "reconstructions": [_facts(version) for version in result.versions],
        **result.mixed,
    }


def _print(result: _Result, report: Path | None) -> None:
    found = result.versions[0].metrics if report else {}
    measured = {name: title for name, title in _IN_TABLE.items() if name in found}
    rows = [_row(version, measured) for version in result.versions]
    display.print_table(("layers", "kbps", *measured.values(), "file"), rows)
    replaced = any(version.replaced for version in result.versions)
    for note in notes(result.mixed | {"replaced": replaced}):
        display.print_progress_line(note)
    if report:
        display.print_line(f"report: {report}")


def _row(version: Version, metrics: Mapping[str, str]) -> list[str]:
    values = [version.metrics[name] for name in metrics]
    shown = [f"{value:.3f}" if isfinite(value) else "-" for value in values]
    return [str(version.num_quantizers), f"{version.kbps:g}", *shown, str(version.output)]


def _facts(version: Version) -> dict[str, Any]:
    facts = {
        "num_quantizers": version.num_quantizers,
        "kbps": version.kbps,
        "output": str(version.output),
    }
    # JSON has no NaN and no infinity.
    return facts | {
        name: value if isfinite(value) else None for name, value in version.metrics.items()
    }
