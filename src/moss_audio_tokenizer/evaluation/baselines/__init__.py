"""Codecs to compare with: classic ones through their programs, neural ones through their packages.

`open_baseline` takes a short name such as "opus:6"; it knows no metrics.
"""

from .registry import BASELINES, open_baseline

__all__ = ["BASELINES", "open_baseline"]
