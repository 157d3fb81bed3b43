"""Studies: runs that differ in one thing, at a scale of minutes, with a table and a plot of them.

In the package because `moss-audio study` is one of its commands. Sources: the paper's figures 4
(training everything or the decoder alone), 5 (width by bitrate) and 6 (batch size), and its section
4.3 (Progressive Sequence Dropout).
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ..errors import ConfigError, TrainingError
from ..files import atomic_path
from .checkpointing import newest_run
from .codec.codec_config import (
    CodecOptimizerConfig,
    LossWeights,
    TrainingConfig,
    ValidationConfig,
    WarmStart,
)
from .data.data_config import DataConfig
from .recipes import trainer_for
from .run_config import RunConfig, override
from .run_folder import VALIDATION_NAME, as_json, read_recipe
from .speech.speech_config import BitratesValidation, SpeechTrainingConfig
from .speech.speech_recipes import asr_tiny, tts_tiny

DEPTHS = (1, 2, 4, 8)
CODEC_MEASURES = {
    "speech/mel_distance": "mel distance of speech (lower is better)",
    "speech/stoi": "STOI of speech (higher is better)",
}
LANGUAGE_DEPTHS = (1, 2, 4, 8, 16, 32)
TTS_MEASURES = {"codes": "cross-entropy of held-out codes in nats (lower is better)"}
ASR_MEASURES = {
    "wer": "word error rate (lower is better)",
    "cer": "character error rate (lower is better)",
}
# The validations of a run, as its log has them.
Rows = list[dict[str, float]]
# Two-sided 95% quantiles of Student's t distribution, by the number of seeds.
_T95 = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776}
SpeechConfig = TypeVar("SpeechConfig", bound=SpeechTrainingConfig)


@dataclass(frozen=True)
class Study:
    """Runs that differ in one thing.

    Attributes:
        question: the question that they answer.
        runs: the recipes, by what is different in them.
        against: the x axis: "steps" plots the most quantizers over training, "depth" the end of
            training over the number of quantizers.
        measures: the title of each measure, by its name in validation.jsonl without the number
            of quantizers.
        depths: the numbers of quantizers that every run validates with, smallest first.
        seeds: each recipe is run with all of them, two to five where there are several; tables
            and plots have means and 95% intervals.
    """

    question: str
    runs: Mapping[str, RunConfig]
    against: str
    measures: Mapping[str, str]
    depths: tuple[int, ...]
    seeds: tuple[int, ...] = (0,)


def _codec() -> TrainingConfig:
    """A codec that leaves chance in minutes, if all speech is by one voice."""
    return TrainingConfig(
        model="study-64",
        max_steps=600,
        quantizer_dropout=1.0,
        precision="fp32",
        checkpoint_every=300,
        keep_best=False,
        data=DataConfig(crop_seconds=0.64, batch_size=8),
        losses=LossWeights(phase=15.0),
        optimizer=CodecOptimizerConfig(
            kind="muon", learning_rate=1e-3, warmup_steps=50, decay_fraction=0.4
        ),
        warm_start=WarmStart(steps=200, samples=4096),
        validation=ValidationConfig(every=100, clips=12, num_quantizers=DEPTHS),
    )


def end_to_end() -> Study:
    """The paper's Figure 4."""
    base = replace(_codec(), max_steps=900)
    runs = {"everything": base, "decoder alone": replace(base, decoder_only_from=400)}
    question = "After the quantizer's start, does it pay to train encoder and quantizer further?"
    return Study(question, runs, "steps", CODEC_MEASURES, DEPTHS, seeds=(0, 1, 2))


def width() -> Study:
    """The paper's Figure 5, with batches of 16: with smaller ones no width leaves chance."""
    base = _with_batch(16)
    runs = {f"width {size}": replace(base, model=f"study-{size}") for size in (32, 64, 128, 256)}
    question = "What does width buy, and at which bitrate?"
    return Study(question, runs, "depth", CODEC_MEASURES, DEPTHS)


def batch() -> Study:
    """The paper's Figure 6."""
    runs = {f"batch {size}": _with_batch(size) for size in (1, 2, 4, 8, 16, 32)}
    question = "What does a larger batch buy at as many steps?"
    return Study(question, runs, "steps", CODEC_MEASURES, DEPTHS)


