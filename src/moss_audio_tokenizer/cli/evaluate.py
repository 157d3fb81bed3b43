"""`moss-audio eval` and `moss-audio compare`: codecs measured over a manifest.

Owns the options and what is printed; runs, tables and pages are `evaluation`'s.
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import InputError
from . import display, loading, options
from .evaluate_speech import labelled
from .failures import needs_extra, require_packages

if TYPE_CHECKING:
    from ..evaluation.codecs import EvaluatedCodec
    from ..evaluation.run import Plan

_NO_MODEL = "none"
_SPEECH_PRESETS = ("table3", "table4")

Models = Annotated[
    list[str] | None,
    typer.Option(
        "--model",
        metavar="M",
        show_default="bundled",
        help="Model folder, Hugging Face id, 'bundled', or 'none'; several times for several.",
    ),
]
Codecs = Annotated[
    list[str] | None,
    typer.Option(
        "--codec",
        metavar="CODEC",
        show_default="none",
        help="opus:6, codec2:3200, speex:4, mp3:32, aac:32, encodec:PATH@6, dac:PATH@9, "
        "mimi:PATH@8, xcodec2:PATH, original, lowpass:3500 or python:MODULE:FUNCTION; several "
        "times for several.",
    ),
]
Domain = Annotated[
    str | None, typer.Option("--domain", metavar="D", show_default="all", help="Only this domain.")
]
Jobs = Annotated[
    int | None,
    typer.Option(
        "--jobs", metavar="N", min=1, show_default="cores", help="Processes, a thread each."
    ),
]
Examples = Annotated[
    int,
    typer.Option(
        "--examples", metavar="N", min=0, help="Clips whose sound is stored and shown in the page."
    ),
]
Metrics = Annotated[
    list[str] | None,
    typer.Option(
        "--metric",
        metavar="NAME",
        show_default="all",
        help="Only these metrics (stoi, pesq_wb, ...); several times for several.",
    ),
]
SpeakerModel = Annotated[
    str,
    typer.Option(
        "--speaker-model",
        metavar="NAME",
        show_default="none",
        help="Speaker similarity by resemblyzer, wavlm:FOLDER, a folder or hf:NAME for "
        "transformers, or MODULE:FUNCTION.",
    ),
]
AsrModel = Annotated[
    str,
    typer.Option(
        "--asr-model",
        "--recogniser",
        metavar="NAME",
        show_default="none",
        help="Word error rates by whisper[:SIZE|FOLDER][@LANGUAGE], pocketsphinx, "
        "cat:FOLDER, a folder or hf:NAME for transformers, or MODULE:FUNCTION.",
    ),
]
Preset = Annotated[
    str | None,
    typer.Option(
        "--preset",
        metavar="NAME",
        show_default="none",
        help="table2: the paper's bitrates and metrics for codecs; table3: speech synthesis "
        "(MANIFEST may be a .lst of Seed-TTS-Eval); table4: speech recognition. The published "
        "figures are shown beside.",
    ),
]


def evaluate(
    manifest: options.Manifest,
    output: options.ResultsFolder,
    model: Models = None,
    num_quantizers: options.SeveralNumQuantizers = None,
    split: options.Split = None,
    domain: Domain = None,
    limit: options.Limit = None,
    jobs: Jobs = None,
    device: options.Device = "cpu",
    examples: Examples = 4,
    metric: Metrics = None,
    speaker_model: SpeakerModel = "",
    opinion_model: options.OpinionModel = "",
    asr_model: AsrModel = "",
    text_normalization: options.TextNormalization = "plain",
    as_json: options.Json = False,
) -> None:
    """Measure models over a manifest at several bitrates: tables, plots and a page to listen to.

    Example: moss-audio eval data/manifest.jsonl --split valid -n 8,32 -o runs/eval
    """
    openers = _models(model, options.quantizer_counts(num_quantizers), device)
    scoring = (speaker_model, opinion_model, asr_model, text_normalization)
    plan = _plan(manifest, (split, domain, limit), openers, metric, scoring, jobs, examples)
    _run(plan, output, "Evaluation", as_json)


def compare(
    manifest: options.Manifest,
    output: options.ResultsFolder,
    model: Models = None,
    num_quantizers: options.SeveralNumQuantizers = None,
    codec: Codecs = None,
    split: options.Split = None,
    domain: Domain = None,
    limit: options.Limit = None,
    jobs: Jobs = None,
    device: options.Device = "cpu",
    examples: Examples = 4,
    metric: Metrics = None,
    speaker_model: SpeakerModel = "",
    opinion_model: options.OpinionModel = "",
    asr_model: AsrModel = "",
    text_normalization: options.TextNormalization = "plain",
    preset: Preset = None,
    prompts: options.Prompts = None,
    as_json: options.Json = False,
) -> None:
    """Measure models beside other codecs: the same clips, the same metrics, the actual bitrates.

    Example: moss-audio compare clips.jsonl --preset table2 --codec opus:6 -o runs/table2
    """
    with needs_extra("eval", "comparing codecs"):
        from ..evaluation.baselines import open_baseline
    if preset in _SPEECH_PRESETS:
        _refuse_codec_options(preset, codec=codec, domain=domain, jobs=jobs, metric=metric)
        shared: dict[str, Any] = {"num_quantizers": num_quantizers, "split": split, "limit": limit}
        shared |= {"as_json": as_json, "device": device, "examples": examples}
        scoring = (speaker_model, opinion_model, asr_model, text_normalization)
        _compare_speech(preset, manifest, output, model, prompts, scoring, shared)
        return
    if prompts:
        raise InputError("--prompts is for speech synthesis: --preset table3")
    bitrates: tuple[int, ...] = ()
    if preset is not None:
        bitrates, metric, speaker_model = _table2(preset, metric, speaker_model)
    openers = [*_models(model, options.quantizer_counts(num_quantizers), device, bitrates)]
    openers += [partial(open_baseline, name) for name in codec or []]
    scoring = (speaker_model, opinion_model, asr_model, text_normalization)
    plan = _plan(manifest, (split, domain, limit), openers, metric, scoring, jobs, examples)
    title = "Comparison of codecs" if preset is None else "Codecs as in Table 2 of the paper"
    _run(plan, output, title, as_json, published=preset is not None)


def _table2(
    preset: str, metrics: Sequence[str] | None, speaker_model: str
) -> tuple[tuple[int, ...], list[str], str]:
    """Bitrates, metrics and speaker model of the preset, unless others are given."""
    from ..evaluation.published import TABLE2_BITRATES, TABLE2_METRICS
    from ..evaluation.scoring_models import default_speaker_model

    if preset != "table2":
        raise InputError(f"--preset {preset!r} is unknown; expected table2, table3 or table4")
    chosen = list(metrics or TABLE2_METRICS)
    return TABLE2_BITRATES, chosen, speaker_model or default_speaker_model()


def _refuse_codec_options(preset: str, **given: Any) -> None:
    """Options that a preset about speech models has no use for."""
    unused = [f"--{name.replace('_', '-')}" for name, value in given.items() if value]
    if unused:
        raise InputError(
            f"--preset {preset} measures speech models and has no use for {', '.join(unused)}; "
            "leave it out"
        )


def _compare_speech(
    preset: str,
    texts: Path,
    output: Path,
    models: Sequence[str] | None,
    prompts: Path | None,
    scoring: tuple[str, str, str, str],
    shared: dict[str, Any],
) -> None:
    """Tables 3 and 4 are about speech models: their commands, with the paper's scoring models.

    Args:
        preset: "table3" or "table4".
        texts: manifest, or Seed-TTS-Eval's list.
        output: folder of the results.
        models: folders of speech models; None for the installed one.
        prompts: manifest of the voices to imitate, for table3.
        scoring: speaker, opinion and ASR model and text normalization; "" and "plain" for the
            preset's.
        shared: options of both commands.
    """
    from . import evaluate_speech

    names = list(models or ["bundled"])
    speaker_model, opinion_model, asr_model, normalization = scoring
    shared |= {"published": preset}
    if preset == "table4":
        unused = {"speaker_model": speaker_model, "opinion_model": opinion_model}
        _refuse_codec_options(preset, **unused, asr_model=asr_model, prompts=prompts)
        shared |= {"text_normalization": _unless_plain(normalization, "whisper")}
        evaluate_speech.evaluate_asr(texts, output, names, **shared)
        return
    from ..evaluation.scoring_models import default_speaker_model

    evaluate_speech.evaluate_tts(
        texts,
        output,
        names,
        prompts=prompts,
        asr_model=[asr_model or "whisper"],
        speaker_model=speaker_model or default_speaker_model() or "mfcc",
        opinion_model=opinion_model,
        text_normalization=_unless_plain(normalization, "seed-tts"),
        **shared,
    )


def _unless_plain(given: str, of_preset: str) -> str:
    return of_preset if given == "plain" else given


def open_model(
    name: str,
    label: str,
    quantizer_counts: tuple[int, ...],
    bitrates: tuple[float, ...],
    device: str,
) -> "EvaluatedCodec":
    """A model of this package as an evaluated codec; called in worker processes too."""
    from ..evaluation.codecs import LayeredCodec, counts_at

    codec = loading.load_codec(name, "all", device)
    counts = quantizer_counts or (counts_at(codec.info, bitrates) if bitrates else ())
    return LayeredCodec(codec, label, counts)


def _models(
    names: Sequence[str] | None,
    counts: Sequence[int] | None,
    device: str,
    bitrates: Sequence[float] = (),
) -> "list[Callable[[], EvaluatedCodec]]":
    wanted = [name for name in names or ["bundled"] if name != _NO_MODEL]
    return [
        partial(open_model, name, label, tuple(counts or ()), tuple(bitrates), device)
        for label, name in labelled(wanted).items()
    ]


def _plan(
    manifest: Path,
    wanted: tuple[str | None, str | None, int | None],
    openers: "Sequence[Callable[[], EvaluatedCodec]]",
    metrics: Sequence[str] | None,
    scoring: tuple[str, str, str, str],
    jobs: int | None,
    examples: int,
) -> "Plan":
    """What is measured: clips of (split, domain, at most), by metrics and scoring models."""
    require_packages("eval", "measuring", "matplotlib", "pystoi", "scipy")
    from ..evaluation.metric_registry import ALL_METRICS
    from ..evaluation.run import Plan
    from ..evaluation.scoring_models import ScoringModelNames
    from ..manifest import read_manifest
    from ..workers import usable_cores

    names = ScoringModelNames(*scoring)
    for name in metrics or []:
        if name not in ALL_METRICS:
            raise InputError(f"--metric {name!r} is unknown; expected {', '.join(ALL_METRICS)}")
    if not openers:
        raise InputError("there is nothing to measure; give a --model or a --codec")
    split, domain, limit = wanted
    clips = read_manifest(manifest, split, domain)[:limit]
    chosen = tuple(metrics or ALL_METRICS)
    return Plan(clips, openers, chosen, names, jobs or usable_cores(), examples)


def _run(plan: "Plan", output: Path, title: str, as_json: bool, published: bool = False) -> None:
    from ..evaluation.codec_report import write_results
    from ..evaluation.run import check_folder, run_evaluation

    check_folder(output)
    with display.progress("measuring", len(plan.clips) * len(plan.openers)) as bar:
        outcome = run_evaluation(plan, output, display.follow(bar))
    with display.progress("writing the report"):
        command = display.command_line()
        text = write_results(output, outcome, plan.clips, title, command, published)
    display.show_results(text, output, as_json, all(row.error for row in outcome.rows))
