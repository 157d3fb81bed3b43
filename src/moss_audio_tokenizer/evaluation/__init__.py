"""Codecs measured on recordings: runs, baselines, summaries, reports, listening tests.

Speaks to the `Codec` protocol; knows nothing of this package's models, training or command line.
"""

from .codecs import LayeredCodec
from .metric_registry import METRICS, measure
from .report import Reconstruction, build_report
from .result_rows import Row
from .results import write_results
from .run import Plan, run_evaluation
from .summary import Summary, markdown_table, summarize

__all__ = [
    "METRICS",
    "LayeredCodec",
    "Plan",
    "Reconstruction",
    "Row",
    "Summary",
    "build_report",
    "markdown_table",
    "measure",
    "run_evaluation",
    "summarize",
    "write_results",
]
