"""CAT-ASR: a language model that reads the codes of speech.

Source: training.md section 8, the paper's appendix E.
"""

from .aligning import Aligner
from .config import CatAsrConfig
from .model import AsrOutput, CatAsr
from .reading import Transcriber

__all__ = ["Aligner", "AsrOutput", "CatAsr", "CatAsrConfig", "Transcriber"]
