"""What a study asks and measures: the memory of a training step, and the table and plot of runs.

Makes no runs: it sees the validations of finished runs, and runs before their first step.
"""

from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass
from statistics import mean
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from .loop import Loop
from .run_config import RunConfig

# The validations of a run, as its log has them; the last also has the memory of a step.
Rows = list[dict[str, float]]
MEMORY_KEY = "step_megabytes"
_MEMORY_TITLE = "memory of a training step in MB (lower is better)"
_STEPS = 8
# Two-sided 95% quantiles of Student's t distribution, by the number of seeds.
_T95 = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776}


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
        memory: whether the memory of a training step is compared, too.
    """

    question: str
    runs: Mapping[str, RunConfig]
    against: str
    measures: Mapping[str, str]
    depths: tuple[int, ...]
    seeds: tuple[int, ...] = (0,)
    memory: bool = False


def table(study: Study, rows: dict[str, list[Rows]]) -> str:
    """The last validation of every run, by num_quantizers, and its memory, as Markdown."""
    heads = [f"depth {depth}" for depth in study.depths]
    lines = [study.question, ""]
    for measure, title in study.measures.items():
        lines += [f"| {title} | {' | '.join(heads)} |", "| --- |" + " ---: |" * len(heads)]
        lines += [
            _line_of(label, [_at_the_end(study, measure, run) for run in runs], 3)
            for label, runs in rows.items()
        ]
        lines.append("")
    if study.memory:
        lines += [f"| {_MEMORY_TITLE} | |", "| --- | ---: |"]
        lines += [_line_of(label, _memory(runs), 1) for label, runs in rows.items()]
        lines.append("")
    return "\n".join(lines)


def _line_of(label: str, curves: list[list[float]], digits: int) -> str:
    """A line of a table: the means of several seeds, with intervals if there are several."""
    cells = [
        f"{mean:.{digits}f}" + (f" ± {interval:.{digits}f}" if len(curves) > 1 else "")
        for mean, interval in zip(*_statistics(curves), strict=True)
    ]
    return f"| {label} | {' | '.join(cells)} |"


def _memory(runs: list[Rows]) -> list[list[float]]:
    return [[run[-1][MEMORY_KEY]] for run in runs]


def _statistics(curves: list[list[float]]) -> tuple[np.ndarray, np.ndarray]:
    """Means of the curves of several seeds, and half the width of their 95% intervals."""
    values, count = np.array(curves), len(curves)
    if count == 1:
        return values[0], np.zeros_like(values[0])
    return values.mean(0), _T95[count] * values.std(0, ddof=1) / np.sqrt(count)


def plot(study: Study, rows: dict[str, list[Rows]]) -> Figure:
    """A panel for each measure."""
    count = len(study.measures) + study.memory
    figure = Figure(figsize=(4.5 * count, 3.6), dpi=110, layout="constrained")
    panels = figure.subplots(1, count, squeeze=False)[0]
    for axes, (measure, title) in zip(panels, study.measures.items(), strict=False):
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
    if study.memory:
        _plot_memory(panels[-1], rows)
    return figure


def _plot_memory(axes: Axes, rows: dict[str, list[Rows]]) -> None:
    means, intervals = zip(*(_statistics(_memory(runs)) for runs in rows.values()), strict=True)
    axes.bar(list(rows), np.concatenate(means), yerr=np.concatenate(intervals), alpha=0.6)
    axes.set_title(_MEMORY_TITLE, fontsize=10)


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


def step_memory(run: Loop[Any, Any]) -> float:
    """Megabytes that a training step needs, averaged over the first eight steps of a run.

    On a GPU this is the peak of what is allocated: weights, gradients and activations, but not yet
    the state of the optimizer. PyTorch does not count the memory of a CPU: there it is what the
    forward pass keeps for the backward pass, without the weights.

    Args:
        run: a run before its first step, whose weights are not changed. Its passes need no
            preparation (`Loop.before_passes`).
    """
    with closing(run.batches(0)) as batches:
        steps = [run.passes(next(batches)) for _ in range(_STEPS)]
    return mean(max(_bytes_of(run, rows) for rows in passes) for passes in steps) / 1e6


def _bytes_of(run: Loop[Any, Any], rows: Any) -> int:
    """Of one pass; the largest pass of a step is its peak."""
    device, num_targets = run.processes.device, float(run.num_targets(rows))
    if device.type != "cuda":
        kept = _KeptTensors(run.trained_module().parameters())
        with saved_tensors_hooks(kept.add, lambda tensor: tensor):
            run.losses(rows, num_targets)
        return kept.bytes
    torch.cuda.reset_peak_memory_stats(device)
    run.losses(rows, num_targets)["total"].backward()
    run.trained_module().zero_grad()
    return torch.cuda.max_memory_allocated(device)


class _KeptTensors:
    """Counts tensors that are kept for the backward pass, each memory once.

    Args:
        weights: tensors that are not counted.
    """

    def __init__(self, weights: Iterable[Tensor]) -> None:
        self._known = {weight.untyped_storage().data_ptr() for weight in weights}
        self.bytes = 0

    def add(self, tensor: Tensor) -> Tensor:
        """A hook of PyTorch, called with each tensor that is kept."""
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self._known:
            self._known.add(storage.data_ptr())
            self.bytes += storage.nbytes()
        # The tensor itself would keep its own graph alive.
        return tensor.detach()
