"""CAT-TTS: a text-to-speech model that predicts codes.

Source: the paper's section 3.3 and appendix C.
"""

from .config import CatTtsConfig
from .generation import Frame, GeneratedSpeech, Prompt, frames, generate
from .model import CatTts, SequenceDropout, TtsBatch, TtsOutput
from .sampling import SpeechSampling
from .synthesizer import Speech, SpeechRequest, Synthesizer

__all__ = [
    "CatTts",
    "CatTtsConfig",
    "Frame",
    "GeneratedSpeech",
    "Prompt",
    "SequenceDropout",
    "Speech",
    "SpeechRequest",
    "SpeechSampling",
    "Synthesizer",
    "TtsBatch",
    "TtsOutput",
    "frames",
    "generate",
]
