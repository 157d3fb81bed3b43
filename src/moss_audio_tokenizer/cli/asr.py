"""`moss-audio asr`: what is said in recordings, or in files of codes."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import AudioFileError, ModelMismatchError, MossAudioError
from . import display, loading, options
from .destinations import CODES_SUFFIXES
from .failures import BAD_INPUT, FAILURE, exit_code_of, message_of, needs_extra, print_error

if TYPE_CHECKING:
    import numpy as np

    from ..asr import Transcriber


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
    model: options.LanguageModel,
    codec: options.Codec = "bundled",
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
    with display.progress("loading the model"), needs_extra("torch", "transcribing"):
        from ..asr import Transcriber

        transcriber = Transcriber.from_pretrained(model, codec, device)
    codes = _gather(
        transcriber, [path for path in inputs if path not in failures], num_quantizers, failures
    )
    with display.progress("transcribing", 1):
        texts = transcriber.transcribe_codes(list(codes.values()), num_quantizers, beams)
    _print(inputs, dict(zip(codes, texts, strict=True)), failures, as_json)


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
) -> dict[Path, "np.ndarray"]:
    """Codes of every input that can be read; why the others cannot is added to ``failures``."""
    codes: dict[Path, np.ndarray] = {}
    different = list(dict.fromkeys(inputs))
    with display.progress("encoding", len(different)) as bar:
        for path in different:
            try:
                codes[path] = _codes(transcriber, path, num_quantizers)
            except (MossAudioError, OSError) as error:
                failures[path] = error
            bar.advance(bar.task_ids[0])
    return codes


def _codes(transcriber: "Transcriber", path: Path, num_quantizers: int | None) -> "np.ndarray":
    """Codes of one input, of layers that the model can read."""
    from ..speech.codes_batch import check_codes

    codes = _encoded_or_stored(transcriber, path, num_quantizers)
    return check_codes(codes, transcriber.model.facts, num_quantizers)


def _encoded_or_stored(
    transcriber: "Transcriber", path: Path, num_quantizers: int | None
) -> "np.ndarray":
    from ..audio import load_audio
    from ..codes import AudioCodes

    info = transcriber.codec.info
    if path.suffix.lower() not in CODES_SUFFIXES:
        audio = load_audio(path, info.sampling_rate, info.num_channels)
        return transcriber.codec.encode(audio, num_quantizers=num_quantizers)
    stored = AudioCodes.load(path)
    if stored.model and stored.model != info.identity:
        raise ModelMismatchError(
            f"'{path}' holds codes of the codec {stored.model}, and --codec is {info.identity}; "
            "name the codec that made them"
        )
    return stored.codes


def _print(
    inputs: list[Path], texts: dict[Path, str], failures: dict[Path, Exception], as_json: bool
) -> None:
    if as_json:
        files: list[dict[str, Any]] = [
            {"input": str(path), "text": texts[path]}
            if path in texts
            else {"input": str(path), "error": message_of(failures[path])}
            for path in inputs
        ]
        display.print_json({"files": files})
    else:
        for path in inputs:
            if path in texts:
                display.print_line(texts[path] if len(inputs) == 1 else f"{path}: {texts[path]}")
    for path, error in failures.items():
        message = message_of(error)
        print_error(message if str(path) in message else f"{path}: {message}")
    if failures:
        codes = {exit_code_of(error) for error in failures.values()}
        raise typer.Exit(FAILURE if FAILURE in codes else BAD_INPUT)
