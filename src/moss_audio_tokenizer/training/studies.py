"""Running a study: its runs, and a table and a plot of their logs.

`study_designs.py` says which runs belong together. Both are in the package because
`moss-audio study` is one of its commands.
"""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ..errors import ConfigError, TrainingError
from ..files import atomic_path
from .build import trainer_for
from .checkpointing import newest_run
from .overrides import override
from .run_config import RunConfig
from .run_folder import VALIDATION_NAME, as_json, read_recipe
from .study_designs import STUDIES, Study


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
    rows = {}
    for label, config in _configured(study, folder, assignments).items():
        report(f"== {label}")
        rows[label] = _run(config, report)
    _write(folder, name, study, rows)
    return folder


def _configured(study: Study, folder: Path, assignments: list[str]) -> dict[str, RunConfig]:
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


def _run(config: RunConfig, report: Callable[[str], None]) -> list[dict[str, float]]:
    """The validations of a run, which is made, finished or read."""
    own = Path(config.output)
    if not (own / "final").is_dir():
        trainer_for(config, newest_run(own) is not None, report).run()
    elif read_recipe(own) != (config.kind, as_json(config)):
        raise TrainingError(f"{own} was made with other keys; give those, or another output=DIR")
    if not (own / "final").is_dir():
        raise TrainingError("stopped; give the same command again to continue")
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
    """The last validation of every run, by num_quantizers, as Markdown."""
    heads = [f"depth {depth}" for depth in study.depths]
    lines = [study.question, ""]
    for measure, title in study.measures.items():
        lines += [f"| {title} | {' | '.join(heads)} |", "| --- |" + " ---: |" * len(heads)]
        for label, measured in rows.items():
            cells = [f"{value:.3f}" for value in _at_the_end(study, measure, measured)]
            lines.append(f"| {label} | {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines)


def _plot(study: Study, rows: dict[str, list[dict[str, float]]]) -> Figure:
    count = len(study.measures)
    figure = Figure(figsize=(4.5 * count, 3.6), dpi=110, layout="constrained")
    panels = figure.subplots(1, count, squeeze=False)[0]
    for axes, (measure, title) in zip(panels, study.measures.items(), strict=True):
        for label, measured in rows.items():
            axes.plot(*_line(study, measure, measured), marker="o", markersize=3, label=label)
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("steps" if study.against == "steps" else "quantizers in use")
        if study.against == "depth":
            axes.set_xscale("log", base=2)
            axes.set_xticks(study.depths, [str(depth) for depth in study.depths])
        axes.grid(alpha=0.3)
    axes.legend(fontsize=8, frameon=False)
    return figure


def _line(
    study: Study, measure: str, measured: list[dict[str, float]]
) -> tuple[list[float], list[float]]:
    """The curve of one run: (x, y)."""
    if study.against == "depth":
        return list(study.depths), _at_the_end(study, measure, measured)
    key = f"{measure}/{study.depths[-1]}"
    points = [(row["step"], row[key]) for row in measured if key in row]
    return [step for step, _ in points], [value for _, value in points]


def _at_the_end(study: Study, measure: str, measured: list[dict[str, float]]) -> list[float]:
    """A measure after the last step, by num_quantizers; NaN where the model has fewer layers."""
    return [measured[-1].get(f"{measure}/{depth}", float("nan")) for depth in study.depths]
