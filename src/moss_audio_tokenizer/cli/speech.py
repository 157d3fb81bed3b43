"""`moss-audio tts` and `asr`: a text, spoken into a file or down a pipe; what recordings say."""

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import AudioFileError, InputError, ModelMismatchError, MossAudioError
from ..files import require_file
from . import display, loading, options
from .failures import BAD_INPUT, FAILURE, exit_code_of, message_of, print_error
from .file_jobs import AUDIO_SUFFIXES, CODES_SUFFIXES, check_outputs, check_suffix, make_folders

if TYPE_CHECKING:
    import numpy as np

    from ..speech.synthesizer import SpeechStream, Synthesizer
    from ..speech.transcriber import Transcriber, Transcript

_PIPE = "-"
_MOST_SECONDS = 86_400  # a day: far more than any model has room for


def tts(
    text: Annotated[str, typer.Argument(metavar="TEXT", help="What to say.")],
    model: options.LanguageModel = "bundled",
    output: Annotated[
        str,
        typer.Option(
            "--output",
            "-o",
            metavar="OUT",
            help="A .wav or .flac file; with --stream also -, for 16-bit samples on stdout.",
        ),
    ] = "speech.wav",
    prompt_audio: Annotated[
        Path | None,
        typer.Option("--prompt-audio", metavar="P", help="Recording of the voice to imitate."),
    ] = None,
    prompt_text: Annotated[
        str, typer.Option(metavar="T", help="Transcript of the recording.")
    ] = "",
    codec: options.Codec = "bundled",
    backend: options.Backend = None,
    num_quantizers: options.NumQuantizers = None,
    stream: Annotated[
        bool, typer.Option("--stream", help="Decode every frame as soon as there is one.")
    ] = False,
    seed: options.Seed = 0,
    temperature: options.Temperature = 1.0,
    top_k: options.TopK = 50,
    top_p: options.TopP = 0.95,
    repetition_penalty: options.RepetitionPenalty = 1.1,
    guidance: options.Guidance = 0.0,
    max_seconds: Annotated[float, typer.Option(help="Longest speech of a sentence.")] = 20.0,
    device: options.Device = "cpu",
    as_json: options.Json = False,
) -> None:
    """Say a text, in the voice of a recording if one is given.

    A long text is said sentence by sentence, in one voice.

    Example: moss-audio tts "a b c one two three" --model runs/tts/final -o spoken.wav
    """
    _check_seconds(max_seconds)
    _check_output(output, stream, prompt_audio)
    _check_request(text, prompt_audio, prompt_text)
    loading.check_speech_model(model, "tts_tiny")
    with display.progress("loading the model"):
        synthesizer = loading.load_speaker(model, codec, device, backend)
    _report_skipped(synthesizer, text)
    wanted: dict[str, Any] = {
        "num_quantizers": num_quantizers or 0,
        "seed": seed,
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "repetition_penalty": repetition_penalty,
        "guidance": guidance,
        "max_frames": max(1, round(max_seconds * synthesizer.codec.info.frame_rate)),
        "prompt_audio": _recording(synthesizer, prompt_audio),
        "prompt_text": prompt_text,
    }
    say = _say_streaming if stream else _say
    facts = say(synthesizer, text, output, wanted)
    if output != _PIPE:
        _print_speech({"output": output} | facts, as_json)


def _check_seconds(seconds: float) -> None:
    if not 0 < seconds <= _MOST_SECONDS:  # NaN is neither
        raise InputError(
            f"--max-seconds is {seconds:g}; expected seconds above 0, at most {_MOST_SECONDS}"
        )


def _check_request(text: str, prompt_audio: Path | None, prompt_text: str) -> None:
    """Check what needs no model."""
    from ..speech.text_preparation import check_speakable

    check_speakable(text)
    if prompt_audio is not None and not prompt_text.strip():
        raise InputError("--prompt-audio needs its text: give what is said in it as --prompt-text")
    if prompt_text and prompt_audio is None:
        raise InputError("--prompt-text needs its recording: give it as --prompt-audio")
    if prompt_audio is not None and not prompt_audio.is_file():
        raise InputError(f"--prompt-audio '{prompt_audio}' is not a file; name a recording")


def _report_skipped(speaker: "Synthesizer", text: str) -> None:
    """Name characters that the model cannot say."""
    from ..speech.text_preparation import prepare_text

    skipped = prepare_text(text, speaker.model.text).skipped
    if skipped:
        display.print_progress_line(f"skipped, because this model cannot say it: {skipped}")


