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
from .failures import needs_extra
from .file_jobs import (
    AUDIO_SUFFIXES,
    Job,
    check_outputs,
    find_inputs,
    is_pipe,
    make_folders,
    notes,
    opened,
    plan,
    work_through,
    write_to_pipe,
)

if TYPE_CHECKING:
    import numpy as np

    from ..codes import Codec

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
class _Original:
    """A recording as the model takes it, and the channels that it had before."""

    samples: "np.ndarray"
    num_channels: int

    @property
    def mixed(self) -> dict[str, int]:
        """What a result says of it, if it was mixed to mono."""
        return {"mixed_channels": self.num_channels} if self.num_channels > 1 else {}


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


def reconstruct(
    inputs: options.AudioInputs,
    output: Annotated[
        str,
        options.output_option(
            "OUT",
            "Sound file to write, .wav or .flac; a folder (one that exists, or ends in /); or "
            "- for standard output. Several bitrates become OUT-8.wav, OUT-16.wav, ...",
        ),
    ],
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

    counts = options.numbers(num_quantizers, int, "--num-quantizers")
    rates = options.numbers(kbps, float, "--kbps")
    found = find_inputs(inputs, SOUND_SUFFIXES, "sound files")
    several = len(counts) + len(rates) > 1
    jobs = plan(found, output, AUDIO_SUFFIXES, is_stem=several)
    _check(jobs, report, len(counts) + len(rates), as_json)
    with display.progress("loading the model"):
        codec = loading.load_codec(
            model, "all", device, False, backend, None, compute_dtype, attention
        )
    layers = loading.several_num_quantizers(counts, rates, codec.info)
    outputs = [_output_of(job.output, count, several) for job in jobs for count in layers or [0]]
    check_outputs(outputs, [job.source for job in jobs])
    if len(jobs) == 1:
        _one(codec, jobs[0], layers, several, model, report, domain, as_json)
        return

    def work(job: Job) -> dict[str, Any]:
        original, versions = _reconstruct(codec, job, layers, several, lambda _: nullcontext())
        _save(versions, codec.info.sampling_rate)
        replaced = {"replaced": True} if any(version.replaced for version in versions) else {}
        facts = _described(job.source, codec, original, versions)
        return facts | {"output": str(versions[-1].output)} | replaced

    work_through(jobs, "reconstructing", work, as_json)


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
    _require_report()


def _one(
    codec: "Codec",
    job: Job,
    layers: Sequence[int],
    several: bool,
    model: str,
    report: Path | None,
    domain: str,
    as_json: bool,
) -> None:
    """Reconstruct one recording, and show a table of it."""
    with display.progress("encoding", 1 + max(1, len(layers))) as bar:
        step = partial(display.one_of, bar)
        original, versions = _reconstruct(codec, job, layers, several, step)
    _save(versions, codec.info.sampling_rate)
    if report:
        versions = _measure(original.samples, versions, codec.info.sampling_rate, domain)
        _write_report(report, job.source, model, codec, original.samples, versions)
    if as_json:
        facts = _described(job.source, codec, original, versions)
        display.print_json(facts | {"report": str(report) if report else None})
    elif not is_pipe(job.output):
        _print(versions, original, report)


def _reconstruct(
    codec: "Codec",
    job: Job,
    layers: Sequence[int],
    several: bool,
    step: Callable[[str], AbstractContextManager[None]],
) -> "tuple[_Original, list[Version]]":
    """Encode once with the most layers; fewer layers are the first of these codes."""
    from ..audio import load_with_info

    info = codec.info
    audio, sound = load_with_info(opened(job.source), info.sampling_rate, info.num_channels)
    original = _Original(audio, sound.num_channels if info.num_channels == 1 else 1)
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
    return original, versions


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


def _require_report() -> None:
    """Fail before the work, not after it, where the report cannot be made."""
    with needs_extra("eval", "--report"):
        import matplotlib  # noqa: F401
        import pystoi  # noqa: F401


def _measure(
    original: "np.ndarray", versions: Sequence[Version], sampling_rate: int, domain: str
) -> list[Version]:
    from ..evaluation.metric_registry import DEFAULT_METRICS, measure, metrics_of

    names = metrics_of(domain, DEFAULT_METRICS)

    with display.progress("measuring"):
        return [
            replace(version, metrics=measure(original, version.audio, sampling_rate, names))
            for version in versions
        ]


def _write_report(
    path: Path,
    source: Path,
    model: str,
    codec: "Codec",
    original: "np.ndarray",
    versions: Sequence[Version],
) -> None:
    from ..evaluation import exhibits
    from ..files import atomic_path

    rate = codec.info.sampling_rate
    shown = [
        exhibits.Version(
            exhibits.quantizers(one.num_quantizers), one.kbps, one.audio, rate, one.metrics
        )
        for one in versions
    ]
    command = display.command_line()
    name = f"{model} ({codec.info.identity})"
    with needs_extra("eval", "--report"), display.progress("writing the report"):
        page = exhibits.build_report(source.name, command, name, original, shown)
    make_folders([path])
    with atomic_path(path, error=AudioFileError) as temporary:
        temporary.write_text(page, encoding="utf-8")
    display.note_large_page(path, "that of a shorter recording is smaller")


def _described(
    source: Path, codec: "Codec", original: "_Original", versions: Sequence[Version]
) -> dict[str, Any]:
    num_samples = original.samples.shape[1]
    return {
        "input": str(source),
        "model": codec.info.identity,
        "sampling_rate": codec.info.sampling_rate,
        "num_samples": num_samples,
        "duration_seconds": num_samples / codec.info.sampling_rate,
        "kbps": versions[-1].kbps,
        "reconstructions": [_facts(version) for version in versions],
        **original.mixed,
    }


def _print(versions: Sequence[Version], original: "_Original", report: Path | None) -> None:
    found = versions[0].metrics if report else {}
    measured = {name: title for name, title in _IN_TABLE.items() if name in found}
    rows = [_row(version, measured) for version in versions]
    display.print_table(("layers", "kbps", *measured.values(), "file"), rows)
    replaced = any(version.replaced for version in versions)
    for note in notes(original.mixed | {"replaced": replaced}):
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