def _with_batch(size: int) -> TrainingConfig:
    base = _codec()
    return replace(base, data=replace(base.data, batch_size=size))


def _small(recipe: SpeechConfig, steps: int, warmup_steps: int, clips: int) -> SpeechConfig:
    """A recipe of speech with a small language model, in minutes."""
    return replace(
        recipe,
        max_steps=steps,
        precision="fp32",
        checkpoint_every=250,
        keep_best=False,
        model=replace(recipe.model, width=128, num_layers=3),
        data=replace(recipe.data, batch_seconds=24.0),
        optimizer=replace(recipe.optimizer, warmup_steps=warmup_steps),
        validation=BitratesValidation(steps, clips, LANGUAGE_DEPTHS),
    )


def sequence_dropout() -> Study:
    """Progressive Sequence Dropout, the paper's section 4.3."""
    base = replace(_small(tts_tiny(), 600, 50, 32), depth="tiny")
    runs = {
        label: replace(base, dropout=replace(base.dropout, probability=share))
        for label, share in (("all layers", 0.0), ("sequence dropout", 1.0))
    }
    question = "Does a TTS model that is trained on random prefixes of the layers know all of them?"
    return Study(question, runs, "depth", TTS_MEASURES, LANGUAGE_DEPTHS)


def reading_depth() -> Study:
    """One ASR model for all bitrates, or for the highest alone."""
    base = _small(asr_tiny(), 1000, 100, 48)
    base = replace(base, data=replace(base.data, versions=2))
    runs = {
        label: replace(base, prefix_share=share)
        for label, share in (("all layers", 0.0), ("random prefixes", 1.0))
    }
    question = "Does an ASR model trained on random prefixes of the layers work at any bitrate?"
    return Study(question, runs, "depth", ASR_MEASURES, LANGUAGE_DEPTHS)


STUDIES: dict[str, Callable[[], Study]] = {
    "batch": batch,
    "end_to_end": end_to_end,
    "reading_depth": reading_depth,
    "sequence_dropout": sequence_dropout,
    "width": width,
}


def run_study(
    name: str, output: str, assignments: list[str], report: Callable[[str], None] = print
) -> Path:
    """Make all runs of a study below ``output``, then its table and its plot.

    Finished runs are kept, and unfinished ones resumed.

    Args:
        name: the name of one of `STUDIES`.
        output: the folder of the study.
        assignments: ``key=value`` for every run, such as ``data.manifest=PATH``.
        report: a function that is called with lines of progress.

    Returns:
        The folder, with ``study.md``, ``study.json`` and ``study.png``.

    Raises:
        ConfigError: there is no such study, or no such key.
        TrainingError: a run cannot be made.
    """
    if name not in STUDIES:
        raise ConfigError(f"no study {name!r}; there are {', '.join(STUDIES)}")
    if not output:
        raise TrainingError("no output folder; set output=DIR")
    study, folder = STUDIES[name](), Path(output)
    rows: dict[str, list[Rows]] = {label: [] for label in study.runs}
    for label, config in _configured(study, folder, assignments):
        report(f"== {label}" + (f", seed {config.seed}" if len(study.seeds) > 1 else ""))
        rows[label].append(_run(config, report))
    _write(folder, name, study, rows)
    return folder


def _configured(study: Study, folder: Path, assignments: list[str]) -> list[tuple[str, RunConfig]]:
    """The runs with the caller's keys, all of them before the first begins."""
    changed = []
    for seed in study.seeds:
        for label, recipe in study.runs.items():
            name = label.replace(" ", "-") + (f"-seed-{seed}" if len(study.seeds) > 1 else "")
            seeded = replace(recipe, seed=seed) if len(study.seeds) > 1 else recipe
            changed.append((label, name, override(seeded, assignments)))
    if len({config for _, _, config in changed}) < len(changed):
        raise ConfigError(
            f"with {', '.join(assignments)} runs of the study would be the same; leave out the key "
            "that they differ in"
        )
    return [(label, replace(config, output=str(folder / name))) for label, name, config in changed]


