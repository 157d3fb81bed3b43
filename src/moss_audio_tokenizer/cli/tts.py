"""`moss-audio tts`: a text, spoken into a sound file or, frame by frame, down a pipe."""

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import AudioFileError, InputError
from ..files import require_file
from . import display, loading, options
from .destinations import AUDIO_SUFFIXES, check_outputs, check_suffix, make_folders

if TYPE_CHECKING:
    import numpy as np

    from ..speech.synthesizer import SpeechStream, Synthesizer

_PIPE = "-"
_MOST_SECONDS = 86_400  # a day: far more than any model has room for


def tts(
    text: Annotated[str, typer.Argument(metavar="TEXT", show_default=False, help="What to say.")],
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
        str, typer.Option("--prompt-text", metavar="T", help="Transcript of the recording.")
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
    _check(output, stream, prompt_audio)
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
        _print({"output": output} | facts, as_json)


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


def _check(output: str, stream: bool, prompt_audio: Path | None) -> None:
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


def _print(facts: dict[str, Any], as_json: bool) -> None:
    if as_json:
        display.print_json(facts)
        return
    shown = [display.seconds(facts["duration_seconds"])]
    if "first_sound_seconds" in facts:
        shown.append(f"first sound after {facts['first_sound_seconds']:.2f} s")
    if not facts["finished"]:
        shown.append("cut off at the longest length")
    display.print_line(f"{facts['output']}  ({', '.join(shown)})")
