"""CAT-ASR: a speech recognition model that reads codes. Source: the paper's appendix E."""

from .config import CatAsrConfig
from .forced_alignment import Aligner
from .model import AsrOutput, CatAsr
from .transcriber import Transcriber

__all__ = ["Aligner", "AsrOutput", "CatAsr", "CatAsrConfig", "Transcriber"]
