"""The audio-to-text head, used in the training of the codec alone (the paper's equation 1)."""

from .head import TASKS, SemanticHead, SemanticOutput

__all__ = ["TASKS", "SemanticHead", "SemanticOutput"]
