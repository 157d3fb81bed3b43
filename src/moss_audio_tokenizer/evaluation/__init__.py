"""Codecs and speech models measured on recordings, beside others, and their reports.

Speaks to the `Codec` protocol; knows nothing of this package's models, training or command line.
"""

from .codec_report import write_results
from .codecs import LayeredCodec
from .metric_registry import METRICS, measure
from .run import Plan, run_evaluation

__all__ = ["METRICS", "LayeredCodec", "Plan", "measure", "run_evaluation", "write_results"]
