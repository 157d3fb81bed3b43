"""`moss-audio tts` and `asr`: a text, spoken into a file or down a pipe; what recordings say."""

import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import AudioFileError, InputError, ModelMismatchError, MossAudioError
from ..files import require_file
from . import display, loading, options
from .failures import message_of
from .file_jobs import (
    AUDIO_SUFFIXES,
    CODES_SUFFIXES,
    PIPE,
    check_outputs,
    check_suffix,
    end_with,
    make_folders,
    write_to_pipe,
)

if TYPE_CHECKING:
    import numpy as np

    from ..speech.built_in_voices import BuiltInVoices
    from ..speech.synthesizer import Synthesizer
    from ..speech.transcriber import Transcriber, Transcript

_MOST_SECONDS = 86_400  # a day: far more than any model has room for


Text = Annotated[
    str | None, typer.Argument(metavar="TEXT", show_default=False, help="What to say.")
]
Output = Annotated[
    str,
    options.output_option(
        "OUT", "A .wav or .flac file; with --stream also -, for 16-bit samples on stdout."
    ),
]
Voice = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        show_default="the model's first, if it has voices",
        help="Built-in voice of the model.",
    ),
]
ListVoices = Annotated[
    bool, typer.Option("--list-voices", help="Print the names of the built-in voices.")
]
PromptAudio = Annotated[
    Path | None,
    typer.Option("--prompt-audio", metavar="P", help="Recording of the voice to imitate."),
]
PromptText = Annotated[str, typer.Option(metavar="T", help="Transcript of the recording.")]
Stream = Annotated[
    bool, typer.Option("--stream", help="Decode every frame as soon as there is one.")
]


def tts(
    text: Text = None,
    model: options.LanguageModel = "bundled",
    output: Output = "speech.wav",
    voice: Voice = "",
    list_voices: ListVoices = False,
    prompt_audio: PromptAudio = None,
    prompt_text: PromptText = "",
    codec: options.Codec = "bundled",
    backend: options.Backend = None,
    num_quantizers: options.NumQuantizers = None,
    stream: Stream = False,
    seed: options.Seed = 0,
    temperature: options.Temperature = None,
    top_k: options.TopK = 50,
    top_p: options.TopP = 0.95,
    repetition_penalty: options.RepetitionPenalty = 1.1,
    guidance: options.Guidance = 0.0,
    code_choice: options.CodeChoice = None,
    max_seconds: Annotated[float, typer.Option(help="Longest speech of a sentence.")] = 20.0,
    device: options.Device = "cpu",
    as_json: options.Json = False,
) -> None:
    """Say a text, in a built-in voice or in that of a recording.

    A long text is said sentence by sentence, in one voice.

    Example: moss-audio tts "a b c one two three" --model runs/tts/final -o spoken.wav
    """
    if list_voices:
        _print_voices(model, as_json)
        return
    if text is None:
        raise typer.BadParameter("the text is missing; give what to say, or --list-voices")
    _check(text, output, stream, prompt_audio, prompt_text, max_seconds)
    _check_voice(voice, model, prompt_audio)
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
        "code_choice": code_choice,
        "max_frames": max(1, round(max_seconds * synthesizer.codec.info.frame_rate)),
        "prompt_audio": _recording(synthesizer, prompt_audio),
        "prompt_text": prompt_text,
        "voice": voice,
    }
    say = _say_streaming if stream else _say
    facts = say(synthesizer, text, output, wanted)
    if output != PIPE:
        _print_speech({"output": output} | facts, as_json)


def _check(
    text: str,
    output: str,
    stream: bool,
    prompt_audio: Path | None,
    prompt_text: str,
    max_seconds: float,
) -> None:
    """Check what needs no model."""
    from ..speech.text_preparation import check_speakable

    if not 0 < max_seconds <= _MOST_SECONDS:  # NaN is neither
        raise InputError(
            f"--max-seconds is {max_seconds:g}; expected seconds above 0, at most {_MOST_SECONDS}"
        )
    if output == PIPE and not stream:
        raise typer.BadParameter("-o - needs --stream; name a .wav or .flac file")
    if output != PIPE:
        if prompt_audio:
            require_file(prompt_audio, error=AudioFileError)
        check_suffix(output, AUDIO_SUFFIXES)
        check_outputs([Path(output)], [prompt_audio] if prompt_audio else [])
    check_speakable(text)
    if prompt_audio is not None and not prompt_text.strip():
        raise InputError("--prompt-audio needs its text: give what is said in it as --prompt-text")
    if prompt_text and prompt_audio is None:
        raise InputError("--prompt-text needs its recording: give it as --prompt-audio")
    if prompt_audio is not None and not prompt_audio.is_file():
        raise InputError(f"--prompt-audio '{prompt_audio}' is not a file; name a recording")


