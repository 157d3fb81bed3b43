"""CAT-ASR: a speech recognition model that reads codes. Source: the paper's appendix E."""

from .asr_config import AsrOutput, CatAsrConfig
from .cat_asr import CatAsr, Transcriber
from .forced_alignment import Aligner

__all__ = ["Aligner", "AsrOutput", "CatAsr", "CatAsrConfig", "Transcriber"]
