"""`moss-audio asr`: what is said in recordings, or in files of codes."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import ModelMismatchError, MossAudioError
from . import display, options
from .destinations import CODES_SUFFIXES
from .failures import BAD_INPUT, FAILURE, exit_code_of, message_of, print_error
from .loading import load_transcriber

if TYPE_CHECKING:
    import numpy as np

    from ..speech.transcriber import Transcriber, Transcript


def asr(
    inputs: Annotated[
        list[Path],
        typer.Argument(
            metavar="IN...",
            readable=False,
            show_default=False,
            help="Sound files, or codes files: .moss, .safetensors or .npz.",
        ),
    ],
    model: options.LanguageModel = "bundled",
    codec: options.Codec = "bundled",
    backend: options.Backend = None,
    num_quantizers: options.NumQuantizers = None,
    beams: options.Beams = 1,
    device: options.Device = "cpu",
    as_json: options.Json = False,
) -> None:
    """Write down what is said.

    Example: moss-audio asr speech.wav --model runs/asr/final
    """
    with display.progress("loading the model"):
        reader = load_transcriber(model, codec, device, backend)
    codes, failures = _gather(reader, inputs, num_quantizers)
    with display.progress("transcribing", 1):
        found = reader.transcripts(list(codes.values()), num_quantizers, beams)
    _print(inputs, dict(zip(codes, found, strict=True)), failures, as_json)


def _gather(
    reader: "Transcriber", inputs: list[Path], num_quantizers: int | None
) -> tuple[dict[Path, "np.ndarray | None"], dict[Path, Exception]]:
    """Codes of every input that can be read, and why the others cannot."""
    codes: dict[Path, np.ndarray | None] = {}
    failures: dict[Path, Exception] = {}
    different = list(dict.fromkeys(inputs))
    with display.progress("encoding", len(different)) as bar:
        for path in different:
            try:
                codes[path] = _codes(reader, path, num_quantizers)
            except (MossAudioError, OSError) as error:
                failures[path] = error
            bar.advance(bar.task_ids[0])
    return codes, failures


def _codes(reader: "Transcriber", path: Path, num_quantizers: int | None) -> "np.ndarray | None":
    """Codes of one input, of the codebooks that the model can read; None for silence."""
    from ..speech.codes_batch import check_codes

    codes = _encoded_or_stored(reader, path, num_quantizers)
    if codes is None:
        return None
    return check_codes(codes, reader.model.facts, num_quantizers)


def _encoded_or_stored(
    reader: "Transcriber", path: Path, num_quantizers: int | None
) -> "np.ndarray | None":
    from ..audio import load_audio
    from ..codes import AudioCodes
    from ..speech.transcriber import is_audible

    info = reader.codec.info
    if path.suffix.lower() not in CODES_SUFFIXES:
        audio = load_audio(path, info.sampling_rate, info.num_channels)
        if not is_audible(audio):
            return None
        return reader.codec.encode(audio, num_quantizers=num_quantizers)
    stored = AudioCodes.load(path)
    if stored.model and stored.model != info.identity:
        raise ModelMismatchError(
            f"'{path}' holds codes of the codec {stored.model}, and --codec is {info.identity}; "
            "name the codec that made them"
        )
    return stored.codes


def _facts(transcript: "Transcript") -> dict[str, Any]:
    return {
        "text": transcript.text,
        "duration_seconds": round(transcript.duration_seconds, 3),
        "words": [
            {
                "text": word.text,
                "start_seconds": round(word.start_seconds, 3),
                "end_seconds": round(word.end_seconds, 3),
            }
            for word in transcript.words
        ],
    }


def _print(
    inputs: list[Path],
    found: "dict[Path, Transcript]",
    failures: dict[Path, Exception],
    as_json: bool,
) -> None:
    if as_json:
        files: list[dict[str, Any]] = [
            {"input": str(path)} | _facts(found[path])
            if path in found
            else {"input": str(path), "error": message_of(failures[path])}
            for path in inputs
        ]
        display.print_json({"files": files})
    else:
        for path in inputs:
            if path in found:
                text = found[path].text
                display.print_line(text if len(inputs) == 1 else f"{path}: {text}")
    for path, error in failures.items():
        message = message_of(error)
        print_error(message if str(path) in message else f"{path}: {message}")
    if failures:
        codes = {exit_code_of(error) for error in failures.values()}
        raise typer.Exit(FAILURE if FAILURE in codes else BAD_INPUT)
