"""`moss-audio info`: what a model, a codes file or a sound file is.

Owns only the looks; codes describe themselves, and models are `checkpoint.stored_weights`'.
"""

from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import AudioFileError, InputError
from . import display, options
from .file_jobs import CODES_SUFFIXES

ModelOrFile = Annotated[
    str,
    typer.Argument(
        metavar="MODEL_OR_FILE",
        help="Codes file (.moss, .safetensors, .npz), sound file, model folder, Hugging Face "
        "id, or 'bundled'.",
    ),
]
Graphs = Annotated[
    bool, typer.Option("--graphs", help="Also list inputs and outputs of exported graphs.")
]


def info(subject: ModelOrFile, graphs: Graphs = False, as_json: options.Json = False) -> None:
    """Show sizes, rates and bitrates of a model, a codes file or a sound file.

    Example: moss-audio info speech.moss
    """
    path = Path(subject)
    if path.suffix.lower() in CODES_SUFFIXES and not path.is_dir():
        facts = describe_codes(path)
    else:
        facts = _describe_sound(path) if path.is_file() else _describe_model(subject)
    display.print_result(as_json, facts, _for_people(facts, graphs))


def _describe_sound(path: Path) -> dict[str, Any]:
    """What a sound file holds, and how long its codes would be."""
    from ..audio import audio_info

    try:
        sound = audio_info(path)
    except AudioFileError as error:
        if "is not a wav" not in str(error):
            raise
        raise InputError(
            f"{str(path)!r} is neither codes ({', '.join(CODES_SUFFIXES)}) nor a model folder, and "
            "not sound that can be read"
        ) from error
    return {
        "sound": str(path),
        "format": sound.format,
        "duration_seconds": sound.duration_seconds,
        "sampling_rate": sound.sampling_rate,
        "channels": sound.num_channels,
        "num_samples": sound.num_samples,
        "bytes": path.stat().st_size,
    }


def describe_codes(path: Path) -> dict[str, Any]:
    """What a codes file holds, as plain values."""
    found = _codes_facts(path)
    rate, step = found["sampling_rate"], found["downsample_rate"]
    bits_a_second = found["num_quantizers"] * found["bits_per_code"] * rate / step
    return {
        "codes": str(path),
        "duration_seconds": found["num_samples"] / rate,
        "kbps": bits_a_second / 1000,
        "sampling_rate": rate,
        "channels": found["num_channels"],
        "num_samples": found["num_samples"],
        "frame_rate": rate / step,
        "samples_per_frame": step,
        "num_frames": found["num_frames"],
        "num_quantizers": found["num_quantizers"],
        "codebook_size": found["codebook_size"],
        "model_identity": found["model"] or None,
        "bytes": path.stat().st_size,
    }


def _codes_facts(path: Path) -> dict[str, Any]:
    """Sizes and rates of codes; of a .moss file from its header alone, however long it is."""
    from ..codes import AudioCodes
    from ..codes.moss_format import moss_facts
    from ..errors import CodesFileError
    from ..files import require_file

    if path.suffix.lower() == ".moss":
        facts = moss_facts(path, require_file(path, error=CodesFileError))
        if facts["sampling_rate"]:
            return facts
    codes = AudioCodes.load(path)
    names = ["num_quantizers", "num_frames", "num_samples", "bits_per_code", "model"]
    names += ["sampling_rate", "downsample_rate", "num_channels", "codebook_size"]
    return {name: getattr(codes, name) for name in names}


def _describe_model(name: str) -> dict[str, Any]:
    from ..checkpoint.stored_weights import describe_model
    from ..speech.model_facts import describe_speech_model, is_speech_model

    if is_speech_model(name):
        return describe_speech_model(Path(name))
    return describe_model(name) | _describe_graphs(name)


def _describe_graphs(name: str) -> dict[str, Any]:
    """What an export holds beside weights; nothing for a model that was not exported."""
    from ..onnx.folder import find_folder, is_exported

    if not is_exported(name):
        return {}
    manifest = find_folder(name).manifest
    kept = ("producer", "opset", "codes_type", "precision", "graphs", "checks")
    return {"onnx": {key: manifest[key] for key in kept if key in manifest}}


def _for_people(facts: dict[str, Any], graphs: bool) -> dict[str, Any]:
    """The same facts with units, and sizes that can be read at a glance."""
    shown = dict(_with_unit(name, value) for name, value in facts.items())
    if "onnx" in shown:
        export = facts["onnx"]
        listed = {name: _graph(graph) for name, graph in export.get("graphs", {}).items()}
        shown["onnx"] = export | {"graphs": listed} if graphs else _export_summary(export)
    return shown


def _export_summary(export: dict[str, Any]) -> dict[str, Any]:
    """An export in a few lines."""
    shown: dict[str, Any] = {key: export[key] for key in ("opset", "codes_type") if key in export}
    if "graphs" in export:
        shown["graphs"] = ", ".join(export["graphs"]) + " (--graphs lists them)"
    compared = (export.get("checks") or {}).get("pytorch") or {}
    if "codes_changed" in compared:
        shown["against_PyTorch"] = f"{compared['codes_changed']:.2%} of codes differ"
    return shown


def _with_unit(name: str, value: Any) -> tuple[str, Any]:
    if name in ("sampling_rate", "frame_rate"):
        return name, f"{value:,g} Hz"
    if name == "duration_seconds":
        return "duration", display.seconds(value)
    if name == "bytes":
        return "file_size", display.file_size(value)
    if name == "kbps":
        return "bitrate", _bitrate(value)
    if name == "files" and isinstance(value, dict):
        return name, {file: display.file_size(size) for file, size in sorted(value.items())}
    return name, value


def _graph(facts: dict[str, Any]) -> dict[str, Any]:
    """Inputs and outputs of a graph, a line each; all the keys and values of its state in one."""
    return {side: _ports(facts[side]) for side in ("inputs", "outputs")}


def _ports(ports: list[dict[str, Any]]) -> list[str]:
    rings = [port for port in ports if port["name"].startswith(("past_key_values.", "present."))]
    lines = [_port(port) for port in ports if port not in rings]
    if len(rings) > 2:
        lines.append(f"{_port(rings[0])} to {rings[-1]['name']}")
    else:
        lines += map(_port, rings)
    return lines


def _port(port: dict[str, Any]) -> str:
    return f"{port['name']}: {port['type']} ({', '.join(map(str, port['shape']))})"


def _bitrate(kbps: Any) -> Any:
    """A bitrate, or that of every number of layers."""
    if isinstance(kbps, dict):
        return {_layers(count): f"{value:g} kbps" for count, value in kbps.items()}
    return f"{kbps:g} kbps"


def _layers(count: Any) -> str:
    return "1 layer" if str(count) == "1" else f"{count} layers"
