"""`moss-audio export`: models in the formats that deployments take.

Owns the options and what is printed; `export.onnx_export` does the work.
"""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ..errors import CheckpointError, InputError
from ..files import atomic_path
from . import display, options
from .failures import needs_extra
from .file_jobs import require_new

if TYPE_CHECKING:
    import numpy as np


Precision = Literal["stored", "fp32", "fp16", "int8"]
SpeechWeights = Literal["float32", "float16", "int8"]
_LARGEST_FILE = re.compile("[1-9][0-9]*(KB|MB|GB)")

app = typer.Typer(help="Write a model in a format for deployment.", no_args_is_help=True)


@app.callback()
def formats() -> None:
    """Write a model in a format for deployment.

    Example: moss-audio export onnx bundled -o exported
    """


OnnxFolder = Annotated[
    Path,
    options.output_option(
        "DIR", "New folder for weights and graphs; the model's own folder gets the graphs alone."
    ),
]
Int8 = Annotated[bool, typer.Option("--int8", help="The same as --decoder int8: the codes stay.")]
EncoderPrecision = Annotated[Precision, typer.Option(help="Precision of the encoder's weights.")]
DecoderPrecision = Annotated[Precision, typer.Option(help="Precision of the decoder's weights.")]
Contract = Annotated[
    Literal["steps", "whole-clip", "n-quantizers"],
    typer.Option(
        help="steps: graphs for streams and whole clips, for this package. whole-clip and "
        "n-quantizers: an encoder and a decoder as public ONNX repositories have them."
    ),
]
Weights = Annotated[
    SpeechWeights | None,
    typer.Option(
        show_default="float32",
        help="Type that the weights of CAT-TTS or CAT-ASR are stored in; they compute in "
        "float32. int8 takes a quarter of float32.",
    ),
]
Probe = Annotated[
    list[Path] | None,
    typer.Option(
        metavar="FILE",
        readable=False,
        show_default="a synthetic sound",
        help="Sound file to measure changed codes and the audio's distance on; repeatable.",
    ),
]
Force = Annotated[
    bool, typer.Option("--force", help="Keep what changes more than 1% of the codes.")
]


@app.command("onnx")
def export_to_onnx(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Model folder, or 'bundled'.")],
    output: OnnxFolder,
    int8: Int8 = False,
    encoder: EncoderPrecision = "stored",
    decoder: DecoderPrecision = "stored",
    codes_type: Annotated[Literal["int32", "int64"], typer.Option(help="Type of codes.")] = "int32",
    contract: Contract = "steps",
    weights: Weights = None,
    probe: Probe = None,
    force: Force = False,
    as_json: options.Json = False,
) -> None:
    """Export a model to ONNX: encoder and decoder, for whole clips and for steps of streams.

    Example: moss-audio export onnx bundled -o exported --int8
    """
    with needs_extra("export", "exporting"):
        from ..export.onnx_export import export_onnx
        from ..export.speech_export import export_speech
        from ..export.whole_clip import export_whole_clip
        from ..speech.model_facts import is_speech_model
    if is_speech_model(model):
        changed = encoder != "stored" or decoder != "stored" or codes_type != "int32"
        if int8 or changed or contract != "steps" or probe or force:
            raise InputError(f"{model} is a speech model, which has no option but --weights")
        facts = export_speech(model, output, weights or "float32")
        _print_speech(output, facts, as_json)
        return
    if weights is not None:
        raise InputError(
            f"{model} is a codec; in place of --weights it takes --encoder and --decoder"
        )
    if contract != "steps" and (codes_type != "int32" or force):
        raise InputError(
            f"--contract {contract} fixes the type of codes, and has nothing to force; "
            "leave out --codes-type and --force"
        )
    wanted: dict[str, Any] = {"encoder": encoder, "decoder": "int8" if int8 else decoder}
    with display.progress("exporting"):
        wanted["clips"] = _clips(model, probe or [])
        if contract != "steps":
            shown = facts = export_whole_clip(model, output, contract, **wanted)
        else:
            facts = export_onnx(model, output, codes_type=codes_type, force=force, **wanted)
            shown = _for_people(output, facts)
    document = {"output": str(output), **facts}
    display.print_result(as_json, document, document if shown is facts else shown)


