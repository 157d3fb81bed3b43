"""Codecs measured on recordings: runners, summaries, spectrograms, reports.

Speaks to the `Codec` protocol; knows nothing of models, training or the command line.
"""

from .measures import METRICS, measure
from .report import Reconstruction, build_report
from .runner import Row, evaluate_clips
from .summary import Summary, markdown_table, summarise

__all__ = [
    "METRICS",
    "Reconstruction",
    "Row",
    "Summary",
    "build_report",
    "evaluate_clips",
    "markdown_table",
    "measure",
    "summarise",
]
