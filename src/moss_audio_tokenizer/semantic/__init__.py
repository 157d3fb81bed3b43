"""The audio-to-text head of training: a language model that reads what the codes say.

It is no part of the codec. Source: training.md section 4, the paper's equation 1.
"""

from .head import TASKS, SemanticHead, SemanticOutput
from .language_models import load_language_model, random_language_model
from .text import ByteText, PretrainedText, TextCodec

__all__ = [
    "TASKS",
    "ByteText",
    "PretrainedText",
    "SemanticHead",
    "SemanticOutput",
    "TextCodec",
    "load_language_model",
    "random_language_model",
]
