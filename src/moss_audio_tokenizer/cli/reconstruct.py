"""`moss-audio reconstruct`: sound through codes and back, at one bitrate or several.

Owns the names of the outputs and what is printed; the report is `evaluation`'s.
"""

import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import InputError
from . import display, loading, options
from .destinations import AUDIO_SUFFIXES, check_outputs, check_suffix, make_folders
from .failures import needs_extra

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


Source = Annotated[
    Path,
    typer.Argument(
        metavar="IN",
        readable=False,
        show_default=False,
        help="Sound file: wav, flac, ogg, opus or mp3.",
    ),
]
Output = Annotated[
    str,
    typer.Option(
        "--output",
        "-o",
        metavar="OUT",
        show_default=False,
        help="Sound file to write, .wav or .flac; for several N: OUT-8.wav, OUT-16.wav, ...",
    ),
]
Depths = Annotated[
    list[int] | None,
    typer.Option(
        "--num-quantizers",
        metavar="N",
        min=1,
        show_default="all",
        help="Layers of codes to use: fewer layers, lower bitrate. Give it several times to "
        "compare.",
    ),
]
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
    source: Source,
    output: Output,
    num_quantizers: Depths = None,
    model: options.Model = "bundled",
    device: options.Device = "cpu",
    backend: options.Backend = None,
    report: Report = None,
    as_json: options.Json = False,
) -> None:
    """Hear what the codec makes of a recording: encode and decode in one go.

    Example: moss-audio reconstruct song.flac -o out.wav --num-quantizers 8 --num-quantizers 32
    """
    depths = sorted(set(num_quantizers or []))
    outputs = _plan(source, output, depths, report)
    if report:
        _require_report()
    with display.progress("loading the model"):
        codec = loading.load_codec(model, "all", device, backend=backend)
    loading.check_num_quantizers(max(depths, default=None), codec.info)
    original, versions = _reconstruct(codec, source, depths, outputs)
    _save(versions, codec.info.sampling_rate)
    if report:
        versions = _measure(original, versions, codec.info.sampling_rate)
        _write_report(report, source, model, codec, original, versions)
    _print(source, versions, codec, original.shape[1], report, as_json)


def _plan(source: Path, output: str, depths: Sequence[int], report: Path | None) -> list[Path]:
    """The file of every depth, after all checks that need no model."""
    path = Path(output)
    check_suffix(output, AUDIO_SUFFIXES)
    several = len(depths) > 1
    outputs = [path.with_stem(f"{path.stem}-{depth}") for depth in depths] if several else [path]
    check_outputs(outputs, [source])
    if report is not None:
        if report.suffix.lower() not in _REPORT_SUFFIXES:
            raise InputError(f"--report {str(report)!r} should end in .html")
        check_outputs([report], [source])
    return outputs


def _reconstruct(
    codec: "Codec", source: Path, depths: Sequence[int], outputs: Sequence[Path]
) -> tuple["np.ndarray", list[Version]]:
    """Encode once at the largest depth; shallower codes are its first layers."""
    from ..audio import load_audio

    info = codec.info
    audio = load_audio(source, info.sampling_rate, info.num_channels)
    depths = depths or [info.num_quantizers]
    versions = []
    with display.progress("encoding", len(depths)) as bar:
        codes = codec.encode(audio, num_quantizers=depths[-1])
        for depth, output in zip(depths, outputs, strict=True):
            bar.update(bar.task_ids[0], description=f"decoding {depth} layers")
            decoded = codec.decode(codes[:depth])[:, : audio.shape[1]]
            versions.append(Version(depth, info.bitrate(depth) / 1000, output, decoded))
            bar.advance(bar.task_ids[0])
    return audio, versions


def _save(versions: Sequence[Version], sampling_rate: int) -> None:
    from ..audio import save_audio

    make_folders(version.output for version in versions)
    for version in versions:
        save_audio(version.output, version.audio, sampling_rate)


def _require_report() -> None:
    """Fail before the work, not after it, where the report cannot be made."""
    with needs_extra("eval", "--report"):
        import matplotlib  # noqa: F401
        import pystoi  # noqa: F401


def _measure(
    original: "np.ndarray", versions: Sequence[Version], sampling_rate: int
) -> list[Version]:
    from ..evaluation import measure

    with display.progress("measuring"):
        return [
            replace(version, metrics=measure(original, version.audio, sampling_rate))
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
    from ..evaluation.report import Reconstruction, build_report
    from ..files import atomic_path

    rows = [
        Reconstruction(one.num_quantizers, one.kbps, one.audio, one.metrics) for one in versions
    ]
    command = shlex.join(["moss-audio", *sys.argv[1:]])
    name = f"{model} ({codec.info.identity})"
    with needs_extra("eval", "--report"), display.progress("writing the report"):
        page = build_report(source.name, command, name, original, codec.info.sampling_rate, rows)
    make_folders([path])
    with atomic_path(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


def _print(
    source: Path,
    versions: Sequence[Version],
    codec: "Codec",
    num_samples: int,
    report: Path | None,
    as_json: bool,
) -> None:
    if as_json:
        display.print_json(
            {
                "input": str(source),
                "model": codec.info.identity,
                "sampling_rate": codec.info.sampling_rate,
                "num_samples": num_samples,
                "duration_seconds": num_samples / codec.info.sampling_rate,
                "reconstructions": [_facts(version) for version in versions],
                "report": str(report) if report else None,
            }
        )
        return
    measured = _IN_TABLE if report else {}
    rows = [_row(version, measured) for version in versions]
    display.print_table(("layers", "kbps", *measured.values(), "file"), rows)
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
