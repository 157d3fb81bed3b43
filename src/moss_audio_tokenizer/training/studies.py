"""Comparisons after the paper's section 5, at a scale of minutes: several runs, a table, a plot.

Owns which runs belong together and what is read from their logs; each run is `loop.py`'s.
Sources: the paper's figures 4 (training everything or the decoder alone), 5 (width by bitrate)
and 6 (batch size).
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ..errors import ConfigError, TrainingError
from ..files import atomic_path
from .config import (
    DataConfig,
    OptimizerConfig,
    TrainingConfig,
    ValidationConfig,
    WarmStart,
    override,
)
from .run_folder import VALIDATION_NAME, as_json, read_recipe
from .run_state import newest_run
from .trainers import trainer_for

DEPTHS = (1, 2, 4, 8)
_MEASURES = {
    "speech/mel_distance": "mel distance of speech (lower is better)",
    "speech/stoi": "STOI of speech (higher is better)",
}


@dataclass(frozen=True)
class Study:
    """Runs that differ in one thing.

    Attributes:
        question: what they answer.
        runs: recipes by what is different in them.
        against: "steps" plots full depth over training, "depth" the end over quantizers in use.
    """

    question: str
    runs: dict[str, TrainingConfig]
    against: str


def _base() -> TrainingConfig:
    return TrainingConfig(
        model="study-64",
        max_steps=900,
        quantizer_dropout=1.0,
        precision="fp32",
        checkpoint_every=300,
        log_every=100,
        keep_checkpoints=1,
        keep_best=False,
        data=DataConfig(crop_seconds=0.64, batch_size=6),
        optimizer=OptimizerConfig(learning_rate=1e-3, warmup_steps=50, decay_fraction=0.3),
        warm_start=WarmStart(steps=300, samples=4096),
        validation=ValidationConfig(every=150, clips=12, max_seconds=3.0, num_quantizers=DEPTHS),
    )


def end_to_end() -> Study:
    """The paper's Figure 4."""
    base = _base()
    runs = {"everything": base, "decoder alone": replace(base, decoder_only_from=300)}
    question = "After the quantizer's start, does it pay to train encoder and quantizer on?"
    return Study(question, runs, "steps")


def width() -> Study:
    """The paper's Figure 5."""
    runs = {f"width {size}": replace(_base(), model=f"study-{size}") for size in (32, 64, 128)}
    return Study("What does width buy, and at which bitrate?", runs, "depth")


def batch() -> Study:
    """The paper's Figure 6."""
    base = _base()
    runs = {
        f"batch {size}": replace(base, data=replace(base.data, batch_size=size))
        for size in (2, 6, 18)
    }
    return Study("What does a larger batch buy at as many steps?", runs, "steps")


STUDIES: dict[str, Callable[[], Study]] = {
    "batch": batch,
    "end_to_end": end_to_end,
    "width": width,
}


def run_study(
    name: str, output: str, assignments: list[str], report: Callable[[str], None] = print
) -> Path:
    """Make all runs of a study below ``output``, then its table and its plot.

    Runs that are there already are kept, and unfinished ones go on.

    Args:
        name: of `STUDIES`.
        output: folder of the study.
        assignments: ``key=value`` for every run, such as ``data.manifest=PATH``.
        report: called with lines of progress.

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
    rows = {}
    for label, config in _configured(study, folder, assignments).items():
        report(f"== {label}")
        rows[label] = _run(config, report)
    _write(folder, name, study, rows)
    return folder


def _configured(study: Study, folder: Path, assignments: list[str]) -> dict[str, TrainingConfig]:
    """The runs with the caller's keys, all of them before the first begins."""
    changed = {label: override(recipe, assignments) for label, recipe in study.runs.items()}
    if len(set(changed.values())) < len(changed):
        raise ConfigError(
            f"with {', '.join(assignments)} runs of the study would be the same; leave out the key "
            "that they differ in"
        )
    return {
        label: replace(config, output=str(folder / label.replace(" ", "-")))
        for label, config in changed.items()
    }


def _run(config: TrainingConfig, report: Callable[[str], None]) -> list[dict[str, float]]:
    """The validations of a run, which is made, finished or read."""
    own = Path(config.output)
    if not (own / "final").is_dir():
        trainer_for(config, newest_run(own) is not None, report).run()
    elif read_recipe(own) != (config.kind, as_json(config)):
        raise TrainingError(f"{own} was made with other keys; give those, or another output=DIR")
    if not (own / "final").is_dir():
        raise TrainingError("stopped; give the same command again to go on")
    return _read(own / VALIDATION_NAME)


def _read(path: Path) -> list[dict[str, float]]:
    try:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError) as error:
        raise TrainingError(f"{path} cannot be read ({error}); remove {path.parent}") from error
    if not rows:
        raise TrainingError(f"{path} is empty: a study needs clips of the split 'valid'")
    return rows


def _write(folder: Path, name: str, study: Study, rows: dict[str, list[dict[str, float]]]) -> None:
    summary = {"study": name, "question": study.question, "runs": rows}
    with atomic_path(folder / "study.json", error=TrainingError) as beside:
        beside.write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    with atomic_path(folder / "study.md", error=TrainingError) as beside:
        beside.write_text(table(study, rows), encoding="utf-8")
    figure = _plot(study, rows)
    with atomic_path(folder / "study.png", error=TrainingError) as beside:
        FigureCanvasAgg(figure).print_png(str(beside))


def table(study: Study, rows: dict[str, list[dict[str, float]]]) -> str:
    """The end of every run, by depth, as Markdown."""
    heads = [f"depth {depth}" for depth in DEPTHS]
    lines = [study.question, ""]
    for measure, title in _MEASURES.items():
        lines += [f"| {title} | {' | '.join(heads)} |", "| --- |" + " ---: |" * len(heads)]
        for label, measured in rows.items():
            cells = [f"{measured[-1].get(f'{measure}/{d}', float('nan')):.3f}" for d in DEPTHS]
            lines.append(f"| {label} | {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines)


def _plot(study: Study, rows: dict[str, list[dict[str, float]]]) -> Figure:
    figure = Figure(figsize=(9.0, 3.6), dpi=110, layout="constrained")
    for axes, (measure, title) in zip(figure.subplots(1, 2), _MEASURES.items(), strict=True):
        for label, measured in rows.items():
            axes.plot(*_line(study, measure, measured), marker="o", markersize=3, label=label)
        axes.set_title(title, fontsize=10)
        steps = study.against == "steps"
        axes.set_xlabel("steps" if steps else "quantizers in use")
        if not steps:
            axes.set_xscale("log", base=2)
            axes.set_xticks(DEPTHS, [str(depth) for depth in DEPTHS])
        axes.grid(alpha=0.3)
    axes.legend(fontsize=8, frameon=False)
    return figure


def _line(
    study: Study, measure: str, measured: list[dict[str, float]]
) -> tuple[list[float], list[float]]:
    """What one run draws: (places, values)."""
    if study.against == "depth":
        return list(DEPTHS), [measured[-1].get(f"{measure}/{d}", float("nan")) for d in DEPTHS]
    key = f"{measure}/{DEPTHS[-1]}"
    points = [(row["step"], row[key]) for row in measured if key in row]
    return [step for step, _ in points], [value for _, value in points]
