"""CAT-ASR: a speech recognition model that reads codes. Source: the paper's appendix E."""

from .cat_asr import AsrOutput, CatAsr, CatAsrConfig, Transcriber
from .forced_alignment import Aligner

__all__ = ["Aligner", "AsrOutput", "CatAsr", "CatAsrConfig", "Transcriber"]
