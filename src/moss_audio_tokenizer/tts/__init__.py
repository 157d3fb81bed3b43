"""CAT-TTS: a language model that speaks in codes.

Source: the paper's section 3.3 and appendix C; training.md section 7.
"""

from .config import CatTtsConfig
from .dropout import SequenceDropout
from .model import CatTts, TtsOutput

__all__ = ["CatTts", "CatTtsConfig", "SequenceDropout", "TtsOutput"]