CheckpointName = Annotated[
    str, typer.Argument(metavar="MODEL", help="Model folder, Hugging Face id, or 'bundled'.")
]
HfFolder = Annotated[
    Path, options.output_option("DIR", "New folder for config.json and model.safetensors.")
]
Layout = Annotated[
    Literal["v1", "v2", "hf"] | None,
    typer.Option(
        show_default="v1 if that can describe the model, else v2",
        help="Names of the tensors: as released for v1 or v2, or as in the class inside "
        "transformers (hf).",
    ),
]
WeightDtype = Annotated[
    Literal["fp32", "bf16", "fp16", "int8"],
    typer.Option(
        help="Type of the weights of encoder and decoder; the quantizer's are fp32. Only this "
        "package reads int8."
    ),
]
MaxShardSize = Annotated[
    str, typer.Option(metavar="SIZE", help="Weights beyond it go into another file.")
]
RemoteCode = Annotated[
    bool,
    typer.Option(
        "--remote-code",
        help="Add Python files, so that transformers' AutoModel loads the folder without this "
        "package.",
    ),
]


@app.command("hf")
def export_checkpoint(
    model: CheckpointName,
    output: HfFolder,
    layout: Layout = None,
    weight_dtype: WeightDtype = "fp32",
    max_shard_size: MaxShardSize = "5GB",
    remote_code: RemoteCode = False,
    as_json: options.Json = False,
) -> None:
    """Write a checkpoint in a layout that other programs load too.

    Example: moss-audio export hf runs/voice/final -o voice --layout v2
    """
    with needs_extra("torch", "writing checkpoints"):
        from ..checkpoint.codec_checkpoint import write_feature_extractor_config
        from ..config.released import default_layout
        from ..hf.modeling import MossAudioTokenizerModel
    require_new(output, "-o")
    _check_layout(layout, weight_dtype, max_shard_size, remote_code)
    loaded = MossAudioTokenizerModel.from_pretrained(model)
    chosen: str = layout or default_layout(loaded.config.codec)
    with atomic_path(output, error=CheckpointError, replace_folder=False) as folder:
        loaded.save_pretrained(
            folder, layout=chosen, weight_dtype=weight_dtype, max_shard_size=max_shard_size
        )
        if remote_code:
            from ..export.remote_code import add_remote_code

            add_remote_code(folder)
        else:
            write_feature_extractor_config(folder, loaded.config.codec)
    if chosen == "hf":  # its folded weight norm has another identity
        loaded = MossAudioTokenizerModel.from_pretrained(output, parts="decoder")
    facts = {
        "folder": str(output),
        "layout": chosen,
        "weight_dtype": weight_dtype,
        "model_identity": loaded.identity,
        "bytes": sum(file.stat().st_size for file in output.iterdir()),
    }
    display.print_result(as_json, facts)


def _check_layout(
    layout: str | None, weight_dtype: str, max_shard_size: str, remote_code: bool
) -> None:
    if remote_code and layout == "hf":
        raise InputError(
            "--remote-code and --layout hf exclude each other: transformers loads that layout by "
            "its own class"
        )
    if weight_dtype == "int8" and (remote_code or layout == "hf"):
        raise InputError(
            "--weight-dtype int8 excludes --remote-code and --layout hf: only this package reads it"
        )
    if not _LARGEST_FILE.fullmatch(max_shard_size):
        raise InputError(
            f"--max-shard-size is {max_shard_size!r}; expected a number and KB, MB or GB"
        )


def _print_speech(output: Path, facts: dict[str, Any], as_json: bool) -> None:
    """What was written of a speech model."""
    files = [f"{name}: {display.file_size(size)}" for name, size in facts["bytes"].items()]
    shown = {name: facts[name] for name in ("kind", "weights")}
    shown = {"folder": str(output), **shown, "files": files}
    display.print_result(as_json, {"output": str(output), **facts}, shown)


def _clips(model: str, files: list[Path]) -> "list[np.ndarray]":
    """Sound files as the model takes them."""
    if not files:
        return []
    from ..audio import load_audio
    from ..checkpoint.stored_weights import StoredWeights
    from ..onnx.folder import folder_path

    config = StoredWeights(folder_path(model)).config
    return [load_audio(file, config.sampling_rate, config.number_channels) for file in files]


def _for_people(output: Path, manifest: dict[str, Any]) -> dict[str, Any]:
    """What was written, and how it compares."""
    checks = manifest["checks"]
    entries = [*manifest["weights"].items()]
    entries += [(graph["file"], graph) for graph in manifest["graphs"].values()]
    return {
        "folder": str(output),
        "precision": dict(manifest["precision"]),
        "against_PyTorch": _distance(checks["pytorch"]) or "not compared: it is not installed",
        **(
            {"against_stored_weights": _distance(checks["precision"])}
            if "precision" in checks
            else {}
        ),
        "files": [f"{name}: {display.file_size(entry['bytes'])}" for name, entry in entries],
    }


def _distance(found: dict[str, Any] | None) -> dict[str, str]:
    if not found:
        return {}
    ratio = found["audio_snr_db"]
    return {
        "codes_changed": f"{found['codes_changed']:.2%} of {found['codes']:,}",
        "audio": "equal" if ratio is None else f"{ratio:g} dB signal-to-noise",
    }