def _check_voice(voice: str, model: str, prompt_audio: Path | None) -> None:
    """Check the model's folder and the name of a built-in voice, before the model is loaded."""
    if voice and prompt_audio is not None:
        raise InputError("got --voice and --prompt-audio; give one of them")
    _voices_of(model).check(voice)


def _print_voices(model: str, as_json: bool) -> None:
    names = _voices_of(model).names
    if as_json:
        display.print_json({"voices": list(names), "default": names[0] if names else None})
        return
    for name in names:
        display.print_line(name)
    if not names:
        display.print_progress_line("this model has no built-in voices")


def _voices_of(model: str) -> "BuiltInVoices":
    """The built-in voices of a CAT-TTS, whose weights are not read."""
    from ..speech.built_in_voices import BuiltInVoices
    from ..speech.model_facts import find_speech_model

    loading.check_speech_model(model, "tts_tiny")
    return BuiltInVoices(find_speech_model("tts", model))


def _report_skipped(speaker: "Synthesizer", text: str) -> None:
    """Name characters that the model cannot say."""
    from ..speech.text_preparation import prepare_text

    skipped = prepare_text(text, speaker.model.text).skipped
    if skipped:
        display.print_progress_line(f"skipped, because this model cannot say it: {skipped}")


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
    with display.progress("speaking"):
        for part in stream:
            waited = waited or time.monotonic() - began
            parts.append(part)
            if output == PIPE:
                pcm = np.clip(np.rint(part * 32768), -32768, 32767).astype("<i2")
                write_to_pipe(pcm.tobytes())
    samples = np.concatenate(parts) if parts else np.zeros(0, np.float32)
    _require_sound(samples)
    rate = synthesizer.codec.info.sampling_rate
    if output != PIPE:
        _save(output, samples, rate)
    return {
        "duration_seconds": len(samples) / rate,
        "first_sound_seconds": waited,
        "finished": stream.finished,
    }


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


Inputs = Annotated[
    list[Path],
    typer.Argument(
        metavar="IN...",
        readable=False,
        help="Sound files, or codes files: .moss, .safetensors or .npz.",
    ),
]


def asr(
    inputs: Inputs,
    model: options.LanguageModel = "bundled",
    codec: options.Codec = "bundled",
    backend: options.Backend = None,
    num_quantizers: options.NumQuantizers = None,
    beams: options.Beams = None,
    device: options.Device = "cpu",
    as_json: options.Json = False,
) -> None:
    """Write down what is said.

    Example: moss-audio asr speech.wav --model runs/asr/final
    """
    loading.check_speech_model(model, "asr_tiny")
    failures: dict[Path, Exception] = {}
    files = _of_each(inputs, partial(require_file, error=AudioFileError), failures)
    if not files:  # nothing is left to load a model for
        _print_transcripts(inputs, {}, failures, as_json)
    with display.progress("loading the model"):
        transcriber = loading.load_transcriber(model, codec, device, backend)
    with display.progress("encoding", len(files)) as bar:

        def encode(path: Path) -> "np.ndarray | None":
            with display.one_of(bar, "encoding"):
                return _codes(transcriber, path, num_quantizers)

        codes = _of_each(files, encode, failures)
    with display.progress("transcribing", 1):
        found = transcriber.transcripts(list(codes.values()), num_quantizers, beams)
    _print_transcripts(inputs, dict(zip(codes, found, strict=True)), failures, as_json)


def _of_each(
    inputs: Iterable[Path], work: Callable[[Path], Any], failures: dict[Path, Exception]
) -> dict[Path, Any]:
    """What ``work`` makes of every input; why it cannot is added to ``failures``."""
    made: dict[Path, Any] = {}
    for path in dict.fromkeys(inputs):
        try:
            made[path] = work(path)
        except (MossAudioError, OSError) as error:  # noqa: PERF203 - each is named
            failures[path] = error
    return made


def _codes(
    transcriber: "Transcriber", path: Path, num_quantizers: int | None
) -> "np.ndarray | None":
    """Codes of one input, of the codebooks that the model can read; None for silence."""
    from ..audio import load_audio
    from ..codes import AudioCodes
    from ..speech.model_facts import check_codes
    from ..speech.transcriber import is_audible

    info = transcriber.codec.info
    if path.suffix.lower() in CODES_SUFFIXES:
        stored = AudioCodes.load(path)
        if stored.model and stored.model != info.identity:
            raise ModelMismatchError(
                f"'{path}' holds codes of the codec {stored.model}, and --codec is "
                f"{info.identity}; name the codec that made them"
            )
        codes = stored.codes
    else:
        audio = load_audio(path, info.sampling_rate, info.num_channels)
        if not is_audible(audio):
            return None
        codes = transcriber.codec.encode(audio, num_quantizers=num_quantizers)
    return check_codes(codes, transcriber.model.facts, num_quantizers)


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
    end_with(list(failures.items()), is_one=False)
