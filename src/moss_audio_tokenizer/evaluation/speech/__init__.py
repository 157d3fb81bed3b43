"""Speech recognition and synthesis on codes, measured by the number of quantizers.

Owns runs of both, their tables, plots and pages; models are behind two protocols, `AsrSystem`
and `TtsSystem`. It follows Seed-TTS-Eval.
"""

from .asr_eval import AsrPlan, run_asr
from .speech_results import write_results
from .speech_rows import SpeechRow
from .systems import AsrSystem, SynthesizedSpeech, TtsRequest, TtsSystem
from .test_set import SpeechItem, read_test_items
from .tts_eval import TtsPlan, run_tts

__all__ = [
    "AsrPlan",
    "AsrSystem",
    "SpeechItem",
    "SpeechRow",
    "SynthesizedSpeech",
    "TtsPlan",
    "TtsRequest",
    "TtsSystem",
    "read_test_items",
    "run_asr",
    "run_tts",
    "write_results",
]
