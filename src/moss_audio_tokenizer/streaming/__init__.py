"""Streams of any runtime: slots, sessions and continuous batches.

Sessions hand out slots, cut what comes into whole frames, and step all slots that have something
to do in one batch. An engine does the computing and holds the streams' memory; PyTorch and
NumPy arrays pass through alike. Knows no model and no runtime: those come in as a `StepEngine`.
"""

from .engine import StepEngine
from .sessions import DecoderStream, EncoderStream, Slot

__all__ = ["DecoderStream", "EncoderStream", "Slot", "StepEngine"]
