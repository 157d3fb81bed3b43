"""Codecs measured on recordings: runs, baselines, summaries, reports, listening tests.

Speaks to the `Codec` protocol; knows nothing of this package's models, training or command line.
"""

from .contenders import LayeredContender
from .measures import METRICS, measure
from .report import Reconstruction, build_report
from .results import write_results
from .rows import Row
from .runs import Plan, run
from .summary import Summary, markdown_table, summarise

__all__ = [
    "METRICS",
    "LayeredContender",
    "Plan",
    "Reconstruction",
    "Row",
    "Summary",
    "build_report",
    "markdown_table",
    "measure",
    "run",
    "summarise",
    "write_results",
]
