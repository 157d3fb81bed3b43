"""Draws the curves of a training run: losses by step, and quality by depth at each validation.

`python benchmarks/plot_run.py RUN_FOLDER -o curve.png` reads its metrics.jsonl and
validation.jsonl. Without a folder nothing is drawn.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

_SMOOTHING_STEPS = 100


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a JSON-lines log by step; the later line of a step counts."""
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return list({line["step"]: line for line in lines}.values())


def smoothed(values: list[float]) -> list[float]:
    """The mean of the last `_SMOOTHING_STEPS` values at each place."""
    windows = [values[max(0, end - _SMOOTHING_STEPS) : end] for end in range(1, len(values) + 1)]
    return [sum(window) / len(window) for window in windows]


def draw(run: Path) -> Figure:
    """Three panels: mel loss, STOI of speech, mel distance of speech."""
    figure = Figure(figsize=(12, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    loss, stoi, mel = figure.subplots(1, 3)
    lines = read_lines(run / "metrics.jsonl")
    loss.plot([line["step"] for line in lines], smoothed([line["mel"] for line in lines]))
    loss.set(title="mel loss (train, smoothed)", xlabel="step", ylim=(0.8, 4))
    validations = read_lines(run / "validation.jsonl")
    for axes, name in ((stoi, "stoi"), (mel, "mel_distance")):
        _draw_depths(axes, validations, f"speech/{name}/")
        axes.set(title=f"speech {name} (valid) by layers", xlabel="step")
        axes.legend(fontsize=8)
    for axes in (loss, stoi, mel):
        axes.grid(alpha=0.3)
    return figure


def _draw_depths(axes: Any, validations: list[dict[str, Any]], prefix: str) -> None:
    depths = {key.removeprefix(prefix) for line in validations for key in line if prefix in key}
    for depth in sorted(depths, key=int):
        points = [
            (line["step"], line[prefix + depth]) for line in validations if prefix + depth in line
        ]
        label = "no quantizer" if depth == "0" else f"{depth} layers"
        axes.plot(*zip(*points, strict=True), marker=".", label=label)


def main() -> None:
    """Parse the command line and draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, nargs="?", help="folder of a run")
    parser.add_argument("-o", "--output", type=Path, default=Path("curve.png"))
    options = parser.parse_args()
    if options.run is None:
        print("no RUN_FOLDER given: nothing to draw (see --help)")
        return
    draw(options.run).savefig(options.output, dpi=80)


if __name__ == "__main__":
    main()
