"""CAT-ASR: a speech recognition model that reads codes. Source: the paper's appendix E."""

from .asr_config import CatAsrConfig
from .cat_asr import AsrOutput, CatAsr
from .forced_alignment import Aligner
from .torch_transcriber import Transcriber

__all__ = ["Aligner", "AsrOutput", "CatAsr", "CatAsrConfig", "Transcriber"]
