"""`moss-audio asr`: what is said in recordings, or in files of codes."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import AudioFileError, ModelMismatchError, MossAudioError
from . import display, loading, options
from .destinations import CODES_SUFFIXES
from .failures import BAD_INPUT, FAILURE, exit_code_of, message_of, print_error

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
    loading.check_speech_model(model, "asr_tiny")
    failures = _missing(inputs)
    if len(failures) == len(set(inputs)):  # nothing is left to load a model for
        _print(inputs, {}, failures, as_json)
    with display.progress("loading the model"):
        transcriber = loading.load_transcriber(model, codec, device, backend)
    codes = _gather(
        transcriber, [path for path in inputs if path not in failures], num_quantizers, failures
    )
    with display.progress("transcribing", 1):
        found = transcriber.transcripts(list(codes.values()), num_quantizers, beams)
    _print(inputs, dict(zip(codes, found, strict=True)), failures, as_json)


def _missing(inputs: list[Path]) -> dict[Path, Exception]:
    """Inputs that are not there, or not files."""
    from ..files import require_file

    failures: dict[Path, Exception] = {}
    for path in inputs:
        try:
            require_file(path, error=AudioFileError)
        except AudioFileError as error:  # noqa: PERF203 - each is named
            failures[path] = error
    return failures


def _gather(
    transcriber: "Transcriber",
    inputs: list[Path],
    num_quantizers: int | None,
    failures: dict[Path, Exception],
) -> dict[Path, "np.ndarray | None"]:
    """Codes of every input that can be read; why the others cannot is added to ``failures``."""
    codes: dict[Path, np.ndarray | None] = {}
    different = list(dict.fromkeys(inputs))
    with display.progress("encoding", len(different)) as bar:
        for path in different:
            try:
                codes[path] = _codes(transcriber, path, num_quantizers)
            except (MossAudioError, OSError) as error:
                failures[path] = error
            bar.advance(bar.task_ids[0])
    return codes


def _codes(
    transcriber: "Transcriber", path: Path, num_quantizers: int | None
) -> "np.ndarray | None":
    """Codes of one input, of the codebooks that the model can read; None for silence."""
    from ..speech.model_facts import check_codes

    codes = _encoded_or_stored(transcriber, path, num_quantizers)
    if codes is None:
        return None
    return check_codes(codes, transcriber.model.facts, num_quantizers)


def _encoded_or_stored(
    transcriber: "Transcriber", path: Path, num_quantizers: int | None
) -> "np.ndarray | None":
    from ..audio import load_audio
    from ..codes import AudioCodes
    from ..speech.transcriber import is_audible

    info = transcriber.codec.info
    if path.suffix.lower() not in CODES_SUFFIXES:
        audio = load_audio(path, info.sampling_rate, info.num_channels)
        if not is_audible(audio):
            return None
        return transcriber.codec.encode(audio, num_quantizers=num_quantizers)
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
