"""The audio-to-text head of training: a language model that reads what the codes say.

It is no part of the codec. Source: training.md section 4, the paper's equation 1.
"""

from .head import TASKS, SemanticHead, SemanticOutput

__all__ = ["TASKS", "SemanticHead", "SemanticOutput"]
