"""CAT-TTS: a text-to-speech model that predicts codes.

Source: the paper's section 3.3 and appendix C.
"""

from ..speech.sampling import SpeechSampling
from ..speech.synthesizer import Speech, SpeechRequest
from ..speech.tts_generation import Frame, GeneratedSpeech, Prompt, frames, generate
from .cat_tts import CatTts, Synthesizer
from .code_loss import CodeLoss, SoftTargets
from .text_encoder import SpokenRow
from .tts_config import CatTtsConfig, SequenceDropout, TtsBatch, TtsOutput

__all__ = [
    "CatTts",
    "CatTtsConfig",
    "CodeLoss",
    "Frame",
    "GeneratedSpeech",
    "Prompt",
    "SequenceDropout",
    "SoftTargets",
    "Speech",
    "SpeechRequest",
    "SpeechSampling",
    "SpokenRow",
    "Synthesizer",
    "TtsBatch",
    "TtsOutput",
    "frames",
    "generate",
]