def _run(config: RunConfig, report: Callable[[str], None]) -> Rows:
    """The validations of a run, which is made, finished or read."""
    own = Path(config.output)
    if not (own / "final").is_dir():
        trainer_for(config, newest_run(own) is not None, report).run()
    elif read_recipe(own) != (config.kind, as_json(config)):
        raise TrainingError(f"{own} was made with other keys; give those, or another output=DIR")
    if not (own / "final").is_dir():
        raise TrainingError("stopped; give the same command again to continue")
    path = own / VALIDATION_NAME
    try:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError) as error:
        raise TrainingError(f"{path} cannot be read ({error}); remove {own}") from error
    if not rows:
        raise TrainingError(f"{path} is empty: a study needs clips of the split 'valid'")
    return rows


def _write(folder: Path, name: str, study: Study, rows: dict[str, list[Rows]]) -> None:
    summary = {"study": name, "question": study.question, "runs": rows}
    texts = {"study.json": json.dumps(summary, indent=1) + "\n", "study.md": table(study, rows)}
    for file, text in texts.items():
        with atomic_path(folder / file, error=TrainingError) as beside:
            beside.write_text(text, encoding="utf-8")
    with atomic_path(folder / "study.png", error=TrainingError) as beside:
        FigureCanvasAgg(_plot(study, rows)).print_png(str(beside))


def table(study: Study, rows: dict[str, list[Rows]]) -> str:
    """The last validation of every run, by num_quantizers, as Markdown."""
    heads = [f"depth {depth}" for depth in study.depths]
    lines = [study.question, ""]
    for measure, title in study.measures.items():
        lines += [f"| {title} | {' | '.join(heads)} |", "| --- |" + " ---: |" * len(heads)]
        for label, runs in rows.items():
            means, intervals = _statistics([_at_the_end(study, measure, run) for run in runs])
            cells = [
                f"{mean:.3f}" + (f" ± {interval:.3f}" if len(runs) > 1 else "")
                for mean, interval in zip(means, intervals, strict=True)
            ]
            lines.append(f"| {label} | {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines)


def _statistics(curves: list[list[float]]) -> tuple[np.ndarray, np.ndarray]:
    """Means of the curves of several seeds, and half the width of their 95% intervals."""
    values, count = np.array(curves), len(curves)
    if count == 1:
        return values[0], np.zeros_like(values[0])
    return values.mean(0), _T95[count] * values.std(0, ddof=1) / np.sqrt(count)


def _plot(study: Study, rows: dict[str, list[Rows]]) -> Figure:
    count = len(study.measures)
    figure = Figure(figsize=(4.5 * count, 3.6), dpi=110, layout="constrained")
    panels = figure.subplots(1, count, squeeze=False)[0]
    for axes, (measure, title) in zip(panels, study.measures.items(), strict=True):
        for label, runs in rows.items():
            curves = [_line(study, measure, run) for run in runs]
            means, intervals = _statistics([values for _, values in curves])
            (line,) = axes.plot(curves[0][0], means, marker="o", markersize=3, label=label)
            low, high = means - intervals, means + intervals
            axes.fill_between(curves[0][0], low, high, color=line.get_color(), alpha=0.15, lw=0)
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("steps" if study.against == "steps" else "quantizers in use")
        if study.against == "depth":
            axes.set_xscale("log", base=2)
            axes.set_xticks(study.depths, [str(depth) for depth in study.depths])
        axes.grid(alpha=0.3)
    axes.legend(fontsize=8, frameon=False)
    return figure


def _line(study: Study, measure: str, measured: Rows) -> tuple[list[float], list[float]]:
    """The curve of one run: (x, y)."""
    if study.against == "depth":
        return list(study.depths), _at_the_end(study, measure, measured)
    key = f"{measure}/{study.depths[-1]}"
    points = [(row["step"], row[key]) for row in measured if key in row]
    return [step for step, _ in points], [value for _, value in points]


def _at_the_end(study: Study, measure: str, measured: Rows) -> list[float]:
    """A measure after the last step, by num_quantizers; NaN where the model has fewer."""
    return [measured[-1].get(f"{measure}/{depth}", float("nan")) for depth in study.depths]
