"""CAT-TTS: a language model that speaks in codes.

Source: the paper's section 3.3 and appendix C; training.md section 7.
"""

from .config import CatTtsConfig
from .dropout import SequenceDropout
from .generation import Frame, GeneratedSpeech, Prompt, frames, generate
from .model import CatTts, TtsOutput
from .sampling import SpeechSampling
from .speaking import Speaker, Speech, SpeechRequest

__all__ = [
    "CatTts",
    "CatTtsConfig",
    "Frame",
    "GeneratedSpeech",
    "Prompt",
    "SequenceDropout",
    "Speaker",
    "Speech",
    "SpeechRequest",
    "SpeechSampling",
    "TtsOutput",
    "frames",
    "generate",
]
