"""`moss-audio eval` and `moss-audio compare`: codecs measured over a manifest.

Owns the options and what is printed; runs, tables and pages are `evaluation`'s.
"""

import shlex
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import InputError
from . import display, loading, options
from .failures import needs_extra

if TYPE_CHECKING:
    from ..evaluation.codecs import EvaluatedCodec
    from ..evaluation.run import Outcome, Plan
    from ..evaluation.scoring_models.scores import ScoringModelNames

_NO_MODEL = "none"

Manifest = Annotated[
    Path,
    typer.Argument(
        metavar="MANIFEST", readable=False, show_default=False, help="JSON lines, a clip each."
    ),
]
Folder = Annotated[
    Path,
    typer.Option(
        "--output",
        "-o",
        metavar="DIR",
        readable=False,
        show_default=False,
        help="Folder of the results; a run that was stopped goes on there.",
    ),
]
Models = Annotated[
    list[str] | None,
    typer.Option(
        "--model",
        metavar="M",
        show_default="bundled",
        help="Model folder, Hugging Face id, 'bundled', or 'none'; several times for several.",
    ),
]
Depths = Annotated[
    list[int] | None,
    typer.Option(
        "--num-quantizers",
        metavar="N",
        min=1,
        show_default="all",
        help="Layers of codes to use; several times for several bitrates.",
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
Split = Annotated[
    str | None, typer.Option("--split", metavar="S", show_default="all", help="Only this split.")
]
Domain = Annotated[
    str | None, typer.Option("--domain", metavar="D", show_default="all", help="Only this domain.")
]
Limit = Annotated[
    int | None,
    typer.Option("--limit", metavar="N", min=1, show_default="all", help="Only the first N clips."),
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
        "--examples", metavar="N", min=0, help="Clips whose sound is kept and shown in the page."
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
        metavar="PATH",
        show_default="none",
        help="Speaker similarity by this speaker-verification model: a folder for transformers, "
        "or MODULE:FUNCTION.",
    ),
]
OpinionModel = Annotated[
    str,
    typer.Option(
        "--opinion-model",
        metavar="PATH",
        show_default="none",
        help="Opinion scores by this model of one output: a folder for transformers, or "
        "MODULE:FUNCTION.",
    ),
]
Recogniser = Annotated[
    str,
    typer.Option(
        "--recogniser",
        metavar="PATH",
        show_default="none",
        help="Word error rates by this recogniser: a folder for transformers, 'pocketsphinx', or "
        "MODULE:FUNCTION.",
    ),
]


def evaluate(
    manifest: Manifest,
    output: Folder,
    model: Models = None,
    num_quantizers: Depths = None,
    split: Split = None,
    domain: Domain = None,
    limit: Limit = None,
    jobs: Jobs = None,
    device: options.Device = "cpu",
    examples: Examples = 4,
    metric: Metrics = None,
    speaker_model: SpeakerModel = "",
    opinion_model: OpinionModel = "",
    recogniser: Recogniser = "",
    as_json: options.Json = False,
) -> None:
    """Measure models over a manifest at several bitrates: tables, plots and a page to listen to.

    Example: moss-audio eval data/manifest.jsonl --split valid --num-quantizers 8 -o runs/eval
    """
    openers = _models(model, num_quantizers, device)
    names = _scorers(speaker_model, opinion_model, recogniser)
    plan = _plan(manifest, (split, domain, limit), openers, metric, names, jobs, examples)
    _run_locked(plan, output, "Evaluation", as_json)


def compare(
    manifest: Manifest,
    output: Folder,
    model: Models = None,
    num_quantizers: Depths = None,
    codec: Codecs = None,
    split: Split = None,
    domain: Domain = None,
    limit: Limit = None,
    jobs: Jobs = None,
    device: options.Device = "cpu",
    examples: Examples = 4,
    metric: Metrics = None,
    speaker_model: SpeakerModel = "",
    opinion_model: OpinionModel = "",
    recogniser: Recogniser = "",
    as_json: options.Json = False,
) -> None:
    """Measure models beside other codecs: the same clips, the same metrics, the actual bitrates.

    Example: moss-audio compare data/manifest.jsonl --codec opus:6 --codec speex:4 -o runs/compare
    """
    with needs_extra("eval", "comparing codecs"):
        from ..evaluation.baselines import open_baseline
    openers = [*_models(model, num_quantizers, device)]
    openers += [partial(open_baseline, name) for name in codec or []]
    names = _scorers(speaker_model, opinion_model, recogniser)
    plan = _plan(manifest, (split, domain, limit), openers, metric, names, jobs, examples)
    _run_locked(plan, output, "Comparison of codecs", as_json)


def open_model(name: str, quantizer_counts: tuple[int, ...], device: str) -> "EvaluatedCodec":
    """A model of this package as a codec; called in worker processes too."""
    from ..evaluation.codecs import LayeredCodec

    return LayeredCodec(loading.load_codec(name, "all", device), name, quantizer_counts)


def _models(
    names: Sequence[str] | None, quantizer_counts: Sequence[int] | None, device: str
) -> "list[Callable[[], EvaluatedCodec]]":
    wanted = [name for name in names or ["bundled"] if name != _NO_MODEL]
    return [partial(open_model, name, tuple(quantizer_counts or ()), device) for name in wanted]


def _scorers(speaker_model: str, opinion_model: str, recogniser: str) -> "ScoringModelNames":
    with needs_extra("eval", "measuring"):
        from ..evaluation.scoring_models.scores import ScoringModelNames
    return ScoringModelNames(speaker_model, opinion_model, recogniser)


def _plan(
    manifest: Path,
    wanted: tuple[str | None, str | None, int | None],
    openers: "Sequence[Callable[[], EvaluatedCodec]]",
    metrics: Sequence[str] | None,
    scorers: "ScoringModelNames",
    jobs: int | None,
    examples: int,
) -> "Plan":
    from ..evaluation.metric_registry import ALL_METRICS
    from ..evaluation.run import Plan, default_jobs
    from ..manifest import read_manifest

    _require_eval()
    for name in metrics or []:
        if name not in ALL_METRICS:
            raise InputError(f"--metric {name!r} is unknown; expected {', '.join(ALL_METRICS)}")
    if not openers:
        raise InputError("there is nothing to measure; give a --model or a --codec")
    split, domain, limit = wanted
    clips = read_manifest(manifest, split, domain)[:limit]
    names = tuple(metrics or ALL_METRICS)
    return Plan(clips, openers, names, scorers, jobs or default_jobs(), examples)


def _require_eval() -> None:
    """Fail before the work, not after it, where its results cannot be written."""
    with needs_extra("eval", "measuring"):
        import matplotlib  # noqa: F401
        import pystoi  # noqa: F401
        import scipy  # noqa: F401


def _run_locked(plan: "Plan", output: Path, title: str, as_json: bool) -> None:
    from ..evaluation.results import write_results
    from ..evaluation.run import check_folder, run_evaluation

    check_folder(output)
    with display.progress("measuring", len(plan.clips) * len(plan.openers)) as bar:
        outcome = run_evaluation(
            plan,
            output,
            lambda done, total: bar.update(bar.task_ids[0], completed=done, total=total),
        )
    command = shlex.join(["moss-audio", *sys.argv[1:]])
    with display.progress("writing the report"):
        text = write_results(output, outcome, plan.clips, title, command)
    _print(text, outcome, output, as_json)


def _print(text: str, outcome: "Outcome", output: Path, as_json: bool) -> None:
    if as_json:
        display.print_line((output / "summary.json").read_text("utf-8").rstrip())
    else:
        # Without the title and the command, which the user has just typed.
        display.print_line(text.partition("```\n\n")[2].rstrip())
        display.print_line(f"\nresults: {output}")
    if all(row.error for row in outcome.rows):
        raise typer.Exit(1)
