"""`moss-audio eval asr` and `moss-audio eval tts`: speech models by number of quantizers.

Owns the options and what is printed; runs, tables and pages are `evaluation.speech`'s. The
models are opened by functions of this module, which tests replace.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import InputError
from . import display, loading, options
from .failures import needs_extra, require_packages

if TYPE_CHECKING:
    from ..codes import Codec
    from ..evaluation.datasets import SpeechItem
    from ..evaluation.speech.asr_eval import AsrSystem
    from ..evaluation.speech.speech_rows import SpeechRow
    from ..evaluation.speech.tts_eval import TtsSystem

Models = Annotated[
    list[str],
    typer.Option(
        "--model",
        metavar="FOLDER",
        help="Model folder or Hugging Face id; several times for several.",
    ),
]
Examples = Annotated[
    int, typer.Option("--examples", metavar="N", min=0, help="Texts that are shown in the page.")
]
Published = Annotated[
    str,
    typer.Option(
        "--published",
        metavar="TABLE",
        show_default="none",
        help="Show table3 (synthesis) or table4 (recognition) of the paper beside.",
    ),
]
BatchSize = Annotated[
    int, typer.Option("--batch-size", metavar="N", min=1, help="Texts that are processed together.")
]


def evaluate_asr(
    manifest: options.Manifest,
    output: options.ResultsFolder,
    model: Models,
    codec: options.Codec = "bundled",
    num_quantizers: options.SeveralNumQuantizers = None,
    num_beams: options.Beams = None,
    split: options.Split = None,
    limit: options.Limit = None,
    batch_size: BatchSize = 8,
    examples: Examples = 8,
    device: options.Device = "cpu",
    text_normalization: options.TextNormalization = "plain",
    as_json: options.Json = False,
    published: Published = "",
) -> None:
    """Measure speech recognition on codes: error rates by the number of quantizers.

    Example: moss-audio eval asr data/manifest.jsonl --model runs/asr/final -o runs/wer
    """
    _prepare(output)
    from ..evaluation.speech.asr_eval import AsrPlan, run_asr
    from ..manifest import read_manifest

    clips = read_manifest(manifest, split, "speech")[:limit]
    coder = loading.load_codec(codec, "encoder", device)
    plan = AsrPlan(
        clips,
        coder,
        options.quantizer_counts(num_quantizers),
        num_beams,
        batch_size,
        text_normalization,
    )
    names = labelled(model)
    systems = {label: open_asr_system(name, coder, device) for label, name in names.items()}
    with display.progress("transcribing", len(clips)) as bar:
        rows = run_asr(systems, plan, output, display.follow(bar))
    more = {"num_examples": examples, "published": published}
    _write(output, rows, "Speech recognition on codes", [], as_json, **more)


Texts = Annotated[
    Path,
    typer.Argument(
        metavar="TEXTS_OR_MANIFEST",
        readable=False,
        help="A text per line; or a manifest (.jsonl) whose texts are synthesized; or "
        "Seed-TTS-Eval's list (.lst).",
    ),
]
AsrModel = Annotated[
    list[str] | None,
    typer.Option(
        "--asr-model",
        "--recogniser",
        metavar="NAME",
        show_default="pocketsphinx",
        help="whisper[:SIZE|FOLDER][@LANGUAGE]; pocketsphinx; pocketsphinx:TEXTS, which "
        "knows only the words of a text file; cat:FOLDER; hf:NAME or a folder for transformers; or "
        "MODULE:FUNCTION; several times for several.",
    ),
]
SpeakerModel = Annotated[
    str,
    typer.Option(
        "--speaker-model",
        metavar="NAME",
        help="resemblyzer; wavlm:FOLDER; hf:NAME or a folder for transformers; "
        "MODULE:FUNCTION; mfcc, which compares mean mel cepstra; "
        "or none.",
    ),
]
FirstSeed = Annotated[
    int,
    options.at_least(
        0, "Random seed of the first text; the next text has the next seed.", metavar="N"
    ),
]


def evaluate_tts(
    texts: Texts,
    output: options.ResultsFolder,
    model: Models,
    codec: options.Codec = "bundled",
    prompts: options.Prompts = None,
    num_quantizers: options.SeveralNumQuantizers = None,
    asr_model: AsrModel = None,
    speaker_model: SpeakerModel = "mfcc",
    opinion_model: options.OpinionModel = "",
    seed: FirstSeed = 0,
    temperature: options.Temperature = None,
    top_k: options.TopK = 50,
    top_p: options.TopP = 0.95,
    repetition_penalty: options.RepetitionPenalty = 1.1,
    guidance: options.Guidance = 0.0,
    code_choice: options.CodeChoice = None,
    split: options.Split = None,
    limit: options.Limit = None,
    batch_size: BatchSize = 4,
    examples: Examples = 4,
    device: options.Device = "cpu",
    text_normalization: options.TextNormalization = "plain",
    as_json: options.Json = False,
    published: Published = "",
) -> None:
    """Measure speech synthesis by number of quantizers: what is understood, and whose voice it is.

    Example: moss-audio eval tts texts.txt --model runs/tts/final --prompts data/m.jsonl -o runs/tts
    """
    _prepare(output)
    from ..evaluation.datasets import read_test_items
    from ..evaluation.speech.tts_eval import TtsPlan, run_tts

    items = read_test_items(texts, prompts, split, limit)
    asr_models = [name for name in dict.fromkeys(asr_model or ["pocketsphinx"]) if name != "none"]
    plan = TtsPlan(
        items,
        **_scoring_models(asr_models, speaker_model, opinion_model),
        quantizer_counts=options.quantizer_counts(num_quantizers),
        seed=seed,
        batch_size=batch_size,
        text_normalization=text_normalization,
    )
    sampling: dict[str, Any] = {"temperature": temperature, "top_k": top_k, "top_p": top_p}
    sampling |= {"repetition_penalty": repetition_penalty, "guidance": guidance}
    sampling |= {"code_choice": code_choice}
    systems = {
        label: open_tts_system(name, codec, device, **sampling)
        for label, name in labelled(model).items()
    }
    with display.progress("synthesizing", len(items)) as bar:
        rows = run_tts(systems, plan, output, display.follow(bar))
    notes = _scoring_notes(asr_models, speaker_model, opinion_model, items)
    more: dict[str, Any] = {"num_examples": examples, "published": published, "items": items}
    more["kbps_per_quantizer"] = systems[next(iter(systems))].kbps_per_quantizer
    _write(output, rows, "Speech synthesis on codes", notes, as_json, **more)


def open_asr_system(name: str, codec: "Codec", device: str) -> "AsrSystem":
    """A CAT-ASR model, by folder, hub id or "bundled"."""
    from ..evaluation.speech.asr_eval import CatAsrSystem
    from ..speech.model_facts import find_speech_model

    with needs_extra("torch", "running a model of speech recognition"):
        return CatAsrSystem(str(find_speech_model("asr", name)), codec, device)


def open_tts_system(name: str, codec: str, device: str, **sampling: Any) -> "TtsSystem":
    """A CAT-TTS model, by folder, hub id or "bundled", with its codec."""
    from ..evaluation.speech.tts_eval import CatTtsSystem
    from ..speech.model_facts import find_speech_model

    with needs_extra("torch", "running a model of speech synthesis"):
        return CatTtsSystem(str(find_speech_model("tts", name)), codec, device, **sampling)


def labelled(names: Sequence[str]) -> dict[str, str]:
    """Models by what tells them apart in tables: the last folders of their paths that differ.

    ``runs/p0/final`` and ``runs/p1/final`` are p0/final and p1/final; ``a/b`` alone is b. What
    training calls every model, "final" or "step-001000", never stands alone.
    """
    parts = [Path(name).parts or (name,) for name in names]
    if len(set(parts)) < len(parts):
        twice = next(name for name, one in zip(names, parts, strict=True) if parts.count(one) > 1)
        raise InputError(f"--model {twice!r} is given twice; expected each once")
    shortest = 2 if any(_is_common(one[-1]) for one in parts) else 1
    for length in range(shortest, max(map(len, parts), default=0) + 1):
        labels = ["/".join(one[-length:]) for one in parts]
        if len(set(labels)) == len(labels):
            return dict(zip(labels, names, strict=True))
    return {name: name for name in names}


def _is_common(folder: str) -> bool:
    return folder == "final" or folder.startswith("step-")


def asr_model_labels(names: Sequence[str]) -> dict[str, str]:
    """Names of ASR models without the folders of their files, where they stay distinct."""
    short = [
        f"{kind}:{Path(value).name}" if "/" in value else name
        for name in names
        for kind, _, value in [name.partition(":")]
    ]
    apart = len(set(short)) == len(short)
    return dict(zip(names, short if apart else names, strict=True))


def _prepare(output: Path) -> None:
    """Fail before the work, not after it, where its results cannot be written."""
    require_packages("eval", "measuring", "jiwer", "matplotlib", "scipy")
    from ..evaluation.speech.speech_rows import results_file

    if output.is_file():
        raise InputError(f"-o {str(output)!r} is a file; expected a folder")
    results_file(output).check()


def _scoring_models(
    asr_models: Sequence[str], speaker_model: str, opinion_model: str
) -> dict[str, Any]:
    """The scoring models of a `TtsPlan`."""
    from ..evaluation.scoring_models import load_opinion_model, load_speaker_model, load_transcriber

    labels = asr_model_labels(asr_models)
    return {
        "transcribers": {
            labels[name]: one for name in asr_models if (one := load_transcriber(name))
        },
        "embed": None if speaker_model == "none" else load_speaker_model(speaker_model),
        "rate": load_opinion_model(opinion_model),
        "settings": " ".join([*asr_models, speaker_model, *filter(None, [opinion_model])]),
    }


def _scoring_notes(
    asr_models: Sequence[str], speaker_model: str, opinion_model: str, items: "Sequence[SpeechItem]"
) -> list[str]:
    notes = [f"ASR models: {', '.join(asr_models)}"] if asr_models else []
    notes += [f"opinion model: {opinion_model}"] if opinion_model else []
    if not any(item.prompt for item in items):
        return [*notes, "no prompts, so no speaker similarity"]
    if speaker_model == "mfcc":
        return [
            *notes,
            "speaker model: mfcc, the cosine of means and deviations of mel cepstra; it is not "
            "speaker verification, and is comparable only on the same prompts",
        ]
    return [*notes, f"speaker model: {speaker_model}"]


def _write(
    output: Path,
    rows: "Sequence[SpeechRow]",
    title: str,
    notes: Sequence[str],
    as_json: bool,
    **more: Any,
) -> None:
    from ..evaluation.speech.speech_report import write_results

    text = write_results(output, rows, title, display.command_line(), notes, **more)
    display.show_results(text, output, as_json, all(row.error for row in rows))