def _check_output(output: str, stream: bool, prompt_audio: Path | None) -> None:
    if output == _PIPE:
        if not stream:
            raise typer.BadParameter("-o - needs --stream; name a .wav or .flac file")
        return
    if prompt_audio:
        require_file(prompt_audio, error=AudioFileError)
    check_suffix(output, AUDIO_SUFFIXES)
    check_outputs([Path(output)], [prompt_audio] if prompt_audio else [])


def _recording(synthesizer: "Synthesizer", path: Path | None) -> "tuple[np.ndarray, int] | None":
    from ..audio import load_audio

    if path is None:
        return None
    rate = synthesizer.codec.info.sampling_rate
    return load_audio(path, rate, 1), rate


def _say(
    synthesizer: "Synthesizer", text: str, output: str, wanted: dict[str, Any]
) -> dict[str, Any]:
    with display.progress("speaking"):
        speech = synthesizer.speak(text, **wanted)
    _require_sound(speech.samples)
    _save(output, speech.samples, speech.sampling_rate)
    seconds = len(speech.samples) / speech.sampling_rate
    return {"duration_seconds": seconds, "finished": speech.finished}


def _say_streaming(
    synthesizer: "Synthesizer", text: str, output: str, wanted: dict[str, Any]
) -> dict[str, Any]:
    """Into a pipe as it comes, or into a file that appears when it is whole."""
    import numpy as np

    began, waited, parts = time.monotonic(), 0.0, []
    stream = synthesizer.stream(text, **wanted)
    for part in _spoken(stream):
        waited = waited or time.monotonic() - began
        parts.append(part)
        if output == _PIPE:
            pcm = np.clip(np.rint(part * 32768), -32768, 32767).astype("<i2")
            sys.stdout.buffer.write(pcm.tobytes())
            sys.stdout.buffer.flush()
    samples = np.concatenate(parts) if parts else np.zeros(0, np.float32)
    _require_sound(samples)
    rate = synthesizer.codec.info.sampling_rate
    if output != _PIPE:
        _save(output, samples, rate)
    return {
        "duration_seconds": len(samples) / rate,
        "first_sound_seconds": waited,
        "finished": stream.finished,
    }


def _spoken(stream: "SpeechStream") -> "Iterator[np.ndarray]":
    with display.progress("speaking"):
        yield from stream


def _save(output: str, samples: "np.ndarray", sampling_rate: int) -> None:
    """Write a file; its folder is made only now, when there is something to put there."""
    from ..audio import save_audio

    make_folders([Path(output)])
    save_audio(output, samples, sampling_rate)


def _require_sound(samples: "np.ndarray") -> None:
    if not len(samples):
        raise InputError("the model said nothing at all; try another --seed or a longer text")


def _print_speech(facts: dict[str, Any], as_json: bool) -> None:
    if as_json:
        display.print_json(facts)
        return
    shown = [display.seconds(facts["duration_seconds"])]
    if "first_sound_seconds" in facts:
        shown.append(f"first sound after {facts['first_sound_seconds']:.2f} s")
    if not facts["finished"]:
        shown.append("cut off at the longest length")
    display.print_line(f"{facts['output']}  ({', '.join(shown)})")


def asr(
    inputs: Annotated[
        list[Path],
        typer.Argument(
            metavar="IN...",
            readable=False,
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
        _print_transcripts(inputs, {}, failures, as_json)
    with display.progress("loading the model"):
        transcriber = loading.load_transcriber(model, codec, device, backend)
    codes = _gather(
        transcriber, [path for path in inputs if path not in failures], num_quantizers, failures
    )
    with display.progress("transcribing", 1):
        found = transcriber.transcripts(list(codes.values()), num_quantizers, beams)
    _print_transcripts(inputs, dict(zip(codes, found, strict=True)), failures, as_json)


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
    from ..speech.codes_batch import check_codes

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


def _transcript_facts(transcript: "Transcript") -> dict[str, Any]:
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


def _print_transcripts(
    inputs: list[Path],
    found: "dict[Path, Transcript]",
    failures: dict[Path, Exception],
    as_json: bool,
) -> None:
    if as_json:
        files: list[dict[str, Any]] = [
            {"input": str(path)} | _transcript_facts(found[path])
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
