"""What a user would pick instead: classic codecs by their programs, others by their models.

`open_baseline` takes them by a short name such as "opus:6"; knows nothing of metrics.
"""

from .registry import BASELINES, open_baseline

__all__ = ["BASELINES", "open_baseline"]
